"""The columns that every bar of a recording has, wherever it is read."""

import polars as pl

RECORDED_BARS = pl.Schema(
    {
        "ts_ns": pl.Int64(),
        "venue": pl.String(),
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
    }
)
"""`ts_ns` is the open time."""
