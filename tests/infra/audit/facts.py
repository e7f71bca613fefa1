"""Ticks and bars of the session that `world` puts together, written by hand."""

import math
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import polars as pl

from infra.settings import Settings, settings_hash
from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Provenance
from schemas.ids import bar_id, features_id, tick_id
from schemas.market import BarClosed, FeaturesComputed
from schemas.settings import (
    BarSettings,
    ModelSettings,
    PaperSettings,
    PortfolioSettings,
    VoteSettings,
)
from schemas.ticks import CONTENT_ARROW, CONTENT_NDJSON, TICK_WIRE

SECOND_NS = 1_000_000_000
T0 = 1_723_075_200_000_000_000 + 58 * 60 * SECOND_NS
"""Two minutes before a full hour."""

D = Decimal
ACCOUNT, STRATEGY, VENUE, SYMBOL = "PAPER-1", "rule", "binance_spot", "BTCUSDT"
RECORDED = Provenance.RECORDED
PARTITIONS = 2
SETTINGS = Settings(
    bars=BarSettings(timeframes=("1m",), lateness_ms=2_000),
    models={
        name: ModelSettings(kind="onnx", timeframe="1m") for name in ("model", "other", "silent")
    },
    strategies={},
    vote=VoteSettings(tilt_half_life_bars=0.0),
    portfolio=PortfolioSettings(position_notional_max_pct=D(10), gross_notional_max_pct=D(100)),
    paper=PaperSettings(latency_ms=250, participation_max=D("0.25")),
)
CONFIG = settings_hash(SETTINGS)
PLACE: dict[str, Any] = {"venue": VENUE, "symbol": SYMBOL, "provenance": RECORDED}
OWNED: dict[str, Any] = {**PLACE, "account": ACCOUNT, "strategy": STRATEGY}


def at(seconds: float) -> int:
    return T0 + int(seconds * SECOND_NS)


class Written(NamedTuple):
    """One record before it is published."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    message: Any = None


def tick_line(seconds: float, **fields: Any) -> bytes:
    line = {"kind": "trade", "event_time_ns": at(seconds), "venue": VENUE, "symbol": SYMBOL}
    return msgspec.json.encode(line | fields)


def tick_record(value: bytes, content: str = CONTENT_NDJSON, partition: int = 0) -> Written:
    headers = [("content-type", content.encode()), ("provenance", b"recorded")]
    return Written("market.ticks", partition, b"k", value, headers)


def arrow(rows: list[dict[str, Any]]) -> bytes:
    import io

    out = io.BytesIO()
    base = {"kind": "trade", "venue": VENUE, "symbol": SYMBOL}
    frame = pl.DataFrame([base | row for row in rows], schema=TICK_WIRE)
    frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def heartbeat(seconds: float, partition: int) -> Written:
    value = msgspec.json.encode({"kind": "heartbeat", "event_time_ns": at(seconds)})
    return tick_record(value, partition=partition)


BROKEN = b'{"kind":"trade",'


def ticks() -> list[Written]:
    seen = tick_line(30, price=101.0, size=1.5, side="sell", trade_id=2)
    quote = {"kind": "quote", "price": None, "bid": 100.99, "ask": 101.01}
    return [
        tick_record(tick_line(1, price=100.0, size=2, side="buy", trade_id=1) + b"\n" + seen),
        tick_record(BROKEN + b"\n\n" + seen + b"\r\n" + tick_line(31, **quote) + b"\n"),
        tick_record(
            arrow(
                [
                    {"event_time_ns": at(61), "price": 102.0, "size": 400.0, "trade_id": 3},
                    {"event_time_ns": at(62), "price": 99.5, "size": 1.0, "trade_id": 4},
                ]
            ),
            CONTENT_ARROW,
        ),
        tick_record(tick_line(10, price=100.0, size=1, trade_id=5)),
        tick_record(b""),
        tick_record(tick_line(121, price=105.0, size=1000, side="buy", trade_id=6)),
        heartbeat(185, 0),
        heartbeat(185, 1),
    ]


def bar(minute: int, prices: str, volume: float, **fields: Any) -> BarClosed:
    opened, high, low, close = map(float, prices.split())
    close_ns = at(60 * minute)
    last = (fields["last_offset"], fields["last_line"])
    return BarClosed(
        **PLACE,
        id=bar_id(VENUE, SYMBOL, "1m", close_ns),
        cause=tick_id(0, *last),
        timeframe="1m",
        open_time_ns=at(60 * (minute - 1)),
        close_time_ns=close_ns,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        partition=0,
        gap_bars=0,
        **{"buy_volume": None, "spread_bps_mean": None, "duplicates": 0, "first_line": 0} | fields,
    )


def bars() -> list[BarClosed]:
    quoted = {"spread_bps_mean": 1.980198, "duplicates": 1, "buy_volume": 2.0, "trades": 2}
    first = {"first_offset": 0, "last_offset": 1, "last_line": 2}
    second = {"first_offset": 2, "last_offset": 2, "last_line": 1, "trades": 2}
    third = {"first_offset": 5, "last_offset": 5, "last_line": 0, "trades": 1}
    return [
        bar(1, "100 101 100 101", 3.5, **quoted, **first),
        bar(2, "102 102 99.5 99.5", 401.0, **second),
        bar(3, "105 105 105 105", 1000.0, buy_volume=1000.0, **third),
    ]


CLOSES = {1: 101.0, 2: 99.5, 3: 105.0}


def features(of: BarClosed) -> FeaturesComputed:
    """Of three bars most windows are not full: the change and the range are all there is."""
    schema = FEATURE_SCHEMAS["fs34"]
    minute = (of.close_time_ns - T0) // (60 * SECOND_NS)
    known = {"relative_spread": (of.high - of.low) / ((of.high + of.low) / 2)}
    if minute > 1:
        change = CLOSES[minute] / CLOSES[minute - 1]
        known |= {"returns": change - 1, "log_returns": math.log(change)}
    vector = [known.get(name) for name in schema.names]
    return FeaturesComputed(
        **PLACE,
        id=features_id(VENUE, SYMBOL, "1m", of.close_time_ns),
        cause=of.id,
        timeframe="1m",
        close_time_ns=of.close_time_ns,
        schema_name="fs34",
        schema_hash=schema.schema_hash,
        vector=vector,
        missing_mask=sum(1 << i for i, value in enumerate(vector) if value is None),
        partition=0,
        first_offset=of.first_offset,
        last_offset=of.last_offset,
    )
