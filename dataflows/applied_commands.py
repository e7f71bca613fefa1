"""Commands that the account has applied already, each with the event time from which it counts.

A command is read by its own source, which nothing keeps in step with the ticks. So the account is
told about these before its first tick: a replay must not pass the event time of one it did not read yet.
"""

from dataflows.stack import kafka_settings
from infra.control import CommandRefusedError, load_or_create_key, public_text, verify_command
from infra.kafka.reading import read_to_end
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.batches import ControlReceived
from schemas.codec import decode
from schemas.operations import ControlApplied, ControlCommanded
from schemas.topics import full_name


def control_keys(settings: Settings) -> dict[str, str]:
    """Return the public keys whose commands count, by signer."""
    return settings.control.public_keys or {
        "local": public_text(load_or_create_key(settings.state_dir))
    }


def read_applied(settings: Settings) -> list[ControlReceived]:
    """Return every command of the account that `ops.applied` names, in the order of the log."""
    effective_ns = {
        applied.cause: applied.event_time_ns
        for applied in (
            decode(ControlApplied, record.value or b"")
            for record in _read_all(settings, ControlApplied.topic)
        )
        if applied.account == settings.account
    }
    if not effective_ns:
        return []
    found, keys = [], control_keys(settings)
    for record in _read_all(settings, ControlCommanded.topic):
        try:
            command = decode(ControlCommanded, record.value or b"")
            verify_command(command, keys)
        except (CommandRefusedError, ValueError):
            continue  # The source of commands reads it again and writes the dead letter.
        if command.id in effective_ns:
            found.append(ControlReceived(command=command, effective_ns=effective_ns[command.id]))
    return found


def _read_all(settings: Settings, topic: str) -> list[FetchedRecord]:
    name = full_name(settings.environment, topic)
    records, _ = read_to_end(kafka_settings(settings), name)
    return records
