"""Real records with everything in them that a feed gets wrong, each beside neighbours that are right."""

from typing import Any

import msgspec

from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.partitions import partition_of
from infra.settings import Settings
from schemas.ticks import CONTENT_ARROW, CONTENT_NDJSON, LINE_BYTES_MAX
from schemas.topics import full_name

VENUE = "binance_spot"
DEPTH = 100_000
FIVE_MEGABYTES = 5_000_000


def tick(event_time_ns: int, symbol: str, changed: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a trade that is accepted."""
    fields = {
        "kind": "trade", "event_time_ns": event_time_ns, "venue": VENUE, "symbol": symbol,
        "price": 1000, "size": 1,
    }  # fmt: skip
    return fields | changed


def invalid_lines(event_time_ns: int, symbol: str) -> dict[str, tuple[bytes, str]]:
    """Return every kind of line that must be refused, with the reason that it must get."""

    def line(**changed: Any) -> bytes:
        return msgspec.json.encode(tick(event_time_ns, symbol, changed))

    def raw(field: str, text: bytes) -> bytes:
        return line(**{field: "@"}).replace(b'"@"', text)

    return {
        "truncated": (line()[:-9], "NOT_JSON"),
        "oversized line": (line(note="x" * LINE_BYTES_MAX), "LINE_TOO_LARGE"),
        "price as text": (line(price="1000"), "WRONG_TYPE"),
        "price as truth value": (line(price=True), "WRONG_TYPE"),
        "not a number": (raw("price", b"NaN"), "NOT_JSON"),
        "infinite": (raw("price", b"Infinity"), "NOT_JSON"),
        "too large a number": (raw("price", b"1e400"), "NOT_FINITE"),
        "negative price": (line(price=-1), "NOT_POSITIVE"),
        "size of zero": (line(size=0), "NOT_POSITIVE"),
        "unknown venue": (line(venue="nowhere"), "UNKNOWN_INSTRUMENT"),
        "unknown symbol": (line(symbol="NOSUCH"), "UNKNOWN_INSTRUMENT"),
        "time in milliseconds": (line(event_time_ns=event_time_ns // 1_000_000), "TIME_UNIT"),
        "time in the future": (line(event_time_ns=event_time_ns * 2), "TIME_IN_FUTURE"),
        "duplicate key": (line().replace(b"{", b'{"price":999,', 1), "DUPLICATE_KEY"),
        "deep nesting": (raw("note", b"[" * DEPTH + b"]" * DEPTH), "LINE_TOO_LARGE"),
    }


def invalid_records(event_time_ns: int, symbol: str) -> dict[str, tuple[bytes, str, str]]:
    """Return every kind of record that must be refused as a whole: value, content type, reason."""
    line = msgspec.json.encode(tick(event_time_ns, symbol, {}))
    large = b"\n".join([line] * (FIVE_MEGABYTES // (len(line) + 1) + 1))
    return {
        "empty record": (b"", CONTENT_NDJSON, "EMPTY_RECORD"),
        "broken Arrow": (b"ARROW1 no stream", CONTENT_ARROW, "BROKEN_ARROW"),
        "unknown content type": (line, "text/csv", "UNKNOWN_CONTENT_TYPE"),
        "five megabytes": (large, CONTENT_NDJSON, "RECORD_TOO_LARGE"),
    }


def publish_invalid(settings: Settings, event_time_ns: int, symbol: str) -> dict[str, str]:
    """Publish every kind between good lines; return the expected reason by kind.

    The good lines are two for each bad line (before and behind it in its record) and one at the end.
    """
    producer = BatchProducer(kafka_settings(settings))
    topic = full_name(settings.environment, "market.ticks")
    partition = partition_of(VENUE, symbol, settings.kafka.partitions)
    good = msgspec.json.encode(tick(event_time_ns, symbol, {}))

    def send(value: bytes, content: str = CONTENT_NDJSON) -> None:
        headers = [("content-type", content.encode()), ("provenance", b"recorded")]
        producer.send(topic, partition, None, value, headers)

    expected = {}
    for kind, (line, reason) in invalid_lines(event_time_ns, symbol).items():
        send(b"\n".join([good, line, good]))
        expected[kind] = reason
    for kind, (value, content, reason) in invalid_records(event_time_ns, symbol).items():
        send(value, content)
        expected[kind] = reason
    send(good)
    producer.flush()
    producer.close()
    return expected
