"""Times as text: the edge where a person's ISO time becomes nanoseconds."""

from datetime import UTC, datetime

_SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_ns(text: str) -> int:
    """Return nanoseconds since 1970 UTC of an ISO 8601 time; without a zone it is UTC.

    Raises:
        ValueError: The text is not an ISO time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"time must be ISO 8601 as 2024-08-08T23:55; found {text!r}"
        raise ValueError(msg) from error
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    delta = aware - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * _SECOND_NS + delta.microseconds * 1_000


def format_time_ns(time_ns: int) -> str:
    """Return an ISO time with nanoseconds and `Z`."""
    seconds, rest = divmod(time_ns, _SECOND_NS)
    base = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{base}.{rest:09d}Z" if rest else f"{base}Z"
