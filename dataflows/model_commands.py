"""Tell the running lanes which version of a model is to serve, and see when each has adopted it."""

import time
from pathlib import Path

from msgspec import Struct

from dataflows.control import POLL_SECONDS, send_command
from dataflows.stack import EFFECTIVE_NAME, kafka_settings
from infra.kafka.consumers import open_consumer
from infra.kafka.reading import READ_AT_ONCE, read_to_end
from infra.kafka.topics import topic_ends
from infra.settings import Settings, load_settings
from infra.stack.supervise import NotRunningError, Supervisor
from schemas.codec import decode
from schemas.models import VERSION_KINDS, ModelEventKind, ModelEventRecorded
from schemas.operations import Command
from schemas.topics import full_name

VOTING_FLOWS = frozenset({"trading", "signals"})
"""Flows whose lanes vote, and so answer commands about models."""

_ALIVE = frozenset({"starting", "running"})
"""supervisord calls a process `starting` for its first seconds, in which it works already."""
_TOPIC = ModelEventRecorded.topic


class Adoption(Struct, frozen=True, kw_only=True):
    """What the lanes made of a command."""

    command_id: str
    answers: dict[int, ModelEventRecorded]
    """By partition; one that is missing did not answer in time."""
    missing: tuple[int, ...]
    seconds: float
    """From sending until the last answer, or until the limit."""

    @property
    def refusals(self) -> dict[int, str]:
        """Return the reason of each partition that refused."""
        return {
            number: answer.reason
            for number, answer in self.answers.items()
            if answer.kind is ModelEventKind.REFUSED
        }

    @property
    def ok(self) -> bool:
        """Return whether every partition adopted it."""
        return not self.missing and not self.refusals


def voting_environment(settings: Settings) -> str | None:
    """Return the environment of the flow that votes and is supervised in this state folder, if any.

    Raises SettingsError if the settings that it was started with cannot be read.
    """
    try:
        processes = Supervisor(settings.state_dir).statuses()
    except NotRunningError:
        return None
    if not any(each.name in VOTING_FLOWS and each.state in _ALIVE for each in processes):
        return None
    started_with = load_settings(settings.state_dir / EFFECTIVE_NAME, environ={}).settings
    return started_with.environment


def find_lanes(settings: Settings, environment: str | None, root: Path | None) -> bool:
    """Return whether lanes are to be told of a change, before it is made.

    Told are those of the environment that was named, or those that run on this registry.

    Raises:
        ValueError: What runs here is another environment than that of the settings.
        BrokerAwayError, TopicMissingError: The lanes cannot be told.
    """
    if environment is None:
        running = voting_environment(settings) if root is None else None
        if running is None:
            return False
        if running != settings.environment:
            msg = (
                f"environment must be the one whose lanes run here, {running!r}; found "
                f"{settings.environment!r} in the settings; say --env {running}"
            )
            raise ValueError(msg)
    topic_ends(kafka_settings(settings), settings.environment, [_TOPIC])
    return True


def command_lanes(
    settings: Settings, command: Command, model: str, version: str, reason: str, seconds: float
) -> Adoption:
    """Send a signed command and wait until every partition has answered, at most `seconds`.

    Raises BrokerAwayError, TopicMissingError.
    """
    ends = topic_ends(kafka_settings(settings), settings.environment, [_TOPIC])[_TOPIC]
    started = time.monotonic()
    sent = send_command(settings, command, reason, model, version)
    answers: dict[int, ModelEventRecorded] = {}
    for partition, end in sorted(ends.items()):
        left = seconds - (time.monotonic() - started)
        answer = _wait_for_answer(settings, partition, end, sent.id, left)
        if answer is not None:
            answers[partition] = answer
    return Adoption(
        command_id=sent.id,
        answers=answers,
        missing=tuple(sorted(ends.keys() - answers.keys())),
        seconds=time.monotonic() - started,
    )


def _wait_for_answer(
    settings: Settings, partition: int, offset: int, command_id: str, seconds: float
) -> ModelEventRecorded | None:
    name = full_name(settings.environment, _TOPIC)
    consumer = open_consumer(kafka_settings(settings), name, partition, offset)
    deadline = time.monotonic() + seconds
    try:
        # One look at least: while others kept us waiting, this partition may have answered.
        while True:
            for record in consumer.fetch(READ_AT_ONCE, POLL_SECONDS):
                event = decode(ModelEventRecorded, record.value or b"")
                if event.cause == command_id:
                    return event
            if time.monotonic() > deadline:
                return None
    finally:
        consumer.close()


def read_live(settings: Settings) -> list[ModelEventRecorded]:
    """Return the event that counts last, of each partition and model: what the lanes say serves."""
    kafka, name = kafka_settings(settings), full_name(settings.environment, _TOPIC)
    ends = topic_ends(kafka, settings.environment, [_TOPIC])[_TOPIC]
    live: dict[tuple[str, int], ModelEventRecorded] = {}
    for partition in ends:
        for record in read_to_end(kafka, name, partition)[0]:
            event = decode(ModelEventRecorded, record.value or b"")
            if event.kind in VERSION_KINDS:
                live[event.model, partition] = event
    return [live[key] for key in sorted(live)]
