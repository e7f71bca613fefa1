"""Commands about models through a real log: what a lane is told at its start, and who waits for it."""

import threading
from zlib import crc32

import pytest
from msgspec.structs import replace

from dataflows.control import send_command
from dataflows.known_commands import read_known_commands
from dataflows.known_models import read_known_models
from dataflows.model_commands import command_lanes, read_live
from dataflows.parts import build_lane
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics
from infra.models.loading import RegistryLoader
from infra.settings import Settings
from operators.model_schedule import ModelSchedule
from schemas.batches import ProgressMarked
from schemas.codec import Origin, build_headers, encode
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed
from schemas.models import ModelEventKind, ModelEventRecorded
from schemas.operations import AlertRaised, Command
from schemas.opinions import OpinionPooled
from schemas.settings import KafkaSettings
from schemas.signals import SignalEmitted
from schemas.topics import full_name
from tests.contracts.samples import OPEN_NS, closed_leg, samples
from tests.infra.models.artefacts import World

pytestmark = [pytest.mark.stack]

PARTITIONS = 2


@pytest.fixture
def settings(broker, tmp_path, request):
    # Whole, for cases of one test must not share a log.
    name = f"known-models-{crc32(request.node.name.encode()):08x}"
    found = Settings(
        environment=name,
        state_dir=tmp_path / "state",
        kafka=KafkaSettings(bootstrap=broker, partitions=PARTITIONS),
    )
    ensure_topics(kafka_settings(found), name)
    return found


def write(settings, partition, *messages):
    producer = BatchProducer(kafka_settings(settings), linger_ms=0)
    for message in messages:
        topic = full_name(settings.environment, message_topic(message))
        headers = build_headers(type(message), "x", "", "", Origin(config_hash="c", epoch=1))
        producer.send(topic, partition, None, encode(message), headers)
    producer.flush()
    producer.close()


def message_topic(message):
    return SignalEmitted.topic if isinstance(message, ProgressMarked) else message.topic


def of(kind):
    return next(message for message in closed_leg() if isinstance(message, kind))


def known(settings, partition):
    return read_known_models(settings, partition, read_known_commands(settings))


def test_an_empty_log_knows_nothing(settings):
    found = known(settings, 1)
    assert (found.events, found.commands, found.not_before_ns) == ((), (), 0)


def test_a_lane_is_told_its_own_events_and_commands_about_models_alone(settings, world):
    events = events_of(settings, world, partition=1)
    write(settings, 1, *events)
    send_command(settings, Command.HALT, "not for lanes")
    sent = send_command(settings, Command.ACTIVATE, "drill", "lightgbm", "1.ab")
    found = known(settings, 1)
    assert list(found.events) == events
    assert [(each.id, each.model, each.version) for each in found.commands] == [
        (sent.id, "lightgbm", "1.ab")
    ]
    assert known(settings, 0).events == ()


def events_of(settings, world, partition):
    world.add()
    schedule = ModelSchedule(partition, ["lightgbm"], RegistryLoader(world.registry))
    return [each for each in schedule.start() if isinstance(each, ModelEventRecorded)]


def test_a_command_for_lanes_neither_halts_nor_resumes_the_account(settings):
    send_command(settings, Command.ACTIVATE, "drill", "lightgbm", "1.ab")
    (received,) = read_known_commands(settings).received
    from dataflows.parts import build_portfolio
    from schemas.batches import NO_PARTITION, AccountInput
    from schemas.instruments import InstrumentBook

    portfolio = build_portfolio(settings, [0, 1])
    given = AccountInput(partition=NO_PARTITION, controls=[received])
    assert portfolio.advance([given], InstrumentBook()) == []


@pytest.mark.parametrize("last", ["signal", "progress", "opinion", "weights", "scored"])
def test_a_new_command_counts_only_behind_everything_that_the_partition_was_asked(settings, last):
    bar, signal = of(BarClosed), of(SignalEmitted)
    newest_ns = OPEN_NS + 10**15
    match last:
        case "signal":
            later = replace(bar, close_time_ns=newest_ns + 10**15)
            write(settings, 1, later, replace(signal, event_time_ns=newest_ns))
        case "progress":
            mark = ProgressMarked(partition=1, complete_through_ns=newest_ns)
            write(settings, 1, bar, signal, mark)
        case "opinion":
            opinion = next(one for one in samples() if isinstance(one, OpinionPooled))
            write(settings, 1, bar, signal, replace(opinion, event_time_ns=newest_ns))
        case _:
            event = next(one for one in samples() if isinstance(one, ModelEventRecorded))
            kind = ModelEventKind(last)
            learnt = replace(event, kind=kind, partition=1, effective_from_ns=newest_ns)
            write(settings, 1, bar, signal, learnt)
    assert known(settings, 1).not_before_ns == newest_ns + 1
    assert known(settings, 0).not_before_ns == 0


