"""What the log says about models when a lane starts: what was live, and what nobody answered yet.

A lane writes the events of its own partition. It is told of them before its first bar, so a rebuild
scores every bar with the version that scored it before; and a command that nobody answered counts only
behind everything that the log holds already, as it does for the account (`dataflows.known_commands`).
"""

from collections.abc import Sequence

from msgspec import Struct

from dataflows.known_commands import KnownCommands
from dataflows.stack import kafka_settings
from infra.kafka.reading import read_backwards, read_to_end
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.batches import ProgressMarked
from schemas.codec import decode, find_header
from schemas.models import BAR_KINDS, ModelEventKind, ModelEventRecorded
from schemas.operations import ACCOUNT_COMMANDS, AlertRaised, ControlCommanded
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from schemas.topics import full_name


class KnownModels(Struct, frozen=True, kw_only=True):
    """What a `ModelSchedule` begins with."""

    events: tuple[ModelEventRecorded, ...] = ()
    """Of this partition, in the order of the log."""
    commands: tuple[ControlCommanded, ...] = ()
    """Verified commands about models, answered or not, in the order of the log."""
    not_before_ns: int = 0
    """First event time that nothing in the log depends on yet."""
    alerts: frozenset[str] = frozenset()
    """Ids of the alerts in the log, if an event may need one."""


def read_known_models(settings: Settings, partition: int, known: KnownCommands) -> KnownModels:
    """Return what the log says about the models of `partition`.

    `known` is what it says about commands. Raises BrokerAwayError, TopicMissingError.
    """
    name = full_name(settings.environment, ModelEventRecorded.topic)
    records, _ = read_to_end(kafka_settings(settings), name, partition)
    events = tuple(decode(ModelEventRecorded, record.value or b"") for record in records)
    # Bars say nothing about votes: the split `features` may be far ahead of the lane that votes. And a
    # lane that died may have said what its models say, or learnt from it, but not the signals.
    newest_ns = max(
        _newest_ns(settings, SignalEmitted, partition),
        _newest_ns(settings, OpinionPooled, partition),
        *(each.effective_from_ns for each in events if each.kind in BAR_KINDS),
    )
    return KnownModels(
        events=events,
        commands=tuple(
            each.command for each in known.received if each.command.command not in ACCOUNT_COMMANDS
        ),
        not_before_ns=max(known.not_before_ns, newest_ns + 1, 0),
        alerts=_alert_ids(settings, events),
    )


def _alert_ids(settings: Settings, events: Sequence[ModelEventRecorded]) -> frozenset[str]:
    """Return the ids of all alerts; none are read where no event began or ended one."""
    if not any(each.kind is ModelEventKind.REFUSED for each in events):
        return frozenset()
    name = full_name(settings.environment, AlertRaised.topic)
    records, _ = read_to_end(kafka_settings(settings), name)
    return frozenset(decode(AlertRaised, record.value or b"").id for record in records)


def _newest_ns(
    settings: Settings, kind: type[SignalEmitted] | type[OpinionPooled], partition: int
) -> int:
    """Return the newest event time that a partition speaks of, marks of progress included; else -1."""
    name = full_name(settings.environment, kind.topic)
    for records in read_backwards(kafka_settings(settings), name, partition):
        times = [
            decode(ProgressMarked, record.value or b"").complete_through_ns
            if _is_progress(record)
            else decode(kind, record.value or b"").event_time_ns
            for record in records
            if record.value is not None
        ]
        if times:
            return max(times)
    return -1


def _is_progress(record: FetchedRecord) -> bool:
    return (find_header(record.headers, "schema") or "").startswith(ProgressMarked.__name__)
