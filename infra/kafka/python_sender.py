"""Sender on kafka-python."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from infra.kafka.positions import broker_away
from infra.kafka.security import bootstrap_servers, kafka_python_options
from infra.kafka.senders import (
    BATCH_BYTES,
    REQUEST_BYTES_MAX,
    Headers,
    Outcome,
    SendRefusedError,
)
from schemas.settings import KafkaSettings


class PythonSender:
    """`Sender` on kafka-python; see `infra.kafka.senders` for the contract."""

    def __init__(
        self,
        settings: KafkaSettings,
        deadline_seconds: float,
        linger_ms: int,
        on_settled: Callable[[Outcome], None],
    ) -> None:
        """Connect; raises BrokerAwayError if the broker does not answer in time."""
        self._on_settled = on_settled
        self._pending: deque[tuple[str, int, int, Any]] = deque()
        try:
            self._producer = KafkaProducer(**_options(settings, deadline_seconds, linger_ms))
        except KafkaError as e:
            raise broker_away(bootstrap_servers(settings), deadline_seconds, e) from e

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int | None,
    ) -> None:
        """Take one record; see `Sender.send`."""
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
            raise SendRefusedError(str(e)) from e
        self._pending.append((topic, partition, len(value or b""), future))

    def settle(self) -> None:
        """Report the outcomes that are known."""
        pending = self._pending
        while pending and pending[0][3].is_done:
            topic, partition, size_bytes, future = pending.popleft()
            failure = "" if future.exception is None else str(future.exception)
            offset = -1 if failure else future.value.offset
            self._on_settled(Outcome(topic, partition, size_bytes, offset, failure))

    def flush(self, seconds: float) -> None:
        """Wait until every outcome is known; see `Sender.flush`."""
        try:
            self._producer.flush(timeout=seconds)
        except KafkaError as e:
            raise SendRefusedError(str(e)) from e
        finally:
            self.settle()

    def close(self, seconds: float) -> None:
        """Leave the broker; never raises."""
        with suppress(KafkaError):
            self._producer.close(timeout=seconds)


def _options(settings: KafkaSettings, deadline_seconds: float, linger_ms: int) -> dict[str, Any]:
    deadline_ms = int(deadline_seconds * 1000)
    return kafka_python_options(settings) | {
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": "lz4",
        "linger_ms": linger_ms,
        "batch_size": BATCH_BYTES,
        "max_request_size": REQUEST_BYTES_MAX,
        "delivery_timeout_ms": deadline_ms,
        "request_timeout_ms": max(deadline_ms // 2 - linger_ms, 100),
        "max_block_ms": deadline_ms,
        "bootstrap_timeout_ms": deadline_ms,
        "reconnect_backoff_max_ms": 1000,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
