"""Read a partition from a position to its end, once: for topics that are small and must be whole."""

import time

from infra.kafka.consumers import DEADLINE_SECONDS, open_consumer
from infra.kafka.errors import BrokerAwayError
from infra.kafka.security import bootstrap_servers
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings

READ_AT_ONCE = 10_000
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
    records: list[FetchedRecord] = []
    try:
        end, moved_at = consumer.end_offset(), time.monotonic()
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
        return records, consumer.position
    finally:
        consumer.close()
