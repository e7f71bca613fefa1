"""The log of an environment, record by record: from Kafka, or from the folder of a backtest."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from infra.audit.report import Place
from infra.settings import Settings
from schemas.batches import ProgressMarked
from schemas.checked import convert
from schemas.settings import KafkaSettings
from schemas.ticks import CONTENT_ARROW
from schemas.topics import TOPICS, full_name

DEADLINE_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""Longer than an epoch: a flow that runs has written something meanwhile."""
TICKS = "market.ticks"
TICKS_FILE = "ticks.parquet"
SETTINGS_FILE = "settings.json"

_ROWS_AT_ONCE = 20_000
_PROGRESS = ProgressMarked.__name__.encode()


class LogRecord(NamedTuple):
    """One record of one topic."""

    place: Place
    timestamp_ms: int
    key: bytes | None
    headers: dict[str, bytes] | None
    """The first header of each name; None in a folder, which keeps none."""
    value: bytes | None
    message: Any = None
    """What the value says, where the source has decoded it already."""


class TickRow(NamedTuple):
    """A line of a tick file: its place in the log and its fields as text-free values."""

    line: int
    provenance: str
    fields: dict[str, Any]


class AuditedLog(Protocol):
    """What an audit reads."""

    @property
    def has_headers(self) -> bool:
        """Whether records carry headers and keys."""

    @property
    def has_ticks(self) -> bool:
        """Whether `market.ticks` can be read."""

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of `topic`; none if there is no such topic."""

    def start(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest record that is still there."""

    def records(self, topic: str, partition: int) -> Iterator[LogRecord]:
        """Yield the records of a partition in log order, up to the end when the audit began."""

    def total(self) -> int:
        """Return about how many records there are."""

    def moved(self) -> str:
        """Return which partition has grown since the audit began, or nothing."""

    def close(self) -> None:
        """Let go of files and connections."""


def read_folder_settings(folder: Path) -> Settings | None:
    """Return the settings that a backtest ran with, None if its folder does not say.

    Raises ValueError if it says something else.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return None
    return Settings.model_validate(json.loads(path.read_bytes())["settings"])


class EnvironmentMissingError(ValueError):
    """There is nothing to audit under the given name."""


class LogUnreadableError(RuntimeError):
    """The log does not answer or ends before its end."""


class KafkaLog:
    """The topics of one environment on a broker, up to their ends at the time of opening."""

    has_headers = True
    has_ticks = True

    def __init__(
        self, settings: KafkaSettings, environment: str, settle_seconds: float = SETTLE_SECONDS
    ) -> None:
        """Connect and note the ends.

        Raises:
            LogUnreadableError: the broker does not answer.
            EnvironmentMissingError: it holds no topic of `environment`.
        """
        self._environment, self._settings = environment, settings
        with self._connected() as consumer:
            names = [full_name(environment, topic) for topic in TOPICS]
            known = consumer.topics()
            self._places = [
                TopicPartition(name, partition)
                for name in names
                if name in known
                for partition in sorted(consumer.partitions_for_topic(name) or ())
            ]
            if not self._places:
                msg = (
                    f"environment {environment!r} must have topics; found none at "
                    f"{settings.bootstrap!r}; name another with --env"
                )
                raise EnvironmentMissingError(msg)
            self._starts = consumer.beginning_offsets(self._places)
            self._ends = consumer.end_offsets(self._places)
        self._consumer = KafkaConsumer(**_options(settings))
        self._settle_until = time.monotonic() + settle_seconds

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Yield a consumer of its own: one that reads a topic forgets where the others are."""
        consumer = None
        try:
            consumer = KafkaConsumer(**_options(self._settings))
            yield consumer
        except KafkaError as error:
            msg = f"broker at {self._settings.bootstrap!r} must answer; found {error}; start it"
            raise LogUnreadableError(msg) from error
        finally:
            if consumer is not None:
                consumer.close(autocommit=False)

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of `topic`."""
        name = full_name(self._environment, topic)
        return [place.partition for place in self._places if place.topic == name]

    def start(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest record that is still there."""
        return int(self._starts[TopicPartition(full_name(self._environment, topic), partition)])

    def total(self) -> int:
        """Return how many offsets there are."""
        return sum(int(self._ends[place] - self._starts[place]) for place in self._places)

    def records(self, topic: str, partition: int) -> Iterator[LogRecord]:
        """Yield the records of a partition; progress marks are none.

        Raises LogUnreadableError if the end is not reached in time.
        """
        place = TopicPartition(full_name(self._environment, topic), partition)
        end, position = int(self._ends[place]), int(self._starts[place])
        self._consumer.assign([place])
        self._consumer.seek(place, position)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while position < end:
            polled = self._consumer.poll(timeout_ms=500, max_records=_ROWS_AT_ONCE)
            for found in polled.get(place, ()):
                if found.offset < end:
                    record = _read(topic, partition, found)
                    if not (record.headers or {}).get("schema", b"").startswith(_PROGRESS):
                        yield record
            reached = int(self._consumer.position(place))
            if reached > position:
                position, deadline = reached, time.monotonic() + DEADLINE_SECONDS
            elif time.monotonic() > deadline:
                msg = (
                    f"partition {partition} of topic {place.topic!r} must be readable up to "
                    f"{end!r}; found it silent at {position!r}; see the broker's log"
                )
                raise LogUnreadableError(msg)

    def moved(self) -> str:
        """Return which partition has grown since the audit began; waits for an epoch to pass."""
        time.sleep(max(0.0, self._settle_until - time.monotonic()))
        with self._connected() as consumer:
            consumer.topics()
            now = consumer.end_offsets(self._places)
        grown = [place for place in self._places if now[place] != self._ends[place]]
        return f"{grown[0].topic}/{grown[0].partition}" if grown else ""

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close(autocommit=False)


