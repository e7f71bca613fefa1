"""One record as it was read from the log, whichever client read it."""

from typing import NamedTuple


class FetchedRecord(NamedTuple):
    """One record of one partition."""

    offset: int
    timestamp_ms: int
    """Kafka's record timestamp: milliseconds since 1970 UTC."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None
