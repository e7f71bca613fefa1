"""Read a partition once: from a position to its end, or from its end back until enough is known."""

import time
from collections.abc import Iterator

from infra.kafka.consumers import DEADLINE_SECONDS, PartitionConsumer, open_consumer
from infra.kafka.errors import BrokerAwayError
from infra.kafka.security import bootstrap_servers
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings

READ_AT_ONCE = 10_000
SLICE_RECORDS = 64
"""How many records the first step back reads."""
_FETCH_SECONDS = 0.1


def read_to_end(
    settings: KafkaSettings,
    topic: str,
    partition: int = 0,
    offset: int | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> tuple[list[FetchedRecord], int]:
    """Return the records from `offset` (None: the earliest) to the end, and the offset behind them.

    The end is what the broker names when the partition is opened. That a fetch brought nothing proves
    no end: a busy broker may be late with its answer.

    Raises:
        BrokerAwayError: no record came for `deadline_seconds`.
        OffsetGoneError, OffsetRegressionError, TopicMissingError: as `open_consumer` says.
    """
    consumer = open_consumer(settings, topic, partition, offset, None, deadline_seconds)
    try:
        records = _drain(consumer, consumer.end_offset(), settings, topic, deadline_seconds)
        return records, consumer.position
    finally:
        consumer.close()


def read_backwards(
    settings: KafkaSettings,
    topic: str,
    partition: int = 0,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[list[FetchedRecord]]:
    """Yield the records of a partition in slices, newest slice first; each is in offset order.

    A partition whose records were all deleted has nothing to yield, wherever its offsets stand.
    Offsets may be missing (compaction, markers of transactions): a slice may be empty.

    Raises:
        BrokerAwayError: no record came for `deadline_seconds`.
        OffsetGoneError, TopicMissingError: as `open_consumer` says.
    """
    consumer = open_consumer(settings, topic, partition, None, None, deadline_seconds)
    begin, end = consumer.position, consumer.end_offset()
    consumer.close()
    size = SLICE_RECORDS
    while begin < end:
        start = max(begin, end - size)
        consumer = open_consumer(settings, topic, partition, start, None, deadline_seconds)
        try:
            records = _drain(consumer, end, settings, topic, deadline_seconds)
        finally:
            consumer.close()
        yield [record for record in records if record.offset < end]
        end, size = start, min(size * 4, READ_AT_ONCE)


def _drain(
    consumer: PartitionConsumer,
    end: int,
    settings: KafkaSettings,
    topic: str,
    deadline_seconds: float,
) -> list[FetchedRecord]:
    records: list[FetchedRecord] = []
    moved_at = time.monotonic()
    while (before := consumer.position) < end:
        records += consumer.fetch(READ_AT_ONCE, _FETCH_SECONDS)
        if consumer.position > before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > deadline_seconds:
            msg = (
                f"broker at {bootstrap_servers(settings)!r} must give the records of {topic!r} "
                f"at {before!r} within {deadline_seconds:g} s; found none; look at its log"
            )
            raise BrokerAwayError(msg)
    return records
