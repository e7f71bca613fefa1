"""The ClickHouse table of every message, derived from its class, and the table of raw ticks.

Rules. A table is a `ReplacingMergeTree` ordered by the natural key: writing a record twice leaves
one row under `FINAL`, and of two rows with one key the one later in the log wins (`_version` is the
log offset). A table is partitioned by the month of the message's event time, which is immutable per
key, so a repeated row always meets its twin; messages without one are not partitioned. Times are
`DateTime64(9, 'UTC')` under their own `..._ns` name, names and enumerations are low-cardinality,
amounts are `Decimal`, and a column is nullable only where the field is optional.
"""

from functools import cache
from typing import Any

import polars as pl
from msgspec import Struct, inspect

from schemas.frames import UNSIGNED_FIELDS
from schemas.topics import message_topics

TIME = "DateTime64(9, 'UTC')"
_LOW_CARDINALITY = "LowCardinality(String)"

PARTITIONING_TIMES = ("close_time_ns", "event_time_ns", "valid_from_ns", "issued_at_ns")
"""Fields that may partition a table, the first that a message has."""

LOG_COLUMNS: dict[str, str] = {
    "_topic_partition": "Int32",
    "_offset": "Int64",
    "_version": "UInt64",
    "_config": _LOW_CARDINALITY,
    "_epoch": "Int64",
    "_ingest_ns": f"Nullable({TIME})",
    "_emit_ns": f"Nullable({TIME})",
}
"""Columns behind every message's own: its place in the log and what its headers say."""

LOG_FRAME = pl.Schema(
    {
        "_topic_partition": pl.Int32(),
        "_offset": pl.Int64(),
        "_version": pl.UInt64(),
        "_config": pl.String(),
        "_epoch": pl.Int64(),
        "_ingest_ns": pl.Datetime("ns", "UTC"),
        "_emit_ns": pl.Datetime("ns", "UTC"),
    }
)
"""The polars side of `LOG_COLUMNS`."""

TICK_TABLE = "market_ticks"
TICK_COLUMNS: dict[str, str] = {
    "partition": "Int32",
    "offset": "Int64",
    "line": "Int32",
    "kind": _LOW_CARDINALITY,
    "venue": _LOW_CARDINALITY,
    "symbol": _LOW_CARDINALITY,
    "event_time_ns": TIME,
    "price": "Nullable(Float64)",
    "size": "Nullable(Float64)",
    "side": _LOW_CARDINALITY,
    "trade_id": "Nullable(Int64)",
    "bid": "Nullable(Float64)",
    "ask": "Nullable(Float64)",
    "provenance": _LOW_CARDINALITY,
    "_ingest_ns": TIME,
}
"""Columns of `market_ticks`; the identity of a row is (partition, offset, line)."""

TICK_KEY = ("venue", "symbol", "event_time_ns", "partition", "offset", "line")
"""Sorting key of `market_ticks`: the identity behind what one asks for."""

TICK_RETENTION_DAYS = 30
"""Raw ticks are dropped this long after they were read, whatever their event time."""

TICK_KINDS = ("heartbeat", "trade", "quote")
TICK_SIDES = ("sell", "", "buy")
"""Text of the codes -1, 0 and 1 of `TICK_FRAME`'s `side`."""


def table_name(topic: str) -> str:
    """Return the table behind `topic`: the same name with `_` for `.`."""
    return topic.replace(".", "_")


@cache
def clickhouse_columns(message: type[Struct]) -> dict[str, str]:
    """Return the ClickHouse type of each column of `message`'s table, in order.

    Raises TypeError for a field type without a rule.
    """
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    own = {field.encode_name: _column_type(field.type, field.name) for field in info.fields}
    return own | LOG_COLUMNS


