"""Records of a log that needs no broker."""

from collections import defaultdict
from typing import NamedTuple

from infra.clickhouse.writer import RecordBatch


class Record(NamedTuple):
    """The part of a fetched record that the archive reads."""

    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


def batches_of(messages, as_record):
    """Return one batch per topic with its messages at offsets 0, 1, 2 …"""
    found = defaultdict(list)
    for message in messages:
        records = found[type(message).topic]
        records.append(as_record(message, len(records)))
    return [RecordBatch(topic, 0, records) for topic, records in found.items()]
