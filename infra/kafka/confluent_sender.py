"""Sender on confluent-kafka: many times cheaper a record, and its thread needs no turn of Python's."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException, Producer

from infra.kafka.positions import broker_away
from infra.kafka.security import bootstrap_servers, confluent_options
from infra.kafka.senders import (
    BATCH_BYTES,
    REQUEST_BYTES_MAX,
    Headers,
    Outcome,
    SendRefusedError,
)
from schemas.settings import KafkaSettings

_QUEUE_RECORDS_MAX = 1_000_000
_SETTLE_EVERY_RECORDS = 10_000
_QUEUE_FULL_SECONDS = 0.1


class ConfluentSender:
    """`Sender` on confluent-kafka; see `infra.kafka.senders` for the contract."""

    def __init__(
        self,
        settings: KafkaSettings,
        deadline_seconds: float,
        linger_ms: int,
        on_settled: Callable[[Outcome], None],
    ) -> None:
        """Connect; raises BrokerAwayError if the broker does not answer in time."""
        self._on_settled = on_settled
        self._deadline_seconds = deadline_seconds
        self._unsettled = 0
        self._producer = Producer(_options(settings, deadline_seconds, linger_ms))
        try:
            # The client connects in the background and would never say that nobody is there.
            self._producer.list_topics(timeout=deadline_seconds)
        except KafkaException as e:
            servers = bootstrap_servers(settings)
            raise broker_away(servers, deadline_seconds, e.args[0]) from e

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
        self._unsettled += 1
        if self._unsettled >= _SETTLE_EVERY_RECORDS:
            self.settle()
        deadline = None
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    partition,
                    on_delivery=self._on_delivery,
                    timestamp=timestamp_ms or 0,
                    headers=headers,
                )
            except BufferError as e:
                # The queue is full: make room, but not for ever.
                now = time.monotonic()
                deadline = deadline or now + self._deadline_seconds
                if now > deadline:
                    raise SendRefusedError(str(e)) from e
                self._producer.poll(_QUEUE_FULL_SECONDS)
            except KafkaException as e:
                raise SendRefusedError(_text(e.args[0])) from e
            else:
                return

    def _on_delivery(self, error: Any, message: Any) -> None:
        failure, offset = ("", message.offset()) if error is None else (_text(error), -1)
        size_bytes = len(message.value() or b"")
        self._on_settled(Outcome(message.topic(), message.partition(), size_bytes, offset, failure))

    def settle(self) -> None:
        """Report the outcomes that are known."""
        self._unsettled = 0
        self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        """Wait until every outcome is known; see `Sender.flush`."""
        self._unsettled = 0
        self._producer.flush(seconds)

    def close(self, seconds: float) -> None:
        """Leave the broker; never raises."""
        with suppress(KafkaException):
            self._producer.flush(seconds)
            # What is left would keep the client's threads waiting for their answers.
            self._producer.purge()
            self._producer.flush(seconds)


def _text(error: Any) -> str:
    return f"{error.name()}: {error.str()}"


def _options(settings: KafkaSettings, deadline_seconds: float, linger_ms: int) -> dict[str, Any]:
    deadline_ms = int(deadline_seconds * 1000)
    return confluent_options(settings) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": linger_ms,
        "batch.size": BATCH_BYTES,
        "message.max.bytes": REQUEST_BYTES_MAX,
        "delivery.timeout.ms": deadline_ms,
        "request.timeout.ms": max(deadline_ms // 2 - linger_ms, 100),
        "topic.metadata.propagation.max.ms": deadline_ms,
        "queue.buffering.max.messages": _QUEUE_RECORDS_MAX,
        "queue.buffering.max.kbytes": 256 * 1024,
        "allow.auto.create.topics": False,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,
    }
