"""The data dictionary: every topic, its key, retention and writer, and every field, as Markdown."""

import ast
import inspect as source
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, inspect

from schemas.ddl import (
    LOG_COLUMNS,
    TICK_COLUMNS,
    TICK_RETENTION_DAYS,
    TICK_TABLE,
    clickhouse_columns,
    table_name,
)
from schemas.descriptions import COMMON_FIELDS, LOG_FIELDS, TICK_FIELDS
from schemas.ticks import (
    CONTENT_ARROW,
    CONTENT_NDJSON,
    LINE_BYTES_MAX,
    PROVENANCE_CODES,
    RECORD_BYTES_MAX,
    TickLine,
)
from schemas.topics import DAY_MS, TOPICS, Topic, message_topics

_SUFFIX_UNITS = {
    "_bps": "basis points",
    "_pct": "percent",
    "_bytes": "bytes",
    "_bars": "bars",
    "_decimals": "decimals",
    "_time_ns": "ns since 1970 UTC",
    "_at_ns": "ns since 1970 UTC",
    "_from_ns": "ns since 1970 UTC",
    "_ns": "ns",
}


@cache
def field_docs(message: type[Struct]) -> dict[str, str]:
    """Return the docstring of each field of `message`, else the common description, else empty."""
    (tree,) = ast.parse(source.getsource(message)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[before.target.id] = " ".join(str(after.value.value).split())
    names = message.__struct_fields__
    return {name: found.get(name) or COMMON_FIELDS.get(name, "") for name in names}


def field_unit(name: str, table_type: str) -> str:
    """Return the unit of a field, from its name's suffix or its type; empty if it has none."""
    for suffix, unit in _SUFFIX_UNITS.items():
        if name.endswith(suffix) or f"{suffix}_" in name:
            return unit
    return "exact amount" if "Decimal" in table_type else ""


def render_dictionary() -> str:
    """Return the data dictionary page."""
    parts = [_PREFACE, _overview(), _ticks_section()]
    parts += [_topic_section(topic) for topic in message_topics()]
    return "\n".join(parts)


_PREFACE = """# Data dictionary

Rendered from the contracts in `schemas/` by `python -m schemas.exports`; do not edit.

Every topic is prefixed by its environment (`paper.market.bars`); the table behind it has the same
name with `_` for `.` in the environment's own database. A record is one JSON object: amounts are
strings, so no digit is lost; times are integers of nanoseconds since 1970 UTC, in tables
`DateTime64(9, 'UTC')`. Every record carries the headers `schema` (name, version, hash), `id`,
`cause`, `config` (hash of the effective settings), `epoch` (number of the writer's start),
`provenance`, and the wall-clock stamps `ingest-ns` and `emit-ns`. A record whose `schema` header
begins with `ProgressMarked` says only how far its partition is complete; skip it. A message may gain
optional fields and an enumeration values; neither ever loses or changes one.
"""


def _overview() -> str:
    lines = [
        "## Topics\n",
        "| Topic | Key | Partitions | Retention | Written by | Holds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{topic.name}` | `{':'.join(topic.key)}` | {'as ticks' if topic.partitioned else '1'} | "
        f"{_retention(topic)} | {topic.written_by} | {topic.purpose} |"
        for topic in TOPICS.values()
    ]
    return "\n".join(lines) + "\n"


def _retention(topic: Topic) -> str:
    if topic.compacted:
        return "newest of each key"
    return "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms // DAY_MS} days"


def _topic_section(topic: Topic) -> str:
    assert topic.message is not None
    message: Any = topic.message
    lines = [
        f"## {topic.name}: {message.__name__}\n",
        " ".join((message.__doc__ or "").split()) + "\n",
        (
            f"Key `{':'.join(topic.key)}`, natural key `({', '.join(message.natural_key)})`, "
            f"retention {_retention(topic)}, written by {topic.written_by}, "
            f"table `{table_name(topic.name)}`.\n"
        ),
        *_field_table(topic.message, clickhouse_columns(topic.message)),
    ]
    for inner in _nested(topic.message):
        lines += [f"\n`{inner.__name__}`: {' '.join((inner.__doc__ or '').split())}\n"]
        lines += _field_table(inner, {})
    return "\n".join(lines) + "\n"


def _field_table(message: type[Struct], columns: dict[str, str]) -> list[str]:
    docs = field_docs(message)
    lines = ["| Field | JSON | Table | Unit | Meaning |", "| --- | --- | --- | --- | --- |"]
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        kind = columns.get(field.name, "")
        shown = kind if len(kind) < 40 else kind.split("(", 1)[0] + "(…)"
        unit = field_unit(field.name, kind)
        table = f"`{shown}`" if shown else ""
        meaning = docs[field.name].replace("|", "\\|")
        lines.append(
            f"| `{field.name}` | {_json_type(field.type)} | {table} | {unit} | {meaning} |"
        )
    return lines


def _json_type(found: inspect.Type) -> str:
    while isinstance(found, inspect.Metadata):
        found = found.type
    match found:
        case inspect.UnionType():
            return " or ".join(_json_type(member) for member in found.types)
        case inspect.NoneType():
            text = "null"
        case inspect.ListType():
            text = f"array of {_json_type(found.item_type)}"
        case inspect.StructType():
            text = f"`{found.cls.__name__}`"
        case inspect.EnumType():
            text = "string: " + ", ".join(f"`{member.value}`" for member in found.cls)
        case inspect.LiteralType():
            text = "string: " + ", ".join(f"`{value}`" for value in found.values)
        case inspect.DecimalType():
            text = "string (decimal)"
        case inspect.BoolType():
            text = "boolean"
        case inspect.IntType():
            text = "integer"
        case inspect.FloatType():
            text = "number"
        case _:
            text = "string"
    return text


def _nested(message: type[Struct]) -> list[type[Struct]]:
    schema = msgspec.json.schema_components([message])[1]
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    items = [
        field.type.item_type for field in info.fields if isinstance(field.type, inspect.ListType)
    ]
    return [
        item.cls
        for item in items
        if isinstance(item, inspect.StructType) and item.cls.__name__ in schema
    ]


_TICKS_PREFACE = f"""\
Trades, quotes and heartbeats. A record holds ticks of symbols of its own partition (murmur2 of
`venue:symbol`, Kafka's default partitioner), in the form that its header `content-type` names:

- `{CONTENT_NDJSON}`: one JSON object a line, at most {LINE_BYTES_MAX} bytes each;
- `{CONTENT_ARROW}`: one Arrow IPC stream with the fields below as columns.

A record has at most {RECORD_BYTES_MAX} bytes. The header `provenance` is one of
{", ".join(f"`{name}`" for name in PROVENANCE_CODES)}. The identity of a tick is (partition, offset,
line). A trade needs `venue`, `symbol`, `price` and `size`; a quote `venue`, `symbol`, `bid` and
`ask`; a heartbeat only its time. What breaks a rule goes to `ops.dead_letters` with its bytes; its
neighbours in the record still count.
"""

_KCAT = r"""
Publish one trade from a shell (`kcat` must use Kafka's own partitioner, or the symbols land where no
reader expects them):

```sh
printf '%s\n' 'binance_spot:BTCUSDT	{"kind":"trade","event_time_ns":1723075200000000000,"venue":"binance_spot","symbol":"BTCUSDT","price":61685.99,"size":0.25,"side":"buy","trade_id":3734567890}' |
  kcat -P -b 127.0.0.1:19092 -t paper.market.ticks -K '	' -X partitioner=murmur2_random \
    -H content-type=application/x-ndjson -H provenance=recorded
```

Read what came of it:

```sh
kcat -C -b 127.0.0.1:19092 -t paper.market.bars -o end -f '%k %h\n%s\n'
```
"""


def _ticks_section() -> str:
    lines = [
        "## market.ticks\n",
        _TICKS_PREFACE,
        "| Field | JSON | Meaning |",
        "| --- | --- | --- |",
    ]
    info = inspect.type_info(TickLine)
    assert isinstance(info, inspect.StructType)
    lines += [
        f"| `{field.name}` | {_json_type(field.type)} | {TICK_FIELDS[field.name]} |"
        for field in info.fields
    ]
    lines.append(_KCAT)
    lines.append(
        f"Table `{TICK_TABLE}`: validated lines, kept for {TICK_RETENTION_DAYS} days after they were "
        "read; prices and sizes are null where the kind has none.\n"
    )
    lines += ["| Column | Type |", "| --- | --- |"]
    lines += [f"| `{name}` | `{kind}` |" for name, kind in TICK_COLUMNS.items()]
    lines.append("\nColumns that every other table has behind its message's own:\n")
    lines += ["| Column | Type | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | `{kind}` | {LOG_FIELDS[name]} |" for name, kind in LOG_COLUMNS.items()]
    return "\n".join(lines) + "\n"
