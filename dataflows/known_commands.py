"""Commands that the log holds when the account starts, each with the event time from which it counts.

A command is read by its own source, which nothing keeps in step with the ticks. So the account is
told about these before its first tick: a replay must not pass the event time of one that it did not
read yet, and a halt that was sent while the account was down must come before all that it missed.

A run that died has written records which the next one makes again. A command that arrived meanwhile
counts only from behind them: else the next run would decide otherwise what the log says already.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from dataflows.stack import kafka_settings
from infra.control import CommandRefusedError, load_or_create_key, public_text, verify_command
from infra.kafka.reading import read_backwards, read_to_end
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.batches import ControlReceived
from schemas.codec import decode
from schemas.operations import ControlApplied, ControlCommanded
from schemas.topics import full_name
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)

_WRITTEN = (
    DecisionMade, OrderUpdated, OrderFilled, PositionChanged, OutcomeClosed, ControlApplied,
)  # fmt: skip


class KnownCommands(Struct, frozen=True, kw_only=True):
    """What the log says about commands when the account starts."""

    received: tuple[ControlReceived, ...] = ()
    """In the order of the log."""
    not_before_ns: int = -1
    """First event time at which a command may count that did not count yet."""

    @property
    def effective_ns(self) -> dict[str, int]:
        """Event time from which each command counts that did already, by its id."""
        return {
            known.command.id: known.effective_ns
            for known in self.received
            if known.effective_ns is not None
        }


def control_keys(settings: Settings) -> dict[str, str]:
    """Return the public keys whose commands count, by signer."""
    return settings.control.public_keys or {
        "local": public_text(load_or_create_key(settings.state_dir))
    }


def read_known_commands(settings: Settings) -> KnownCommands:
    """Return the account's commands; one that is not verified is left to the source of commands."""
    effective_ns: dict[str, int] = {}
    for record in _read_all(settings, ControlApplied.topic):
        applied = decode(ControlApplied, record.value or b"")
        if applied.account == settings.account:
            # The first record counts: a later one cannot move what was decided under it.
            effective_ns.setdefault(applied.cause, applied.event_time_ns)
    not_before_ns = newest_written_ns(settings) + 1
    received = tuple(
        ControlReceived(
            command=command,
            effective_ns=effective_ns.get(command.id),
            not_before_ns=not_before_ns,
        )
        for command in _verified(settings)
    )
    return KnownCommands(received=received, not_before_ns=not_before_ns)


def _verified(settings: Settings) -> Iterator[ControlCommanded]:
    keys = control_keys(settings)
    for record in _read_all(settings, ControlCommanded.topic):
        try:
            command = decode(ControlCommanded, record.value or b"")
            verify_command(command, settings.environment, keys)
        except (CommandRefusedError, ValueError):
            continue
        if command.account == settings.account:
            yield command


def newest_written_ns(settings: Settings) -> int:
    """Return the event time of the newest record of the account, -1 if the log holds none."""
    return max(_newest_of(settings, kind) for kind in _WRITTEN)


def _newest_of(settings: Settings, kind: type[Struct]) -> int:
    topic: str = kind.topic  # type: ignore[attr-defined]
    name = full_name(settings.environment, topic)
    for records in read_backwards(kafka_settings(settings), name):
        for record in reversed(records):
            written: Any = decode(kind, record.value or b"")
            if written.account == settings.account:
                return int(written.event_time_ns)
    return -1


def _read_all(settings: Settings, topic: str) -> list[FetchedRecord]:
    name = full_name(settings.environment, topic)
    records, _ = read_to_end(kafka_settings(settings), name)
    return records
