"""What the log says about commands before the account starts."""

import pytest

from dataflows.control import send_command
from dataflows.known_commands import read_known_commands
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics
from infra.settings import Settings
from schemas.codec import encode
from schemas.operations import Command, ControlApplied
from schemas.settings import KafkaSettings
from schemas.topics import full_name
from schemas.trading import DecisionMade, OrderFilled, PositionChanged
from tests.contracts.samples import closed_leg

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


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


def test_a_new_command_counts_only_behind_the_newest_record_of_the_account(settings):
    send_command(settings, Command.HALT, "late")
    kinds = (DecisionMade, OrderFilled, PositionChanged)
    written = [message for message in closed_leg() if isinstance(message, kinds)]
    write(settings, *written)
    known = read_known_commands(settings)
    newest_ns = max(message.event_time_ns for message in written)
    assert known.not_before_ns == newest_ns + 1
    assert known.received[0].not_before_ns == newest_ns + 1
