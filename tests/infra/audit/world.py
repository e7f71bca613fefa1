"""A small market session written by hand, record by record, and ways to put it where it is audited.

One symbol, three minutes: a quote, a repeated trade, a late one, two refused lines; an entry, its
stop, an hour mark while it is open, an exit that closes it, and an entry refused while halted.
"""

from typing import Any

from infra.audit.log import LogRecord
from infra.audit.report import Place
from infra.settings import settings_json
from schemas.codec import Origin, build_headers, encode
from schemas.ids import tick_id
from schemas.market import InstrumentListed, TickLate
from schemas.operations import (
    SettingsPublished,
    build_dead_letter,
)
from schemas.topics import TOPICS, record_key
from tests.infra.audit.facts import (
    BROKEN,
    CONFIG,
    PARTITIONS,
    PLACE,
    SECOND_NS,
    SETTINGS,
    SYMBOL,
    T0,
    VENUE,
    D,
    Written,
    at,
    bars,
    features,
    ticks,
)
from tests.infra.audit.leg import context, model_events, opinion, trading


def write(message: Any, epoch: int = 1) -> Written:
    """Return the record of a message, as a sink would write it."""
    topic = TOPICS[message.topic]
    origin = Origin(config_hash=CONFIG, epoch=epoch)
    provenance = getattr(message, "provenance", "")
    headers = build_headers(type(message), message.id, message.cause, provenance, origin)
    stamps = [("emit-ns", b"%d" % at(7)), ("ingest-ns", b"%d" % at(5))]
    partition = getattr(message, "partition", 0) if topic.partitioned else 0
    key = record_key(message).encode()
    return Written(topic.name, partition, key, encode(message), headers + stamps, message)


def session() -> list[Written]:
    """Return every record of the session."""
    closing = bars()
    vectors = [features(each) for each in closing]
    listing = InstrumentListed(
        id="listing",
        venue=VENUE,
        symbol=SYMBOL,
        valid_from_ns=T0,
        price_decimals=2,
        size_decimals=5,
        tick_size=D("0.01"),
        lot_size=D("0.00001"),
        notional_min=D(5),
        maker_fee_bps=10.0,
        taker_fee_bps=10.0,
        quote_currency="USDT",
    )
    late = TickLate(
        **PLACE,
        id="late/0/3/0",
        cause=tick_id(0, 3, 0),
        event_time_ns=at(10),
        late_by_ns=50 * SECOND_NS,
        partition=0,
        offset=3,
        line=0,
        price=100.0,
        size=1.0,
    )
    messages = [
        SettingsPublished(id=CONFIG, settings_json=settings_json(SETTINGS)),
        listing,
        build_dead_letter("market.ticks", 0, 1, 0, "NOT_JSON", "cut off", BROKEN),
        build_dead_letter("market.ticks", 0, 4, -1, "EMPTY_RECORD", "no value", b""),
        *model_events(),
        late,
        *closing,
        *vectors,
        *map(opinion, vectors),
        *map(context, vectors),
        *trading(vectors),
    ]
    return [*ticks(), *(write(message) for message in messages)]


class ListedLog:
    """A log in memory: records in the order of the list, offsets by partition."""

    has_headers = True
    has_ticks = True

    def __init__(
        self, records: list[Written], timestamp_ms: int = T0 // 1_000_000 + 200_000
    ) -> None:
        self._records: dict[tuple[str, int], list[LogRecord]] = {}
        for topic in TOPICS.values():
            for partition in range(PARTITIONS if topic.partitioned else 1):
                self._records[topic.name, partition] = []
        for record in records:
            listed = self._records[record.topic, record.partition]
            place = Place(record.topic, record.partition, len(listed))
            headers = dict(reversed(record.headers))
            listed.append(LogRecord(place, timestamp_ms, record.key, headers, record.value))

    def partitions(self, topic: str) -> list[int]:
        return [partition for name, partition in self._records if name == topic]

    def start(self, topic: str, partition: int) -> int:
        return 0

    def records(self, topic: str, partition: int):
        return iter(self._records[topic, partition])

    def total(self) -> int:
        return sum(map(len, self._records.values()))

    def moved(self) -> str:
        return ""

    def close(self) -> None:
        pass
