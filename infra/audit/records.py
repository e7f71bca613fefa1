"""What every record must be, whatever it says: decodable, under its key, with true headers, once."""

from typing import Any

import msgspec
from msgspec import Struct

from infra.audit.log import LogRecord
from infra.audit.report import Check, Place
from schemas.codec import decode, schema_header
from schemas.market import BarClosed, FeaturesComputed
from schemas.topics import TOPICS, Topic, record_key

OPEN_TOPICS = frozenset({"ops.control", "market.instruments"})
"""Anyone may write here; what is no message must then be a dead letter."""


class RecordAudit:
    """Looks at every record of every topic of messages."""

    def __init__(self, headers: Check, unique: Check, refused: set[tuple[str, int, int]]) -> None:
        """Record into `headers` and `unique`; `refused` holds the places of dead letters."""
        self._headers, self._unique = headers, unique
        self._refused = refused
        self._ids: dict[str, bytes | None] = {}
        self._epochs: dict[tuple[str, int], int] = {}
        self.configs: dict[str, Place] = {}
        """Every `config` header of a derived record, with the first place that names it."""

    def start_topic(self) -> None:
        """Forget the ids of the topic before: ids are unique within a topic."""
        self._ids = {}

    def decode(self, record: LogRecord) -> Any:
        """Return the message in `record`, None if it holds none."""
        topic = TOPICS[record.place.topic]
        if record.value is None:
            if not topic.compacted:
                rule = "only a compacted topic holds tombstones"
                self._headers.violate(rule, record.place, "", "a message", "a tombstone")
            return None
        message = self._decoded(topic, record)
        if message is None:
            return None
        self._check_once(topic, record, message)
        if record.headers is not None:
            self._check_headers(topic, record, record.headers, message)
        return message

    def _decoded(self, topic: Topic, record: LogRecord) -> Any:
        if isinstance(record.message, Struct):
            return record.message
        assert topic.message is not None
        problem: Exception = record.message
        if record.message is None:
            try:
                return decode(topic.message, record.value or b"")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                problem = error
        where = (topic.name, record.place.partition, record.place.offset)
        if not (topic.name in OPEN_TOPICS and where in self._refused):
            rule = "every record is a message of its topic"
            self._headers.violate(rule, record.place, "", topic.message.__name__, problem)
        return None

    def _check_once(self, topic: Topic, record: LogRecord, message: Any) -> None:
        """An id comes once; a compacted topic may repeat it, with the same value."""
        self._unique.rows += 1
        kept = record.value if topic.compacted else None
        if message.id not in self._ids:
            self._ids[message.id] = kept
        elif not topic.compacted or self._ids[message.id] != kept:
            rule = "an id comes once in a topic"
            self._unique.violate(rule, record.place, message.id, "one record", "another one")

    def _check_headers(
        self, topic: Topic, record: LogRecord, headers: dict[str, bytes], message: Any
    ) -> None:
        check, place, key = self._headers, record.place, message.id
        check.rows += 1
        assert topic.message is not None
        expected = {
            "schema": schema_header(topic.message),
            "id": message.id.encode(),
            "cause": message.cause.encode(),
        }
        if hasattr(message, "provenance"):
            expected["provenance"] = message.provenance.encode()
        for name, value in expected.items():
            found = headers.get(name)
            if found != value:
                check.violate(f"header {name!r} says what the value says", place, key, value, found)
        if (record.key or b"") != record_key(message).encode():
            rule = "the key follows from the value"
            check.violate(rule, place, key, record_key(message), record.key)
        if (
            isinstance(message, BarClosed | FeaturesComputed)
            and place.partition != message.partition
        ):
            rule = "a bar is in the partition of its ticks"
            check.violate(rule, place, key, message.partition, place.partition)
        if topic.partitioned or topic.name.startswith("trade."):
            self.configs.setdefault(headers.get("config", b"").decode("latin-1"), place)
            self._check_epoch(place, key, headers.get("epoch", b""))

    def _check_epoch(self, place: Place, key: str, text: bytes) -> None:
        """Epochs of one partition's writer never go back."""
        epoch = int(text) if text.isdigit() else -1
        where = (place.topic, place.partition)
        if epoch < self._epochs.get(where, 0):
            rule = "epochs of a writer never go back"
            self._headers.violate(rule, place, key, f"at least {self._epochs.get(where, 0)}", text)
        else:
            self._epochs[where] = epoch
