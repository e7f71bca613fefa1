"""Recorded and generated bars for the feature tests."""

from functools import cache

import numpy as np
import polars as pl

from tests.conftest import EXCERPTS

BAR_NS = 300_000_000_000


@cache
def recorded_bars() -> pl.DataFrame:
    """10,000 recorded five-minute bars each of BTCUSDT and ETHUSDT, in (time, symbol) order.

    The record has neither sides nor quotes; both are laid over it so that every feature is covered.
    """
    bars = pl.read_parquet(EXCERPTS / "bars_5m_btcusdt.parquet")
    number = pl.int_range(pl.len())
    return bars.with_columns(
        buy_volume=pl.col("volume") * ((number * 7919 % 1001) / 1000),
        spread_bps_mean=pl.when(number % 5 != 0).then((number % 13) / 10),
    )


def recorded_series(symbol: str = "BTCUSDT", count: int = 10_000) -> pl.DataFrame:
    return recorded_bars().filter(pl.col("symbol") == symbol).head(count)


def make_bars(
    closes, *, symbol="A", volumes=None, wicks=0.0, opens=None, timeframe="5m"
) -> pl.DataFrame:
    """Bars of one series with the given closes; each opens at the close before unless told."""
    closes = np.asarray(closes, dtype=np.float64)
    opens = np.concatenate([closes[:1], closes[:-1]]) if opens is None else np.asarray(opens)
    volumes = np.ones(len(closes)) if volumes is None else np.asarray(volumes, dtype=np.float64)
    opened = np.arange(len(closes), dtype=np.int64) * BAR_NS
    return pl.DataFrame(
        {
            "venue": ["venue"] * len(closes),
            "symbol": [symbol] * len(closes),
            "timeframe": [timeframe] * len(closes),
            "open_time_ns": opened,
            "close_time_ns": opened + BAR_NS,
            "open": opens,
            "high": np.maximum(opens, closes) * (1 + np.asarray(wicks)),
            "low": np.minimum(opens, closes) * (1 - np.asarray(wicks)),
            "close": closes,
            "volume": volumes,
            "buy_volume": volumes / 2,
            "spread_bps_mean": np.ones(len(closes)),
        }
    )


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """True if both frames have the same columns and the same bits, NaN included."""
    return left.columns == right.columns and all(
        left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes() for name in left.columns
    )
