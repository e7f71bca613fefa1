"""Partition consumer on confluent-kafka: the fastest reader of hot topics."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from types import NoneType
from typing import Any, NoReturn

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ConfluentMessage
from numpy.typing import NDArray

from infra.kafka.errors import ReadFailedError
from infra.kafka.positions import broker_away, checked_start, offset_gone, topic_missing
from infra.kafka.security import bootstrap_servers, confluent_options
from infra.records import FetchedRecord, FetchedRecords, Headers
from schemas.settings import KafkaSettings

# The client's own codes begin with an underscore; they are public all the same.
_UNKNOWN = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
}
_POSITION_LOST = {
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION,  # noqa: SLF001
}
_ELECTING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
}
"""A partition that was just made or moved answers so for a moment."""

_ELECTION_PAUSE_SECONDS = 0.02
_CLOSE_SECONDS = 2.0
_STAMP = itemgetter(1)
_AT_ONCE_BYTES = 2 * 1024 * 1024
"""What stays in the processor's cache while it is decoded, and lets the client fetch on meanwhile."""
_RECORD_BYTES_AT_FIRST = 64 * 1024
_LOT = 1000
"""Messages whose objects stay in that cache too: they are let go before the next lot is read."""


class ConfluentPartitionConsumer:
    """`PartitionConsumer` on confluent-kafka; see `infra.kafka.consumers` for the contract."""

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
        self._topic, self._partition, self._group_id = topic, partition, group_id
        self._fault: Any = None
        self._record_bytes = _RECORD_BYTES_AT_FIRST
        self._consumer = Consumer(_options(settings, group_id))
        try:
            begin, self._end_offset = self._watermarks(settings, deadline_seconds)
            self._position = checked_start(topic, partition, offset, begin, self._end_offset)
            self._consumer.assign([TopicPartition(topic, partition, self._position)])
        except BaseException:
            self._consumer.close()
            raise

    def _watermarks(self, settings: KafkaSettings, deadline_seconds: float) -> tuple[int, int]:
        where = TopicPartition(self._topic, self._partition)
        deadline = time.monotonic() + deadline_seconds
        while True:
            left_seconds = max(deadline - time.monotonic(), 0.001)
            try:
                found = self._consumer.get_watermark_offsets(where, timeout=left_seconds)
            except KafkaException as e:
                error = e.args[0]
                if error.code() in _UNKNOWN:
                    raise topic_missing(self._topic, self._partition) from e
                if error.code() not in _ELECTING or time.monotonic() > deadline:
                    raise broker_away(bootstrap_servers(settings), deadline_seconds, error) from e
                time.sleep(_ELECTION_PAUSE_SECONDS)
            else:
                if found is None:
                    servers = bootstrap_servers(settings)
                    raise broker_away(servers, deadline_seconds, "no answer")
                return int(found[0]), int(found[1])

    def fetch(self, records_max: int, timeout_seconds: float = 0.0) -> Sequence[FetchedRecord]:
        """Return up to `records_max` next records; see `PartitionConsumer.fetch`."""
        if self._fault is not None:
            self._raise(self._fault)
        offsets: list[NDArray[np.int64]] = []
        timestamps_ms: list[NDArray[np.int64]] = []
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        headers: list[Headers] = []
        wanted = min(records_max, max(_AT_ONCE_BYTES // self._record_bytes, 1))
        for messages in self._lots(wanted, timeout_seconds):
            count = len(messages)
            offsets.append(_offsets(messages))
            stamps = map(_STAMP, map(ConfluentMessage.timestamp, messages))
            timestamps_ms.append(np.fromiter(stamps, np.int64, count))
            keys += map(ConfluentMessage.key, messages)
            values += map(ConfluentMessage.value, messages)
            said = list(map(ConfluentMessage.headers, messages))
            # A feed says the same of every tick: one list then stands for all of them.
            same = headers[-1] if headers else said[0]
            headers += [same] * count if said.count(same) == count else said
        if not values:
            if self._fault is not None:
                self._raise(self._fault)
            return []
        self._position = max(self._position, int(offsets[-1][-1]) + 1)
        # What large records taught is forgotten by halves: a run of heartbeats says little of the
        # records behind it, and one fetch of those would be far too much.
        mean_bytes = sum(map(len, filter(None, values))) // len(values)
        self._record_bytes = max(mean_bytes, self._record_bytes // 2, 1)
        return FetchedRecords(
            np.concatenate(offsets), np.concatenate(timestamps_ms), keys, values, headers
        )

    def _lots(self, wanted: int, timeout_seconds: float) -> Iterator[list[Any]]:
        """Yield up to `wanted` messages, lot by lot, until no more are here or one is a fault."""
        if timeout_seconds > 0:
            # consume(n, t) would wait until it has n messages; poll returns with the first.
            first = self._consumer.poll(timeout_seconds)
            good = [] if first is None else self._without_errors([first])
            if good:
                wanted -= 1
                yield good
        while wanted > 0 and self._fault is None:
            messages = self._consumer.consume(min(wanted, _LOT), 0)
            good = self._without_errors(messages)
            if good:
                yield good
            wanted = wanted - _LOT if len(messages) == _LOT else 0

    def _without_errors(self, messages: list[Any]) -> list[Any]:
        """Return the records among `messages`, those before a fault, which is noted."""
        errors = list(map(ConfluentMessage.error, messages))
        # Types, because comparing an error of this client with None raises.
        if set(map(type, errors)) <= {NoneType}:
            return messages
        good = []
        for message, error in zip(messages, errors, strict=True):
            if error is None:
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                # The end counts markers of transactions, which are never handed out as records.
                self._position = max(self._position, message.offset())
                self._end_offset = max(self._end_offset, message.offset())
            else:
                # The client reports a fault once: hand out what came before it, then raise it.
                self._fault = error
                break
        return good

    def _raise(self, error: Any) -> NoReturn:
        if error.code() in _POSITION_LOST:
            raise offset_gone(self._topic, self._partition, self._position)
        if error.code() in _UNKNOWN:
            raise topic_missing(self._topic, self._partition)
        msg = (
            f"partition {self._partition} of topic {self._topic!r} must be readable at "
            f"{self._position!r}; found {str(error)!r}; see the broker's log"
        )
        raise ReadFailedError(msg)

    @property
    def position(self) -> int:
        """Offset of the next record."""
        return self._position

    def end_offset(self) -> int:
        """Return the last known end of the partition without asking the broker."""
        _, high = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, self._partition), cached=True
        )
        self._end_offset = max(self._end_offset, high)
        return self._end_offset

    def commit(self, offset: int) -> None:
        """Set the group's position without waiting for the answer."""
        if self._group_id is not None:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, self._partition, offset)], asynchronous=True
            )

    def close(self) -> None:
        """Leave the broker; never raises, so that an error under way stays the one reported."""
        # Closing waits for commits under way, which a broker that is away never answers.
        closing = threading.Thread(target=self._close, name="close-consumer", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def _close(self) -> None:
        with suppress(KafkaException):
            self._consumer.close()


def _offsets(messages: list[Any]) -> NDArray[np.int64]:
    first, last = messages[0].offset(), messages[-1].offset()
    # Offsets only ever rise: a range that is as long as the lot has no gap.
    if last - first == len(messages) - 1:
        return np.arange(first, last + 1)
    return np.fromiter(map(ConfluentMessage.offset, messages), np.int64, len(messages))


def _options(settings: KafkaSettings, group_id: str | None) -> dict[str, Any]:
    return confluent_options(settings) | {
        "group.id": group_id or "quantstream-unnamed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "check.crcs": True,
        "isolation.level": "read_committed",
        # One tick a record needs a deep queue; its bytes are what bounds memory and one fetch.
        "queued.min.messages": 1_000_000,
        "queued.max.messages.kbytes": max(settings.fetch_bytes_max // 1024, 1),
        "fetch.queue.backoff.ms": 2,
        "fetch.wait.max.ms": 50,
        "fetch.min.bytes": 1,
        "fetch.max.bytes": max(settings.fetch_bytes_max, 1_048_576),
        "max.partition.fetch.bytes": max(settings.fetch_bytes_max // 2, 1_048_576),
        "message.max.bytes": 1_048_576,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,
    }
