"""What a run left behind, without what differs between two honest runs: headers, offsets, wall clock."""

import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct, structs

from dataflows.stack import kafka_settings
from infra.kafka.reading import read_to_end
from infra.kafka.topics import topic_ends
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.batches import ProgressMarked
from schemas.codec import decode, find_header
from schemas.ddl import table_name
from schemas.topics import TOPICS, full_name

DERIVED = (
    "market.bars", "market.features", "market.late", "trade.signals", "trade.decisions",
    "trade.orders", "trade.fills", "trade.positions", "trade.outcomes", "ops.applied",
    "ops.dead_letters", "model.events", "model.opinions", "market.context",
)  # fmt: skip
"""Topics that the dataflows write."""


def read_records(settings: Settings, topic: str) -> list[tuple[int, FetchedRecord]]:
    """Return every record of a topic with its partition, progress marks left out."""
    found = []
    ends = topic_ends(kafka_settings(settings), settings.environment, [topic])[topic]
    for partition, end in ends.items():
        if not end:
            continue
        records, _ = read_to_end(
            kafka_settings(settings), full_name(settings.environment, topic), partition
        )
        assert not records or records[-1].offset >= end - 1
        found += [(partition, record) for record in records if not is_progress(record)]
    return found


def is_progress(record: FetchedRecord) -> bool:
    """Tell whether a record only says how far a topic is complete."""
    return (find_header(record.headers, "schema") or "").startswith(ProgressMarked.__name__)


def messages(settings: Settings, topic: str) -> list[Any]:
    """Return the messages of a topic."""
    kind = TOPICS[topic].message
    assert kind is not None
    return [decode(kind, record.value or b"") for _, record in read_records(settings, topic)]


def digest(values: Iterable[bytes]) -> str:
    """Return one hash of `values` in their order."""
    total = sha256()
    for value in values:
        total.update(len(value).to_bytes(8, "big") + value)
    return total.hexdigest()


class TopicState(Struct, frozen=True, kw_only=True):
    """A topic as a set: how many records, how many came twice, and one hash of ids and values."""

    records: int
    doubled: int
    hash: str


def topic_state(settings: Settings, topic: str) -> TopicState:
    """Return the state of a topic, its values byte for byte."""
    pairs = [
        ((find_header(record.headers, "id") or "").encode(), record.value or b"")
        for _, record in read_records(settings, topic)
    ]
    counts = Counter(record_id for record_id, _ in pairs)
    return TopicState(
        records=len(pairs),
        doubled=sum(count - 1 for count in counts.values()),
        hash=digest(part for pair in sorted(pairs) for part in pair),
    )


def first_difference(left: Settings, right: Settings, topic: str) -> str:
    """Return in words how a topic of two environments differs."""
    both = [
        {find_header(record.headers, "id") or "": record.value for _, record in records}
        for records in (read_records(left, topic), read_records(right, topic))
    ]
    one, other = both
    missing, surplus = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
    changed = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    example = [(one[name], other[name]) for name in changed[:1]]
    return (
        f"{topic}: missing {len(missing)} {missing[:2]}, surplus {len(surplus)} {surplus[:2]}, "
        f"changed {len(changed)} {example}"
    )


def table_state(client: Any, topic: str) -> tuple[int, int, str]:
    """Return rows under FINAL, distinct keys, and a hash over all columns but those of the log's place."""
    kind = TOPICS[topic].message
    assert kind is not None
    columns = ", ".join(kind.__struct_fields__)
    key = ", ".join(kind.natural_key)  # type: ignore[attr-defined]
    row = client.query(
        f"SELECT count(), uniqExact({key}), toString(sum(cityHash64({columns}))) "
        f"FROM {table_name(topic)} FINAL"
    ).result_rows[0]
    return int(row[0]), int(row[1]), str(row[2])


def canonical(value: Any) -> Any:
    """Return `value` as JSON can hold it, numbers in their shortest exact text."""
    match value:
        case Enum():
            return value.value
        case bool() | None | str() | int():
            return value
        case Decimal():
            return format(value.normalize(), "f") if value else "0"
        case float():
            return repr(value)
        case Struct():
            return canonical(structs.asdict(value))
        case dict():
            return {name: canonical(entry) for name, entry in sorted(value.items())}
        case list() | tuple():
            return [canonical(entry) for entry in value]
    msg = f"no canonical form of {value!r}"
    raise TypeError(msg)


def canonical_lines(values: Iterable[Any]) -> list[str]:
    """Return one sorted line of canonical JSON per message."""
    lines = [json.dumps(canonical(value), sort_keys=True) for value in values]
    return sorted(lines)


def log_lines(settings: Settings, topic: str) -> list[str]:
    """Return a topic's messages as canonical lines."""
    return canonical_lines(messages(settings, topic))


def folder_lines(folder: Path, topic: str) -> list[str]:
    """Return a backtest's messages of a topic as canonical lines."""
    path = folder / f"{table_name(topic)}.parquet"
    return canonical_lines(pl.read_parquet(path).to_dicts())
