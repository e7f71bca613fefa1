"""Flows that would write the same do not run beside each other, and half a log rebuilds nothing."""

from itertools import combinations

import pytest
from kafka import KafkaAdminClient, TopicPartition

from dataflows.fencing import LEASES, file_leases, refuse_overlap
from dataflows.known_commands import KnownCommands
from dataflows.log_flow import INPUTS, WRITES, open_log_flow
from dataflows.log_sources import Watch, control_source, signal_source
from dataflows.stack import FLOWS, kafka_settings
from infra.kafka.errors import HistoryGoneError
from infra.kafka.producer import BatchProducer
from infra.kafka.stop_flag import StopFlag
from infra.kafka.topics import ensure_topics
from infra.lease import LeaseHeldError
from infra.records import FetchedRecord
from infra.serve import Workload
from infra.settings import Settings
from schemas.codec import encode
from schemas.operations import build_dead_letter
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, full_name

SPLIT = ("features", "signals", "portfolio")


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path, kafka=KafkaSettings(partitions=3))


@pytest.fixture
def on_log(settings, broker, request):
    """The same settings in a fresh environment on a broker."""
    name = "f-" + request.node.name.removeprefix("test_").replace("_", "-")[:28]
    kafka = KafkaSettings(bootstrap=broker, partitions=3)
    found = settings.model_copy(update={"kafka": kafka, "environment": name.rstrip("-")})
    ensure_topics(kafka_settings(found), found.environment)
    return found


@pytest.fixture
def open_flow(settings):
    """Open flows of the settings; all locks are given back at the end."""
    opened = []

    def start(name, partitions, on=settings):
        opened.append(open_log_flow(on, name, partitions))
        return opened[-1]

    yield start
    for log in opened:
        log.release()


def put(settings, topic, value, partition=0, headers=(("id", b"x"),), key=None):
    producer = BatchProducer(kafka_settings(settings))
    name = full_name(settings.environment, topic)
    producer.send(name, partition, key, value, list(headers))
    producer.flush()
    producer.close()


def test_flows_that_write_the_same_topic_hold_the_same_lease():
    shared = {"ops.dead_letters"}
    for one, other in combinations(FLOWS, 2):
        overlap = (set(WRITES[one]) & set(WRITES[other])) - shared
        assert bool(overlap) == bool(set(LEASES[one]) & set(LEASES[other])), (one, other)


@pytest.mark.parametrize("flows", [("trading", "archive"), (*SPLIT, "archive"), (), FLOWS[:3]])
def test_flows_that_divide_the_work_run_beside_each_other(flows):
    refuse_overlap(flows)


@pytest.mark.parametrize("split", SPLIT)
def test_trading_does_not_run_beside_a_split_flow(split):
    with pytest.raises(LeaseHeldError, match=f"'trading' and {split!r}, which both hold"):
        refuse_overlap(("trading", "archive", split))


def test_trading_locks_the_account_and_every_lane(settings):
    names = [lease.name for lease in file_leases(settings, "trading", [0, 1])]
    assert names == [
        "paper-PAPER-1",
        *(f"paper-{lane}-{number:04d}" for lane in ("features", "signals") for number in (0, 1)),
    ]


def test_a_split_flow_is_refused_a_lane_of_trading_and_the_other_way_round(open_flow):
    open_flow("features", [1])
    open_flow("features", [2])
    with pytest.raises(LeaseHeldError, match="paper-features-0001"):
        open_flow("trading", [0, 1, 2])


def test_a_refused_flow_keeps_no_lane_locked(open_flow):
    open_flow("signals", [2])
    with pytest.raises(LeaseHeldError):
        open_flow("trading", [0, 1, 2])
    open_flow("features", [0])
    open_flow("portfolio", [0, 1, 2])


def letter(topic, partition):
    found = build_dead_letter(topic, partition, 1, 0, "R", "", b"")
    return FetchedRecord(0, 0, topic.encode(), encode(found), None)


@pytest.mark.parametrize(
    ("flow", "partitions", "made"),
    [
        ("features", [1], {("market.ticks", 1)}),
        ("portfolio", [0, 1], {("ops.control", 0)}),
        ("trading", [0, 1], {("market.ticks", 0), ("market.ticks", 1), ("ops.control", 0)}),
    ],
)
def test_each_flow_knows_the_dead_letters_that_it_makes_itself(open_flow, flow, partitions, made):
    owns = open_flow(flow, partitions)._owns("ops.dead_letters")
    places = [("market.ticks", 0), ("market.ticks", 1), ("ops.control", 0), ("market.bars", 1)]
    assert {place for place in places if owns(letter(*place))} == made
    assert not owns(FetchedRecord(0, 0, b"", b"no letter", None))


def test_records_of_another_account_are_not_ours(open_flow):
    owns = open_flow("portfolio", [0])._owns("trade.decisions")
    assert owns(FetchedRecord(0, 0, b"PAPER-1", b"", None))
    assert not owns(FetchedRecord(0, 0, b"OTHER-1", b"", None))
    assert TOPICS["trade.decisions"].key == TOPICS["ops.applied"].key == ("account",)


def test_the_inputs_of_every_flow_that_writes_are_known():
    assert {flow for flow, topics in INPUTS.items() if topics} == {
        flow for flow, topics in WRITES.items() if topics
    }


@pytest.mark.stack
def test_without_recovery_state_a_log_that_lost_its_start_is_not_continued(on_log, open_flow):
    sink = open_flow("features", [1], on_log).sink()
    put(on_log, "market.bars", b"{}", partition=1)
    for number in (0, 1):
        put(on_log, "market.ticks", b"{}", partition=number)
    sink.build_part("records", "out", None).close()
    admin = KafkaAdminClient(bootstrap_servers=on_log.kafka.bootstrap)
    ticks = full_name(on_log.environment, "market.ticks")
    admin.delete_records({TopicPartition(ticks, 0): 1})
    sink.build_part("records", "out", None).close()
    admin.delete_records({TopicPartition(ticks, 1): 1})
    admin.close()
    with pytest.raises(HistoryGoneError, match=r"first offsets \{0: 1, 1: 1\}"):
        sink.build_part("records", "out", None)
    sink.build_part("records", "out", (1, {})).close()


@pytest.mark.stack
@pytest.mark.parametrize("topic", ["ops.control", "trade.signals"])
def test_commands_and_signals_that_wait_show_as_lag(on_log, topic):
    workload = Workload("portfolio", on_log.environment, stale_after_seconds=30)
    watch = Watch(stop=StopFlag(), workload=workload)
    source = (
        control_source(on_log, "portfolio", watch, KnownCommands())
        if topic == "ops.control"
        else signal_source(on_log, [0], "portfolio", watch)
    )
    for _ in range(3):
        put(on_log, topic, b"junk")
    part = source.build_part("input", "0", None)
    try:
        part._report_lag(part._consumer.end_offset() - part._next_offset)
    finally:
        part.close()
    assert workload.health()["lag_records"] == 3