def test_an_alert_is_known_once_it_is_written_and_said_again_while_it_is_not(settings, world):
    version = world.add("lightgbm_1h")
    (world.registry.store.folder("lightgbm_1h", version) / "model.onnx").write_bytes(b"")
    made = schedule_of(settings, world).start()
    (alert,) = [each for each in made if isinstance(each, AlertRaised)]
    write(settings, 1, *(each for each in made if isinstance(each, ModelEventRecorded)))
    assert known(settings, 1).alerts == frozenset()
    assert schedule_of(settings, world).start() == [alert]
    assert alert in opened_by_a_lane(settings)
    write(settings, 0, alert)
    assert known(settings, 1).alerts == {alert.id}
    assert schedule_of(settings, world).start() == []
    assert alert not in opened_by_a_lane(settings)


def schedule_of(settings, world):
    found, loader = known(settings, 1), RegistryLoader(world.registry)
    return ModelSchedule(
        1, ["lightgbm_1h"], loader, found.events, found.not_before_ns, found.alerts
    )


def opened_by_a_lane(settings):
    lane = build_lane(settings, InstrumentBook(), lambda *_: None, known={1: known(settings, 1)})
    return lane.build_signals(1, None).records


class Lanes:
    """Lanes that do nothing but serve models, one schedule per partition."""

    def __init__(self, settings, world, partitions):
        self.settings, self.stop = settings, threading.Event()
        loader = RegistryLoader(world.registry)
        self.schedules = {}
        for number in partitions:
            found = known(settings, number)
            schedule = ModelSchedule(
                number, ["lightgbm"], loader, found.events, found.not_before_ns
            )
            write(settings, number, *schedule.start(found.commands))
            schedule.on_bars(OPEN_NS)
            self.schedules[number] = schedule
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            commands = [each.command for each in read_known_commands(self.settings).received]
            for number, schedule in self.schedules.items():
                made = schedule.on_commands(commands)
                events = [each for each in made if isinstance(each, ModelEventRecorded)]
                if events:
                    write(self.settings, number, *events)
            self.stop.wait(0.05)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


@pytest.mark.acceptance("S-016", criterion="a rollback reaches every lane in under 300 s")
def test_every_lane_answers_and_the_wait_ends_with_the_last(settings, world, measured):
    first, second = world.add(), world.add()
    with Lanes(settings, world, [0, 1]) as lanes:
        forth = command_lanes(settings, Command.ACTIVATE, "lightgbm", second, "drill", 60)
        back = command_lanes(settings, Command.ROLLBACK, "lightgbm", first, "drill", 60)
        assert (forth.ok, back.ok) == (True, True)
        assert {number: each.version for number, each in back.answers.items()} == {
            0: first, 1: first,
        }  # fmt: skip
        measured(f"{back.seconds:.2f} s")
        assert back.seconds < 60
        refused = command_lanes(settings, Command.ACTIVATE, "lightgbm", "9.none", "drill", 60)
        assert not refused.ok
        assert set(refused.refusals) == {0, 1}
        found = lanes.schedules[0].serving("lightgbm", OPEN_NS + 1)
        assert found.version == first
    live = [(each.partition, each.kind, each.version) for each in read_live(settings)]
    assert live == [(0, "rolled_back", first), (1, "rolled_back", first)]


def test_a_lane_that_is_down_is_named_and_follows_when_it_starts(settings, world):
    _, second = world.add(), world.add()
    with Lanes(settings, world, [0]):
        found = command_lanes(settings, Command.ACTIVATE, "lightgbm", second, "drill", 3)
    assert (found.ok, found.missing, sorted(found.answers)) == (False, (1,), [0])
    world.registry.activate("lightgbm", second, world.stamp())
    late = Lanes(settings, world, [1])
    assert late.schedules[1].serving("lightgbm", OPEN_NS).version == second
    (answer,) = known(settings, 1).events
    assert (answer.cause, answer.version) == (found.command_id, second)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
