"""What `infra.kafka.producer` asks of a client."""

from typing import NamedTuple, Protocol

Headers = list[tuple[str, bytes]]
REQUEST_BYTES_MAX = 8 * 1024 * 1024
BATCH_BYTES = 256 * 1024


class SendRefusedError(RuntimeError):
    """The client does not take a record, or cannot wait for those it has."""


class Outcome(NamedTuple):
    """What became of one record."""

    topic: str
    partition: int
    size_bytes: int
    """Bytes of the value."""
    offset: int
    """-1 for a record that was not delivered."""
    failure: str
    """Why it was not delivered; empty if it was."""


class Sender(Protocol):
    """A connected client; it reports the outcome of every record, in order per partition.

    Outcomes are reported from within `settle`, `flush` and `send`, never from another thread.
    """

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int | None,
    ) -> None:
        """Take one record without waiting for its acknowledgement.

        Raises:
            SendRefusedError: the client does not take it.
        """

    def settle(self) -> None:
        """Report the outcomes that are known, without waiting."""

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until every outcome is known and reported.

        Raises:
            SendRefusedError: the client cannot wait for them.
        """

    def close(self, seconds: float) -> None:
        """Leave the broker within about `seconds`; never raises."""
