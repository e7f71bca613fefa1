"""Bytewax source over the partitions of one topic: one decoded fetch at a time, nothing skipped.

Recovery state is `(version, next offset)`. Bytewax calls `next_batch` after a `snapshot` only once
that epoch is durable, so the group's position (for lag dashboards) is committed there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from msgspec import Struct

from infra.kafka.consumers import DEADLINE_SECONDS, PartitionConsumer, open_consumer
from infra.kafka.errors import SnapshotVersionError
from infra.kafka.skew import SkewGate
from infra.kafka.stop_flag import StopFlag
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings

X = TypeVar("X")

SNAPSHOT_VERSION = 1
Position = tuple[int, int]
"""Version of the layout and the next offset."""


class Reading(Struct, Generic[X], frozen=True, kw_only=True):
    """How every partition of a source is read."""

    decode: Callable[[int, Sequence[FetchedRecord]], X | None]
    """Turns a fetch of a partition into one item; None emits nothing."""
    event_time_of: Callable[[X], int | None] | None = None
    """Newest event time of an item in ns, for `gate`."""
    gate: SkewGate | None = None
    stop: StopFlag | None = None
    """When requested, the source ends as if its input were over."""
    until: Mapping[int, int] | None = None
    """Ends each partition before this offset: a bounded run."""
    on_commit: Callable[[int, int], None] | None = None
    """Called with a partition and its next offset once they are durable."""
    on_lag: Callable[[int, int], None] | None = None
    """Called with a partition and how many of its records wait, whenever that number changes."""
    records_max: int = 10_000


class KafkaSource(FixedPartitionedSource[tuple[str, X], Position], Generic[X]):
    """The given partitions of one topic as pairs of partition and decoded fetch."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        partitions: Sequence[int],
        group_id: str | None,
        reading: Reading[X],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """Read `partitions` of the full name `topic`.

        Args:
            settings: how to reach the broker, and which client reads.
            topic: full name of the topic.
            partitions: the partitions that this process owns.
            group_id: group whose positions show the progress; None keeps none.
            reading: what to do with each fetch and when to wait or end.
            deadline_seconds: how long opening a partition may take.
        """
        self._settings, self._topic, self._group_id = settings, topic, group_id
        self._partitions = sorted(set(partitions))
        self._reading = reading
        self._deadline_seconds = deadline_seconds

    def list_parts(self) -> list[str]:
        """Return the partitions as text."""
        return [str(partition) for partition in self._partitions]

    def build_part(
        self,
        step_id: str,
        for_part: str,
        resume_state: Position | None,
    ) -> "KafkaSourcePartition[X]":
        """Open a partition where its recovery state says, or at the earliest record.

        Raises:
            SnapshotVersionError: another release wrote the recovery state.
            OffsetGoneError: the records at the resume position were deleted.
            OffsetRegressionError: the log ends before the resume position.
            TopicMissingError: the topic or the partition does not exist.
            BrokerAwayError: the broker did not answer in time.
        """
        offset = None
        if resume_state is not None:
            version, offset = resume_state
            if version != SNAPSHOT_VERSION:
                msg = (
                    f"recovery state of step {step_id!r} must have version {SNAPSHOT_VERSION}; "
                    f"found {version!r}; run the release that wrote it or start a new environment"
                )
                raise SnapshotVersionError(msg)
        partition = int(for_part)
        consumer = open_consumer(
            self._settings, self._topic, partition, offset, self._group_id, self._deadline_seconds
        )
        return KafkaSourcePartition(partition, consumer, self._reading)


class KafkaSourcePartition(StatefulSourcePartition[tuple[str, X], Position], Generic[X]):
    """One partition of a `KafkaSource`."""

    def __init__(self, partition: int, consumer: PartitionConsumer, reading: Reading[X]) -> None:
        """Read `partition` through `consumer`, which this object closes."""
        self._partition, self._name = partition, str(partition)
        self._consumer = consumer
        self._reading = reading
        self._uncommitted: int | None = None
        self._committed: int | None = None
        self._until = None if reading.until is None else reading.until.get(partition, 0)
        self._next_offset = consumer.position
        self._lag = -1
        if reading.gate is not None:
            reading.gate.join(partition)

    def next_batch(self) -> list[tuple[str, X]]:
        """Return what has arrived, decoded, without waiting; an empty list when there is nothing.

        Raises:
            StopIteration: the process was asked to end, or the bounded run is complete.
            OffsetGoneError: records were deleted before they were read.
        """
        self._commit_durable()
        reading = self._reading
        if self._is_over():
            if reading.gate is not None:
                reading.gate.leave(self._partition)
            raise StopIteration
        waiting = max(0, self._consumer.end_offset() - self._next_offset)
        self._report_lag(waiting)
        if reading.gate is not None and not reading.gate.may_read(
            self._partition, at_end=waiting == 0
        ):
            return []
        records = self._consumer.fetch(reading.records_max)
        self._next_offset = self._consumer.position
        if self._until is not None and self._next_offset > self._until:
            records = [record for record in records if record.offset < self._until]
            self._next_offset = self._until
        item = reading.decode(self._partition, records) if records else None
        if item is None:
            return []
        self._report(item)
        return [(self._name, item)]

    def _commit_durable(self) -> None:
        offset, self._uncommitted = self._uncommitted, None
        if offset is None or offset == self._committed:
            return
        self._committed = offset
        self._consumer.commit(offset)
        if self._reading.on_commit is not None:
            self._reading.on_commit(self._partition, offset)

    def _is_over(self) -> bool:
        if self._reading.stop is not None and self._reading.stop.requested:
            return True
        return self._until is not None and self._next_offset >= self._until

    def _report_lag(self, waiting: int) -> None:
        if waiting != self._lag and self._reading.on_lag is not None:
            self._reading.on_lag(self._partition, waiting)
        self._lag = waiting

    def _report(self, item: X) -> None:
        reading = self._reading
        if reading.gate is None or reading.event_time_of is None:
            return
        event_time_ns = reading.event_time_of(item)
        if event_time_ns is not None:
            reading.gate.report(self._partition, event_time_ns)

    def snapshot(self) -> Position:
        """Return the layout's version and the offset of the next record."""
        self._uncommitted = self._next_offset
        return (SNAPSHOT_VERSION, self._next_offset)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
