"""ClickHouse against the log (I18): the same keys, and under each key the same values."""

import re
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from msgspec import Struct

from infra.audit.log import LogRecord
from infra.audit.report import Check, Place
from infra.audit.ticks import TableRow
from schemas.ddl import TIME, clickhouse_columns, table_name
from schemas.settings import StoreSettings
from schemas.topics import Topic

_TICK_COLUMNS = (
    "offset", "line", "kind", "venue", "symbol", "toUnixTimestamp64Nano(event_time_ns)", "price",
    "size", "side", "trade_id", "bid", "ask", "provenance",
)  # fmt: skip
_PLAIN = frozenset({str, int, float, bool})
_LOGGED = ("_topic_partition", "_offset", "_config", "_epoch", "_ingest_ns", "_emit_ns")


class StoreUnreadableError(RuntimeError):
    """The store does not answer or lacks a table."""


class AuditedStore:
    """The tables of one environment, read without a line of the archive's code."""

    def __init__(self, settings: StoreSettings, environment: str) -> None:
        """Connect.

        Raises:
            StoreUnreadableError: the store does not answer or has no such database.
        """
        self.database = f"{settings.database}_{environment.replace('-', '_')}"
        if re.fullmatch(r"[a-z0-9_]+", self.database) is None:
            msg = f"environment must be a plain name; found {environment!r}; choose another"
            raise ValueError(msg)
        try:
            self._client = _connect(settings, self.database)
            self._client.query("SELECT 1")
        except (ClickHouseError, OSError) as error:
            raise self._unreadable(error) from error

    def tick_rows(self, partition: int) -> Iterator[TableRow]:
        """Yield the rows of `market_ticks` of a partition in log order."""
        columns = ", ".join(_TICK_COLUMNS)
        sql = (
            f"SELECT {columns} FROM {self.database}.market_ticks FINAL "  # noqa: S608  # constants
            f"WHERE partition = {partition} ORDER BY offset, line"
        )
        yield from self._rows(sql)

    def message_rows(self, message: type[Struct], topic: Topic) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a table: the columns of `row_columns`."""
        kinds = clickhouse_columns(message)
        columns = ", ".join(_read_column(name, kinds[name]) for name in row_columns(message))
        table = f"{self.database}.{table_name(topic.name)}"
        yield from self._rows(f"SELECT {columns} FROM {table} FINAL")  # noqa: S608  # constants

    def _rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        try:
            with self._client.query_row_block_stream(sql) as blocks:
                for block in blocks:
                    yield from map(tuple, block)
        except (ClickHouseError, OSError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StoreUnreadableError:
        first = (str(error).splitlines() or [type(error).__name__])[0][:300]
        msg = f"store must hold database {self.database!r}; found {first!r}; run archive first"
        return StoreUnreadableError(msg)

    def close(self) -> None:
        """Leave the store."""
        self._client.close()


def _connect(settings: StoreSettings, database: str) -> Client:
    address = urlsplit(settings.url)
    return clickhouse_connect.get_client(
        interface=address.scheme,
        host=address.hostname or "",
        port=address.port or (8443 if address.scheme == "https" else 8123),
        username=settings.user,
        password=settings.password.get_secret_value(),
        database=database,
        autogenerate_session_id=False,
        ca_cert=settings.ca_file or None,
    )


def row_columns(message: type[Struct]) -> list[str]:
    """Return the columns that are compared: the message's own, and where the log says it stands."""
    return [name for name in clickhouse_columns(message) if name != "_version"]


def _read_column(name: str, kind: str) -> str:
    return f"toUnixTimestamp64Nano({name})" if TIME in kind else name


class TableAudit:
    """Holds one table against its topic: see every record, then compare."""

    def __init__(self, check: Check, topic: Topic) -> None:
        assert topic.message is not None
        self._check, self._topic, self._message = check, topic, topic.message
        self._columns = row_columns(self._message)
        self._key: tuple[str, ...] = self._message.natural_key  # type: ignore[attr-defined]
        self._key_places = [self._columns.index(name) for name in self._key]
        self._expected: dict[tuple[Any, ...], bytes] = {}
        self._newest_of_key: dict[bytes, int] = {}

    def see(self, record: LogRecord, message: Struct) -> None:
        """Remember what the row of `record` must say; of one key the later record counts."""
        row = _message_row(self._columns, record, message)
        key = tuple(row[place] for place in self._key_places)
        self._expected[key] = msgspec.json.encode(row)
        if self._topic.compacted:
            self._newest_of_key[record.key or b""] = record.place.offset

    def compare(self, store: AuditedStore, log_starts: dict[int, int]) -> None:
        """Record every row that is missing, surplus or different."""
        expected = self._expected
        for raw in store.message_rows(self._message, self._topic):
            self._check.rows += 1
            row = [_canonical(value) for value in raw]
            key = tuple(row[place] for place in self._key_places)
            wanted = expected.pop(key, None)
            if wanted is None:
                if not self._forgotten(row, log_starts):
                    rule = "a row of the table is a record of the topic, once"
                    self._violate(rule, row, key, "no row", row)
            elif wanted != msgspec.json.encode(row):
                self._name_columns(key, msgspec.json.decode(wanted), row)
        for key, wanted in expected.items():
            rule = "a record of the topic is a row of the table"
            self._violate(rule, msgspec.json.decode(wanted), key, wanted.decode(), "no row")

    def _forgotten(self, row: list[Any], log_starts: dict[int, int]) -> bool:
        """Return whether the log has dropped the record behind a row: by age or by compaction."""
        named = dict(zip(self._columns, row, strict=True))
        start = log_starts.get(named["_topic_partition"], 0)
        if named["_offset"] < start:
            return True
        if not self._topic.compacted:
            return False
        key = ":".join(str(named[field]) for field in self._topic.key).encode()
        return bool(named["_offset"] < self._newest_of_key.get(key, -1))

    def _name_columns(self, key: tuple[Any, ...], wanted: list[Any], row: list[Any]) -> None:
        found = msgspec.json.decode(msgspec.json.encode(row))
        for name, want, have in zip(self._columns, wanted, found, strict=True):
            if want != have:
                rule = f"column {name} of the table says what the record says"
                self._violate(rule, row, key, want, have)

    def _violate(
        self, rule: str, row: list[Any], key: tuple[Any, ...], expected: object, found: object
    ) -> None:
        named = dict(zip(self._columns, row, strict=True))
        place = Place(self._topic.name, named["_topic_partition"], named["_offset"])
        text = "/".join(str(part) for part in key)
        self._check.violate(rule, place, text, expected, found)


def _message_row(columns: list[str], record: LogRecord, message: Struct) -> list[Any]:
    headers = record.headers or {}
    logged = {
        "_topic_partition": record.place.partition,
        "_offset": record.place.offset,
        "_config": headers.get("config", b"").decode(errors="replace"),
        "_epoch": _number(headers.get("epoch")) or 0,
        "_ingest_ns": _number(headers.get("ingest-ns")),
        "_emit_ns": _number(headers.get("emit-ns")),
    }
    return [
        logged[name] if name in _LOGGED else _canonical(getattr(message, name)) for name in columns
    ]


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and int(text) < 2**63 else None


def _canonical(value: Any) -> Any:
    """Return a value in one form, whichever side it comes from."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Struct):
        return [_canonical(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return [_canonical(inner) for inner in value.values()]
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return value


def decimal_text(value: Decimal) -> str:
    """Return an amount without trailing zeros, and zero without a sign."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text
