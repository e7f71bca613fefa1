"""Send raw records with kafka-python so that a failure is always seen.

Idempotent, `acks=all`: the client's own retries neither reorder nor double records. Nothing is
kept unbounded: when too many bytes wait for their acknowledgement, sending waits for them.
"""

import time
from collections import deque
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from infra.kafka.errors import DeliveryError
from infra.kafka.positions import broker_away
from infra.kafka.security import bootstrap_servers, kafka_python_options
from schemas.settings import KafkaSettings

DEADLINE_SECONDS = 30.0
CLOSE_SECONDS = 1.0
REQUEST_BYTES_MAX = 8 * 1024 * 1024
PENDING_BYTES_MAX = 64 * 1024 * 1024
FAILURES_SHOWN = 3

Headers = list[tuple[str, bytes]]


class BatchProducer:
    """Sends records to explicit partitions; not thread safe.

    A failed delivery is raised by the next `send`, `check` or `flush`, and from then on by every
    call: after a failure the order of a partition is no longer certain.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        deadline_seconds: float = DEADLINE_SECONDS,
        linger_ms: int = 1,
    ) -> None:
        """Connect to the broker.

        Args:
            settings: how to reach the broker.
            deadline_seconds: how long one record may take to be acknowledged.
            linger_ms: how long a record waits for company in its batch.

        Raises:
            BrokerAwayError: the broker did not answer in time.
        """
        self._deadline_seconds = deadline_seconds
        self._pending: deque[tuple[str, int, int, Any]] = deque()
        self._pending_bytes = 0
        self._positions: dict[tuple[str, int], int] = {}
        self._failures: list[str] = []
        try:
            self._producer = KafkaProducer(**_options(settings, deadline_seconds, linger_ms))
        except KafkaError as e:
            raise broker_away(bootstrap_servers(settings), deadline_seconds, e) from e

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """Offset behind the last acknowledged record, by topic and partition."""
        return dict(self._positions)

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int | None = None,
    ) -> None:
        """Hand one record to the client; waits only when too much is unacknowledged.

        Raises:
            DeliveryError: this or an earlier record cannot be delivered.
        """
        if self._failures:
            self._raise()
        size_bytes = len(value or b"")
        if self._pending_bytes + size_bytes > PENDING_BYTES_MAX:
            self.flush()
        try:
            future = self._producer.send(
                topic,
                value=value,
                key=key,
                headers=headers,
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
        except (KafkaError, AssertionError) as e:
            self._failures.append(f"{topic}/{partition}: {e}")
            self._raise()
        self._pending.append((topic, partition, size_bytes, future))
        self._pending_bytes += size_bytes

    def check(self) -> None:
        """Note what was acknowledged so far, without waiting.

        Raises:
            DeliveryError: a record was not delivered.
        """
        self._settle()
        if self._failures:
            self._raise()

    def flush(self) -> None:
        """Wait until every record is durable.

        Raises:
            DeliveryError: a record was not delivered before the deadline.
        """
        started = time.monotonic()
        try:
            self._producer.flush(timeout=self._deadline_seconds)
        except KafkaError as e:
            self._failures.append(str(e))
        self._settle()
        if self._pending and not self._failures:
            waited = time.monotonic() - started
            self._failures.append(f"{len(self._pending)} without an answer after {waited:.1f} s")
        if self._failures:
            self._raise()

    def _settle(self) -> None:
        pending = self._pending
        while pending and pending[0][3].is_done:
            topic, partition, size_bytes, future = pending.popleft()
            self._pending_bytes -= size_bytes
            if future.exception is None:
                self._positions[topic, partition] = future.value.offset + 1
            else:
                self._failures.append(f"{topic}/{partition}: {future.exception}")

    def _raise(self) -> None:
        shown = "; ".join(self._failures[:FAILURES_SHOWN])
        msg = (
            f"records must be acknowledged within {self._deadline_seconds:g} s; found "
            f"{len(self._failures)} failures, first {shown!r}; "
            "restart once the broker is well, nothing was confirmed"
        )
        raise DeliveryError(msg)

    def close(self) -> None:
        """Leave the broker; never raises, so that an error under way stays the one reported.

        What was not flushed may be lost, and no recovery state says that it was written.
        """
        with suppress(KafkaError):
            self._producer.close(timeout=CLOSE_SECONDS)


def _options(settings: KafkaSettings, deadline_seconds: float, linger_ms: int) -> dict[str, Any]:
    deadline_ms = int(deadline_seconds * 1000)
    return kafka_python_options(settings) | {
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": "lz4",
        "linger_ms": linger_ms,
        "batch_size": 256 * 1024,
        "max_request_size": REQUEST_BYTES_MAX,
        "delivery_timeout_ms": deadline_ms,
        "request_timeout_ms": max(deadline_ms // 2 - linger_ms, 100),
        "max_block_ms": deadline_ms,
        "bootstrap_timeout_ms": deadline_ms,
        "reconnect_backoff_max_ms": 1000,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
