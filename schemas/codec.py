"""Bytes of a record: JSON value, headers, and the rule by which a contract may change.

Evolution rule: a message may only gain optional fields, an enumeration only values. An older reader
ignores the new field and refuses a record with the new value (a dead letter, never a guess), a newer
reader fills the field's default; `tests/contracts` decodes golden bytes of every released version.
"""

from functools import cache
from hashlib import sha256
from typing import TypeVar

import msgspec
from msgspec import Struct

from schemas.checked import decoder

M = TypeVar("M", bound=Struct)

CONTRACT_VERSION = 1
_encoder = msgspec.json.Encoder(decimal_format="string")


def encode(message: Struct) -> bytes:
    """Return `message` as one JSON object; decimals are strings, so no digit is lost."""
    return _encoder.encode(message)


def decode(message: type[M], value: bytes) -> M:
    """Return the message in `value`; raises msgspec.DecodeError naming the path that is wrong."""
    try:
        decoded: M = decoder(message).decode(value)
    except RecursionError as error:
        msg = f"{message.__name__} must be a flat object; found nesting beyond the limit"
        raise msgspec.DecodeError(msg) from error
    return decoded


@cache
def contract_hash(message: type[Struct]) -> str:
    """Return the first 12 hex digits of the SHA-256 of the message's JSON Schema."""
    text = msgspec.json.encode(msgspec.json.schema(message), order="deterministic")
    return sha256(text).hexdigest()[:12]


@cache
def schema_header(message: type[Struct]) -> bytes:
    """Return the `schema` header: name, version and hash."""
    return f"{message.__name__};{CONTRACT_VERSION};{contract_hash(message)}".encode()


class Origin(Struct, frozen=True, kw_only=True):
    """What a process stamps on every record that it writes."""

    config_hash: str
    epoch: int
    """Fencing number of the writer: grows with every start."""


def build_headers(
    message: type[Struct], record_id: str, cause: str, provenance: str, origin: Origin
) -> list[tuple[str, bytes]]:
    """Return the headers of a record; stamps of wall-clock time are appended by the sink."""
    return [
        ("schema", schema_header(message)),
        ("id", record_id.encode()),
        ("cause", cause.encode()),
        ("config", origin.config_hash.encode()),
        ("epoch", str(origin.epoch).encode()),
        ("provenance", provenance.encode()),
    ]


def find_header(headers: list[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """Return the text of the first header `name`, or None; raises UnicodeDecodeError on bad bytes."""
    for key, value in headers or ():
        if key == name and value is not None:
            return value.decode()
    return None
