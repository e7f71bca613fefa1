"""The bar job as one writes it with Bytewax alone: stock Kafka source, `fold_window`, stock sink."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import msgspec
import pyarrow as pa
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.operators.windowing import EventClock, TumblingWindower

Tick = tuple[str, int, float, float]
"""Symbol, event time in ns, price, size."""

_decode = msgspec.json.Decoder().decode


def parse_message(message: KafkaSourceMessage) -> Iterable[tuple[str, Tick]]:
    """Yield the trades of one record, NDJSON or Arrow."""
    value = message.value
    assert isinstance(value, bytes)
    rows: Iterable[dict[str, Any]]
    rows = map(_decode, value.splitlines()) if value[:1] == b"{" else _read_arrow(value)
    for row in rows:
        if row["kind"] == "trade":
            symbol = f"{row['venue']}:{row['symbol']}"
            yield symbol, (symbol, row["event_time_ns"], row["price"], row["size"])


def _read_arrow(value: bytes) -> list[dict[str, Any]]:
    return pa.ipc.open_stream(value).read_all().to_pylist()


def _event_time(tick: Tick) -> datetime:
    return datetime.fromtimestamp(tick[1] / 1e9, UTC)


def _new_bar() -> list[float]:
    return []


def _add_tick(bar: list[float], tick: Tick) -> list[float]:
    _, _, price, size = tick
    if not bar:
        return [price, price, price, price, size, 1]
    bar[1] = max(bar[1], price)
    bar[2] = min(bar[2], price)
    bar[3] = price
    bar[4] += size
    bar[5] += 1
    return bar


def _join_bars(first: list[float], second: list[float]) -> list[float]:
    if not first or not second:
        return first or second
    return [
        first[0], max(first[1], second[1]), min(first[2], second[2]), second[3],
        first[4] + second[4], first[5] + second[5],
    ]  # fmt: skip


def _to_message(item: tuple[str, tuple[int, list[float]]]) -> KafkaSinkMessage[Any, Any]:
    key, (window, bar) = item
    return KafkaSinkMessage(key.encode(), msgspec.json.encode({"window": window, "bar": bar}))


def build_plain_flow(
    bootstrap: str, source: str, sink: str, minutes: int, lateness_ms: int
) -> Dataflow:
    """Return the flow from topic `source` to topic `sink`; it ends at the end of its input."""
    flow = Dataflow("plain")
    messages = op.input("in", flow, KafkaSource([bootstrap], [source], tail=False))
    ticks = op.flat_map("parse", messages, parse_message)
    bars = windowing.fold_window(
        "bars",
        ticks,
        EventClock(_event_time, wait_for_system_duration=timedelta(milliseconds=lateness_ms)),
        TumblingWindower(
            length=timedelta(minutes=minutes), align_to=datetime(2000, 1, 1, tzinfo=UTC)
        ),
        _new_bar,
        _add_tick,
        _join_bars,
    )
    op.output("out", op.map("encode", bars.down, _to_message), KafkaSink([bootstrap], sink))
    return flow
