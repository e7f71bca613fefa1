"""Read one partition of one topic: one small protocol, two clients.

Both raise when the position asked for is gone (deleted by retention, or past the end because the
log lost its tail) and never skip.
"""

from collections.abc import Sequence
from typing import Protocol

from infra.kafka.confluent_consumer import ConfluentPartitionConsumer
from infra.kafka.python_consumer import PythonPartitionConsumer
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings

DEADLINE_SECONDS = 30.0


class PartitionConsumer(Protocol):
    """One assigned partition; not thread safe."""

    def fetch(self, records_max: int, timeout_seconds: float = 0.0) -> Sequence[FetchedRecord]:
        """Return up to `records_max` next records in offset order.

        With a timeout of 0 it returns at once what is already here; else it waits until at least
        one record came or the time is over. Its bytes are bounded by `kafka.fetch_bytes_max`.

        Raises:
            OffsetGoneError: records at the position were deleted meanwhile.
            ReadFailedError: the broker refused the fetch for good.
        """

    @property
    def position(self) -> int:
        """Offset of the next record; counts markers of transactions that `fetch` never returns."""

    def end_offset(self) -> int:
        """Return the last known end of the partition; never blocks, so it may lag behind."""

    def commit(self, offset: int) -> None:
        """Tell the group that records before `offset` are done; for lag dashboards only."""

    def close(self) -> None:
        """Leave the broker; never raises."""


def open_consumer(
    settings: KafkaSettings,
    topic: str,
    partition: int,
    offset: int | None,
    group_id: str | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> PartitionConsumer:
    """Return a consumer of `partition` of the full name `topic` that starts at `offset`.

    Args:
        settings: which client, and how to reach the broker.
        topic: full name of the topic.
        partition: the partition to read.
        offset: next offset; None starts at the earliest record.
        group_id: group whose position `commit` sets; None makes `commit` do nothing.
        deadline_seconds: how long opening may take.

    Raises:
        TopicMissingError: the topic or the partition does not exist.
        OffsetGoneError: `offset` was deleted.
        OffsetRegressionError: `offset` is past the end of the partition.
        BrokerAwayError: the broker did not answer in time.
    """
    client = (
        ConfluentPartitionConsumer if settings.client == "confluent" else PythonPartitionConsumer
    )
    return client(settings, topic, partition, offset, group_id, deadline_seconds)