def _options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "security_protocol": settings.security_protocol,
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": 50,
        "fetch_max_bytes": 32 * 1024 * 1024,
        "max_partition_fetch_bytes": 16 * 1024 * 1024,
        "bootstrap_timeout_ms": int(DEADLINE_SECONDS * 1000),
    }
    if settings.security_protocol.startswith("SASL_"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    if settings.ca_file:
        options["ssl_cafile"] = settings.ca_file
    return options


def _read(topic: str, partition: int, found: Any) -> LogRecord:
    headers: dict[str, bytes] = {}
    for name, value in found.headers or ():
        if value is not None:
            headers.setdefault(name, value)
    place = Place(topic, partition, found.offset)
    return LogRecord(place, found.timestamp, found.key, headers, found.value)


class FolderLog:
    """The Parquet files of a backtest; a row's offset is its place in the file."""

    has_headers = False

    def __init__(self, folder: Path) -> None:
        """Look at the folder; raises EnvironmentMissingError if it holds no topic."""
        self._folder = folder
        self._files = {
            topic: path
            for topic in TOPICS
            if (path := folder / f"{topic.replace('.', '_')}.parquet").exists()
        }
        if not self._files:
            msg = (
                f"folder {str(folder)!r} must hold the files of a backtest; found none; name the "
                "folder that was given to --out"
            )
            raise EnvironmentMissingError(msg)
        ticks = folder / TICKS_FILE
        self.has_ticks = ticks.exists()
        if self.has_ticks:
            self._files[TICKS] = ticks

    def partitions(self, topic: str) -> list[int]:
        """Return the one partition of `topic`, if it has a file."""
        return [0] if topic in self._files else []

    def start(self, topic: str, partition: int) -> int:  # noqa: ARG002
        """Return 0: a folder forgets nothing."""
        return 0

    def total(self) -> int:
        """Return how many rows there are."""
        return sum(int(pq.ParquetFile(path).metadata.num_rows) for path in self._files.values())

    def records(self, topic: str, partition: int) -> Iterator[LogRecord]:
        """Yield the rows of a topic as messages, or those of the tick file as Arrow records."""
        if topic == TICKS:
            yield from self._tick_records()
            return
        kind = TOPICS[topic].message
        assert kind is not None
        number = 0
        for batch in pq.ParquetFile(self._files[topic]).iter_batches(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                place = Place(topic, partition, number)
                yield LogRecord(place, 0, None, None, b"", _convert(kind, row))
                number += 1

    def _tick_records(self) -> Iterator[LogRecord]:
        """Yield one record per run of rows with the same offset, which the file must be sorted by."""
        waiting: list[TickRow] = []
        current = -1
        for batch in pq.ParquetFile(self._files[TICKS]).iter_batches(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                if row["offset"] != current and waiting:
                    yield _tick_record(current, waiting)
                    waiting = []
                current = row["offset"]
                waiting.append(TickRow(row["line"], row["provenance"], row))
        if waiting:
            yield _tick_record(current, waiting)

    def moved(self) -> str:
        """Return nothing: a backtest has ended."""
        return ""

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _convert(kind: type[Struct], row: dict[str, Any]) -> Any:
    try:
        return convert(row, kind, strict=False)
    except msgspec.ValidationError as error:
        return error


def _tick_record(offset: int, rows: list[TickRow]) -> LogRecord:
    headers = {"content-type": CONTENT_ARROW.encode(), "provenance": rows[0].provenance.encode()}
    return LogRecord(Place(TICKS, 0, offset), 2**53, None, headers, b"rows", rows)
