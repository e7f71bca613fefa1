"""Send raw records so that a failure is always seen: one small protocol, two clients.

Idempotent, `acks=all`: the client's own retries neither reorder nor double records. Nothing is
kept unbounded: when too many bytes wait for their acknowledgement, sending waits for them.
"""

import time

from infra.kafka.confluent_sender import ConfluentSender
from infra.kafka.errors import DeliveryError
from infra.kafka.python_sender import PythonSender
from infra.kafka.senders import Headers, Outcome, Sender, SendRefusedError
from schemas.settings import KafkaSettings

DEADLINE_SECONDS = 30.0
CLOSE_SECONDS = 1.0
PENDING_BYTES_MAX = 64 * 1024 * 1024
FAILURES_SHOWN = 3

__all__ = ["DEADLINE_SECONDS", "BatchProducer", "Headers"]


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
        """Connect to the broker with the client that `settings` names.

        Args:
            settings: how to reach the broker.
            deadline_seconds: how long one record may take to be acknowledged.
            linger_ms: how long a record waits for company in its batch.

        Raises:
            BrokerAwayError: the broker did not answer in time.
        """
        self._deadline_seconds = deadline_seconds
        self._pending = self._pending_bytes = 0
        self._positions: dict[tuple[str, int], int] = {}
        self._failures: list[str] = []
        client = ConfluentSender if settings.client == "confluent" else PythonSender
        self._sender: Sender = client(settings, deadline_seconds, linger_ms, self._settle)

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
            self._sender.send(topic, partition, key, value, headers, timestamp_ms)
        except SendRefusedError as e:
            self._failures.append(f"{topic}/{partition}: {e}")
            self._raise()
        self._pending += 1
        self._pending_bytes += size_bytes

    def check(self) -> None:
        """Note what was acknowledged so far, without waiting.

        Raises:
            DeliveryError: a record was not delivered.
        """
        self._sender.settle()
        if self._failures:
            self._raise()

    def flush(self) -> None:
        """Wait until every record is durable.

        Raises:
            DeliveryError: a record was not delivered before the deadline.
        """
        started = time.monotonic()
        try:
            self._sender.flush(self._deadline_seconds)
        except SendRefusedError as e:
            self._failures.append(str(e))
        if self._pending and not self._failures:
            waited = time.monotonic() - started
            self._failures.append(f"{self._pending} without an answer after {waited:.1f} s")
        if self._failures:
            self._raise()

    def _settle(self, outcome: Outcome) -> None:
        topic, partition, size_bytes, offset, failure = outcome
        self._pending -= 1
        self._pending_bytes -= size_bytes
        if failure:
            self._failures.append(f"{topic}/{partition}: {failure}")
        else:
            self._positions[topic, partition] = offset + 1

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
        self._sender.close(CLOSE_SECONDS)
