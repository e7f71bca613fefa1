"""Messages of the running system: control, settings, alerts, dead letters."""

from base64 import b64encode
from enum import StrEnum
from hashlib import sha256
from typing import ClassVar

from msgspec import Struct

from schemas.fields import Identity, Name, TimeNs
from schemas.ids import derive_id


class Command(StrEnum):
    """Commands that an operator may send."""

    HALT = "halt"
    RESUME = "resume"
    ACTIVATE = "activate"
    """Let a version of a model serve; obeyed by every lane, not by the account."""
    ROLLBACK = "rollback"
    """Let the version before serve again; obeyed by every lane, not by the account."""


ACCOUNT_COMMANDS = frozenset({Command.HALT, Command.RESUME})
"""Commands that the account obeys; the others are for the lanes."""


class ControlCommanded(Struct, frozen=True, kw_only=True):
    """A signed command of an operator."""

    topic: ClassVar[str] = "ops.control"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity = ""
    account: Name
    command: Command
    reason: str
    issued_at_ns: TimeNs
    """Wall clock of the command line; never used to decide when the command takes effect."""
    signer: Name
    signature: str
    """Ed25519 over the environment and the other fields that are not empty (canonical JSON), base64."""
    model: Name = ""
    """Model that `activate` and `rollback` are about; empty for the others."""
    version: str = ""
    """Version that is to serve; empty for `halt` and `resume`."""


class ControlApplied(Struct, frozen=True, kw_only=True):
    """From which event time on a command counts; written before anything that depends on it."""

    topic: ClassVar[str] = "ops.applied"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the command."""
    account: Name
    command: Command
    event_time_ns: TimeNs
    reason: str
    model: Name = ""
    """Model of the command; empty for `halt` and `resume`."""
    version: str = ""
    """Version of the command; empty for `halt` and `resume`."""


class SettingsPublished(Struct, frozen=True, kw_only=True):
    """Effective settings behind a `config` header, secrets masked."""

    topic: ClassVar[str] = "ops.settings"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    """Hash of the effective settings."""
    cause: Identity = ""
    settings_json: str


class AlertRaised(Struct, frozen=True, kw_only=True):
    """An alert was raised or resolved."""

    topic: ClassVar[str] = "ops.alerts"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    kind: Name
    resolved: bool
    event_time_ns: TimeNs
    text: str


class DeadLetterRecorded(Struct, frozen=True, kw_only=True):
    """A record or a line that was not accepted, with its bytes."""

    topic: ClassVar[str] = "ops.dead_letters"
    natural_key: ClassVar[tuple[str, ...]] = ("source_topic", "partition", "offset", "line")

    id: Identity
    cause: Identity = ""
    source_topic: Name
    partition: int
    offset: int
    line: int
    """-1 for a whole record."""
    reason: Name
    """A `DeadLetterReason`."""
    detail: str
    payload_base64: str
    """The first 64 KiB of the bytes."""
    payload_bytes: int
    payload_sha256: str


PAYLOAD_BYTES_MAX = 64 * 1024


def build_dead_letter(
    source_topic: str,
    partition: int,
    offset: int,
    line: int,
    reason: str,
    detail: str,
    payload: bytes,
) -> DeadLetterRecorded:
    """Return the dead letter of a line (or, with line -1, of a whole record)."""
    return DeadLetterRecorded(
        id=derive_id(DeadLetterRecorded.topic, source_topic, 0, line, f"{partition}/{offset}"),
        source_topic=source_topic,
        partition=partition,
        offset=offset,
        line=line,
        reason=reason,
        detail=detail[:500],
        payload_base64=b64encode(payload[:PAYLOAD_BYTES_MAX]).decode(),
        payload_bytes=len(payload),
        payload_sha256=sha256(payload).hexdigest(),
    )
