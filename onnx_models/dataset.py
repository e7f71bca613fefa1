"""From recorded 5-minute bars to the rows of a training set, by the operators that run live."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from onnx_models.labels import DatasetSplit, Labelling, label_rows, split_rows
from operators.features import FeatureMachine, to_model_inputs, vector_matrix
from schemas.features import FeatureSchema
from schemas.settings import TIMEFRAME_NS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_VOLUME_SCALE = 1e8
"""Volumes have at most eight decimals: sums of scaled integers are exact."""


class TrainingSet(Struct, frozen=True, kw_only=True):
    """Complete rows only, in the order (close time, symbol)."""

    inputs: npt.NDArray[np.float32]
    """(rows, features) scale-free view: exactly what the served model will be given."""
    labels: IntArray
    """0 sell, 1 hold, 2 buy."""
    close_times_ns: IntArray
    split: DatasetSplit
    origin: dict[str, object]
    """Hash, range, rows, symbols and provenance of the data."""


def to_hourly(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the 1h bars of 5m bars (`ts_ns` = open), sorted by (close time, venue, symbol).

    An hour without all of its twelve bars is left out: it would be another bar than the live one.
    Prices are picked and volumes added as integers, so the result is exact.
    """
    hour_ns = TIMEFRAME_NS["1h"]
    keys = ["venue", "symbol", "open_time_ns"]
    grouped = (
        bars.sort("venue", "symbol", "ts_ns")
        .with_columns(open_time_ns=pl.col("ts_ns") // hour_ns * hour_ns)
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            (pl.col("volume") * _VOLUME_SCALE).round().cast(pl.Int128).sum().alias("units"),
            pl.len().alias("parts"),
        )
        .filter(pl.col("parts") == hour_ns // TIMEFRAME_NS["5m"])
    )
    # Polars divides by a scalar as a product with its reciprocal, which is not the nearest float.
    volume = grouped["units"].cast(pl.Float64).to_numpy() / _VOLUME_SCALE
    return grouped.select(
        *keys,
        pl.lit("1h").alias("timeframe"),
        (pl.col("open_time_ns") + hour_ns).alias("close_time_ns"),
        *("open", "high", "low", "close"),
        pl.Series("volume", volume),
    ).sort("close_time_ns", "venue", "symbol")


def load_training_set(path: Path, schema: FeatureSchema, labelling: Labelling) -> TrainingSet:
    """Return the labelled rows of the 5m recording at `path`; raises `ValueError` if it is none."""
    bars = pl.read_parquet(path)
    found = bars["timeframe"].unique().to_list()
    if found != ["5m"]:
        msg = f"recording {path.name!r} must hold 5m bars; found {found!r}; choose a 5m recording"
        raise ValueError(msg)
    hourly = to_hourly(bars)
    features = FeatureMachine(schema).update(hourly)
    close = hourly["close"].to_numpy()
    inputs = to_model_inputs(vector_matrix(features, schema), close, schema).astype(np.float32)
    rows = hourly.with_columns(volatility=features["volatility_30"].fill_nan(None))
    labels, end_times = label_rows(rows, labelling)
    usable = np.isfinite(inputs).all(axis=1) & (labels >= 0)
    times = hourly["close_time_ns"].to_numpy()[usable]
    return TrainingSet(
        inputs=inputs[usable],
        labels=labels[usable],
        close_times_ns=times,
        split=split_rows(times, end_times[usable], labelling.horizon_bars * TIMEFRAME_NS["1h"]),
        origin={
            "file": path.name,
            "sha256": sha256(path.read_bytes()).hexdigest(),
            "first_open_ns": int(hourly["open_time_ns"].min()),  # type: ignore[arg-type]
            "last_close_ns": int(hourly["close_time_ns"].max()),  # type: ignore[arg-type]
            "bars_1h": hourly.height,
            "rows": int(usable.sum()),
            "symbols": sorted(hourly["symbol"].unique().to_list()),
            "provenance": "recorded",
        },
    )