def _column_type(found: inspect.Type, name: str) -> str:
    extra: dict[str, Any] = {}
    while isinstance(found, inspect.Metadata):
        extra |= found.extra or {}
        found = found.type
    if isinstance(found, inspect.UnionType):
        inner = [member for member in found.types if not isinstance(member, inspect.NoneType)]
        if len(inner) == 1 and len(inner) < len(found.types):
            return f"Nullable({_column_type(inner[0], name)})"
    if isinstance(found, inspect.ListType):
        return f"Array({_column_type(found.item_type, name)})"
    if isinstance(found, inspect.StructType):
        fields = inspect.type_info(found.cls).fields  # type: ignore[attr-defined]
        parts = (f"{field.encode_name} {_column_type(field.type, field.name)}" for field in fields)
        return f"Tuple({', '.join(parts)})"
    return _scalar_type(found, name, extra)


def _scalar_type(found: inspect.Type, name: str, extra: dict[str, Any]) -> str:
    match found:
        case inspect.BoolType():
            kind = "Bool"
        case inspect.IntType():
            kind = "UInt64" if name in UNSIGNED_FIELDS else "Int64"
            kind = TIME if extra.get("time") else kind
        case inspect.FloatType():
            kind = "Float64"
        case inspect.DecimalType():
            precision, scale = extra.get("decimal", (38, 12))
            kind = f"Decimal({precision}, {scale})"
        case inspect.EnumType():
            kind = _LOW_CARDINALITY
        case inspect.StrType():
            kind = _LOW_CARDINALITY if extra.get("low_cardinality") else "String"
        case _:
            msg = f"field {name!r} has type {found!r}; tables know no rule for it; add one here"
            raise TypeError(msg)
    return kind


def time_columns(message: type[Struct]) -> tuple[str, ...]:
    """Return the fields of `message` that are instants."""
    return tuple(
        name
        for name, kind in clickhouse_columns(message).items()
        if TIME in kind and name not in LOG_COLUMNS
    )


def partitioning_time(message: type[Struct]) -> str | None:
    """Return the field whose month partitions the table of `message`, or None."""
    columns = clickhouse_columns(message)
    return next((name for name in PARTITIONING_TIMES if columns.get(name) == TIME), None)


def clickhouse_ddl(message: type[Struct]) -> str:
    """Return the CREATE TABLE statement of `message`, without a database, ending in a line feed."""
    return _create(
        table_name(message.topic),  # type: ignore[attr-defined]
        clickhouse_columns(message),
        engine="ReplacingMergeTree(_version)",
        partition_by=partitioning_time(message),
        order_by=message.natural_key,  # type: ignore[attr-defined]
    )


def ticks_ddl() -> str:
    """Return the CREATE TABLE statement of `market_ticks`.

    The retention counts from the moment of reading: a replay of an old market must not be dropped
    as it arrives.
    """
    return _create(
        TICK_TABLE,
        TICK_COLUMNS,
        engine="ReplacingMergeTree",
        partition_by="event_time_ns",
        order_by=TICK_KEY,
        ttl=f"toDateTime(_ingest_ns) + INTERVAL {TICK_RETENTION_DAYS} DAY",
    )


def _create(
    table: str,
    columns: dict[str, str],
    *,
    engine: str,
    partition_by: str | None,
    order_by: tuple[str, ...],
    ttl: str | None = None,
) -> str:
    lines = ",\n".join(f"    {name} {kind}" for name, kind in columns.items())
    clauses = [f"CREATE TABLE IF NOT EXISTS {table}\n(\n{lines}\n)", f"ENGINE = {engine}"]
    if partition_by is not None:
        clauses.append(f"PARTITION BY toYYYYMM({partition_by})")
    clauses.append(f"ORDER BY ({', '.join(order_by)})")
    if ttl is not None:
        clauses.append(f"TTL {ttl}")
    return "\n".join(clauses) + "\n"


def all_ddl() -> str:
    """Return the statements of every table, each ended by a semicolon."""
    statements = [ticks_ddl()]
    statements += [clickhouse_ddl(topic.message) for topic in message_topics() if topic.message]
    return "\n".join(f"{statement.rstrip()};\n" for statement in statements)
