"""Both bar jobs must do the same work: their bars are compared value by value."""

from typing import Any

import msgspec

from dataflows.stack import kafka_settings
from infra.kafka.reading import read_to_end
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.codec import decode
from schemas.market import BarClosed
from schemas.settings import TIMEFRAME_NS
from schemas.times import parse_time_ns
from schemas.topics import full_name

Bars = dict[tuple[str, int], tuple[float, ...]]
"""Open, high, low, close, volume and number of trades by name and opening time."""

_ALIGNED_TO_NS = parse_time_ns("2000-01-01T00:00:00")


def compare_bars(settings: Settings, plain_topic: str) -> str:
    """Compare `market.bars` with what the plain flow wrote to `plain_topic`; return what was found.

    At the end of its input the plain flow also emits the bars that nothing has closed yet; ours waits
    for the proof. So a name may have its very last bar in the plain flow alone. The plain flow may miss
    trades of a bar (its watermark also moves with the wall clock); any other difference fails.
    """
    ours, plain = _our_bars(settings), _plain_bars(settings, plain_topic)
    equal = sum(plain.get(key) == bar for key, bar in ours.items())
    wrong = [
        (key, bar, plain.get(key))
        for key, bar in ours.items()
        if plain.get(key) != bar and plain.get(key, (0.0,))[-1] >= bar[-1]
    ]
    assert not wrong, wrong[:3]
    newest = {name: max(at for other, at in plain if other == name) for name, _ in plain}
    extra = [key for key in plain if key not in ours and newest[key[0]] != key[1]]
    assert not extra, extra[:3]
    return f"{equal:,} of {len(ours):,} bars equal to ours, the others hold fewer trades"


def _our_bars(settings: Settings) -> Bars:
    found = {}
    for record in _records(settings, BarClosed.topic):
        bar = decode(BarClosed, record.value or b"")
        values = (bar.open, bar.high, bar.low, bar.close, bar.volume, float(bar.trades))
        found[f"{bar.venue}:{bar.symbol}", bar.open_time_ns] = values
    return found


def _plain_bars(settings: Settings, topic: str) -> Bars:
    found = {}
    for record in _records(settings, topic):
        item: dict[str, Any] = msgspec.json.decode(record.value or b"")
        open_ns = _ALIGNED_TO_NS + item["window"] * TIMEFRAME_NS["1m"]
        found[(record.key or b"").decode(), open_ns] = tuple(map(float, item["bar"]))
    return found


def _records(settings: Settings, topic: str) -> list[FetchedRecord]:
    kafka, name = kafka_settings(settings), full_name(settings.environment, topic)
    return [
        record
        for partition in range(settings.kafka.partitions)
        for record in read_to_end(kafka, name, partition)[0]
    ]
