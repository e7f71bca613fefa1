"""Partition consumer on kafka-python: the reader without a compiled client."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from infra.kafka.errors import ReadFailedError
from infra.kafka.positions import broker_away, checked_start, offset_gone, topic_missing
from infra.kafka.security import bootstrap_servers, kafka_python_options
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings


class PythonPartitionConsumer:
    """`PartitionConsumer` on kafka-python; see `infra.kafka.consumers` for the contract."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        partition: int,
        offset: int | None,
        group_id: str | None,
        deadline_seconds: float,
    ) -> None:
        """Open the partition at `offset`; raises as `open_consumer` says."""
        self._group_id = group_id
        self._where = TopicPartition(topic, partition)
        servers = bootstrap_servers(settings)
        try:
            self._consumer = KafkaConsumer(**_options(settings, group_id, deadline_seconds))
        except KafkaError as e:
            raise broker_away(servers, deadline_seconds, e) from e
        try:
            begin, self._end_offset = self._watermarks(servers, deadline_seconds)
            self._position = checked_start(topic, partition, offset, begin, self._end_offset)
            self._consumer.assign([self._where])
            self._consumer.seek(self._where, self._position)
        except BaseException:
            self.close()
            raise

    def _watermarks(self, servers: str, deadline_seconds: float) -> tuple[int, int]:
        deadline_ms = int(deadline_seconds * 1000)
        try:
            found = self._consumer.partitions_for_topic(self._where.topic) or set()
            if self._where.partition not in found:
                raise topic_missing(self._where.topic, self._where.partition)
            begins = self._consumer.beginning_offsets([self._where], timeout_ms=deadline_ms)
            ends = self._consumer.end_offsets([self._where], timeout_ms=deadline_ms)
        except KafkaError as e:
            raise broker_away(servers, deadline_seconds, e) from e
        return int(begins[self._where]), int(ends[self._where])

    def fetch(self, records_max: int, timeout_seconds: float = 0.0) -> Sequence[FetchedRecord]:
        """Return up to `records_max` next records; see `PartitionConsumer.fetch`."""
        try:
            polled = self._consumer.poll(int(timeout_seconds * 1000), max_records=records_max)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError) as e:
            raise offset_gone(self._where.topic, self._where.partition, self._position) from e
        except UnknownTopicOrPartitionError as e:
            raise topic_missing(self._where.topic, self._where.partition) from e
        except KafkaTimeoutError:
            return []
        except KafkaError as e:
            msg = (
                f"partition {self._where.partition} of topic {self._where.topic!r} must be "
                f"readable at {self._position!r}; found {str(e)!r}; see the broker's log"
            )
            raise ReadFailedError(msg) from e
        records = [
            FetchedRecord(
                found.offset, found.timestamp, found.key, found.value, found.headers or None
            )
            for found in polled.get(self._where, ())
        ]
        if records:
            self._position = records[-1].offset + 1
        elif self._position < self.end_offset():
            # What is left may be markers of transactions, which are never handed out as records.
            self._position = self._consumer.position(self._where, timeout_ms=0) or self._position
        return records

    @property
    def position(self) -> int:
        """Offset of the next record."""
        return self._position

    def end_offset(self) -> int:
        """Return the last known end of the partition without asking the broker."""
        high = self._consumer.highwater(self._where)
        if high is not None:
            self._end_offset = max(self._end_offset, high)
        return self._end_offset

    def commit(self, offset: int) -> None:
        """Set the group's position without waiting for the answer."""
        if self._group_id is not None:
            self._consumer.commit_async({self._where: OffsetAndMetadata(offset, "", -1)})

    def close(self) -> None:
        """Leave the broker; never raises, so that an error under way stays the one reported."""
        with suppress(KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=1000)


def _options(
    settings: KafkaSettings, group_id: str | None, deadline_seconds: float
) -> dict[str, Any]:
    return kafka_python_options(settings) | {
        "group_id": group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "check_crcs": True,
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
        "bootstrap_timeout_ms": int(deadline_seconds * 1000),
        "fetch_max_wait_ms": 50,
        "fetch_min_bytes": 1,
        "fetch_max_bytes": max(settings.fetch_bytes_max, 1_048_576),
        "max_partition_fetch_bytes": max(settings.fetch_bytes_max // 2, 1_048_576),
        "reconnect_backoff_max_ms": 1000,
    }
