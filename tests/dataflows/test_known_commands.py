"""What the log says about commands before the account starts."""

import pytest
from msgspec import structs

from dataflows.control import send_command
from dataflows.known_commands import read_known_commands
from dataflows.parts import build_portfolio
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics
from infra.settings import Settings
from schemas.batches import NO_PARTITION, AccountInput
from schemas.codec import encode
from schemas.instruments import InstrumentBook
from schemas.operations import Command, ControlApplied
from schemas.settings import KafkaSettings
from schemas.topics import full_name
from schemas.trading import DecisionMade, OrderFilled, PositionChanged
from tests.contracts.samples import closed_leg

pytestmark = [pytest.mark.stack]


@pytest.fixture
def settings(broker, tmp_path, request):
    name = request.node.name.removeprefix("test_").replace("_", "-")[:32].rstrip("-")
    found = Settings(
        environment=name,
        state_dir=tmp_path,
        kafka=KafkaSettings(bootstrap=broker, partitions=1),
    )
    ensure_topics(kafka_settings(found), name)
    return found


def write(settings, *messages):
    producer = BatchProducer(kafka_settings(settings))
    for message in messages:
        topic = full_name(settings.environment, message.topic)
        producer.send(topic, 0, None, encode(message), [("id", b"x")])
    producer.flush()
    producer.close()


def test_an_empty_log_knows_no_command(settings):
    known = read_known_commands(settings)
    assert (known.received, known.not_before_ns) == ((), 0)


def test_an_applied_command_comes_with_its_time_and_a_new_one_without(settings):
    first = send_command(settings, Command.HALT, "one")
    applied = ControlApplied(
        id="a",
        cause=first.id,
        account=settings.account,
        command=Command.HALT,
        event_time_ns=5,
        reason="one",
    )
    write(settings, applied)
    second = send_command(settings, Command.RESUME, "two")
    known = read_known_commands(settings)
    assert [each.command.id for each in known.received] == [first.id, second.id]
    assert [each.effective_ns for each in known.received] == [5, None]
    assert known.effective_ns == {first.id: 5}


def test_a_command_of_another_account_or_without_a_right_signature_is_not_known(settings):
    other = settings.model_copy(update={"account": "OTHER-1"})
    send_command(other, Command.HALT, "theirs")
    stranger = settings.model_copy(update={"state_dir": settings.state_dir / "stranger"})
    send_command(stranger, Command.HALT, "forged")
    assert read_known_commands(settings).received == ()


def test_a_command_that_was_signed_in_another_environment_is_not_known(settings):
    other = settings.model_copy(update={"environment": settings.environment[:-1] + "z"})
    ensure_topics(kafka_settings(other), other.environment)
    stolen = send_command(other, Command.RESUME, "theirs")
    write(settings, stolen)
    assert read_known_commands(settings).received == ()


def test_a_second_record_cannot_move_the_time_from_which_a_command_counts(settings):
    halt = send_command(settings, Command.HALT, "now")
    real = ControlApplied(
        id="a",
        cause=halt.id,
        account=settings.account,
        command=Command.HALT,
        event_time_ns=5,
        reason="now",
    )
    write(settings, real, structs.replace(real, id="b", event_time_ns=2**62))
    assert read_known_commands(settings).effective_ns == {halt.id: 5}


def test_a_command_that_was_played_again_is_acted_on_once(settings):
    halt = send_command(settings, Command.HALT, "one")
    resume = send_command(settings, Command.RESUME, "two")
    write(settings, halt)
    known = read_known_commands(settings)
    assert [each.command.id for each in known.received] == [halt.id, resume.id, halt.id]
    portfolio = build_portfolio(settings, [0])
    brought = AccountInput(partition=NO_PARTITION, controls=list(known.received))
    tick = AccountInput(partition=0, tick_watermark_ns=10, signal_watermark_ns=10)
    messages = portfolio.advance([brought, tick], InstrumentBook())
    applied = [message for message in messages if isinstance(message, ControlApplied)]
    assert [message.cause for message in applied] == [halt.id, resume.id]


def test_a_new_command_counts_only_behind_the_newest_record_of_the_account(settings):
    send_command(settings, Command.HALT, "late")
    kinds = (DecisionMade, OrderFilled, PositionChanged)
    written = [
        structs.replace(message, account=settings.account)
        for message in closed_leg()
        if isinstance(message, kinds)
    ]
    later = [
        structs.replace(message, account="OTHER-1", event_time_ns=message.event_time_ns + 9)
        for message in written
    ]
    write(settings, *written, *later)
    known = read_known_commands(settings)
    newest_ns = max(message.event_time_ns for message in written)
    assert known.not_before_ns == newest_ns + 1
    assert known.received[0].not_before_ns == newest_ns + 1
