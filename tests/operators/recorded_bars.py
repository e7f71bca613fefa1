"""Recorded hourly and daily bars with their features, in the form that the signal machine takes."""

from functools import cache
from pathlib import Path

import polars as pl

from onnx_models.dataset import to_hourly
from operators.features import FeatureMachine, Indicator
from operators.strategies import build_strategies, required_indicators
from schemas.features import FEATURE_SCHEMAS
from schemas.settings import TIMEFRAME_NS, default_strategies

RECORDINGS = Path(__file__).parents[2] / "onnx_models" / "recordings"


@cache
def hourly_bars() -> pl.DataFrame:
    return to_hourly(pl.read_parquet(RECORDINGS / "bars_5m_binance_spot_train.parquet"))


@cache
def daily_bars() -> pl.DataFrame:
    day_ns = TIMEFRAME_NS["1d"]
    return (
        hourly_bars()
        .with_columns(open_time_ns=pl.col("open_time_ns") // day_ns * day_ns)
        .group_by("venue", "symbol", "open_time_ns", maintain_order=True)
        .agg(
            pl.lit("1d").first().alias("timeframe"),
            (pl.col("open_time_ns").first() + day_ns).alias("close_time_ns"),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        .sort("close_time_ns", "venue", "symbol")
    )


def with_features(bars: pl.DataFrame) -> pl.DataFrame:
    """Return `bars` joined with features and the indicators of the default strategies."""
    names = required_indicators(build_strategies(default_strategies()))
    machine = FeatureMachine(FEATURE_SCHEMAS["fs34"], tuple(Indicator(name) for name in names))
    keys = ("venue", "symbol", "timeframe", "close_time_ns")
    identity = pl.concat_str(pl.lit("bar"), *keys, separator="/").alias("id")
    provenance = pl.lit("reconstructed").alias("provenance")
    return pl.concat(
        [bars.with_columns(identity, provenance), machine.update(bars)], how="horizontal"
    )


@cache
def recorded_frame() -> pl.DataFrame:
    """Return hourly and daily bars of all symbols with features, in the order of `BarMachine`."""
    shared = [name for name in hourly_bars().columns if name in daily_bars().columns]
    bars = pl.concat([hourly_bars().select(shared), daily_bars().select(shared)])
    length_ns = pl.col("timeframe").replace_strict(TIMEFRAME_NS)
    return with_features(bars.sort("close_time_ns", length_ns, "venue", "symbol"))
