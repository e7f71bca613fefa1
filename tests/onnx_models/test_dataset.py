from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from onnx_models.dataset import load_training_set, to_hourly
from onnx_models.labels import Labelling
from operators.features import batch_features, to_model_inputs
from schemas.features import FEATURE_SCHEMAS
from tests.operators.recorded_bars import RECORDINGS, hourly_bars

TRAIN = RECORDINGS / "bars_5m_binance_spot_train.parquet"
SCHEMA = FEATURE_SCHEMAS["fs34"]
HOUR_NS = 3_600_000_000_000


def test_hourly_bars_equal_a_decimal_loop():
    first = pl.read_parquet(TRAIN).filter(pl.col("ts_ns") < pl.col("ts_ns").min() + 24 * HOUR_NS)
    hours: dict[tuple[str, int], list[dict]] = {}
    for bar in first.sort("ts_ns").to_dicts():
        hours.setdefault((bar["symbol"], bar["ts_ns"] // HOUR_NS), []).append(bar)
    found = {
        (bar["symbol"], bar["open_time_ns"] // HOUR_NS): bar for bar in to_hourly(first).to_dicts()
    }
    assert found.keys() == hours.keys()
    for key, parts in hours.items():
        volume = sum((Decimal(repr(part["volume"])) for part in parts), Decimal(0))
        assert found[key]["volume"] == float(volume)
        assert found[key]["open"] == parts[0]["open"]
        assert found[key]["close"] == parts[-1]["close"]
        assert found[key]["high"] == max(part["high"] for part in parts)
        assert found[key]["low"] == min(part["low"] for part in parts)
        assert found[key]["close_time_ns"] - found[key]["open_time_ns"] == HOUR_NS


def test_an_hour_with_a_missing_bar_is_left_out():
    bars = pl.read_parquet(TRAIN).filter(pl.col("symbol") == "BTCUSDT").head(36)
    holed = pl.concat([bars[:17], bars[18:]])
    assert to_hourly(bars).height == 3
    assert to_hourly(holed)["open_time_ns"].to_list() == [bars["ts_ns"][0], bars["ts_ns"][24]]


def test_order_of_the_recording_does_not_matter():
    bars = pl.read_parquet(TRAIN).head(2000)
    assert to_hourly(bars.sample(fraction=1.0, shuffle=True, seed=5)).equals(to_hourly(bars))


def test_rows_are_complete_and_equal_the_batch_features():
    rows = load_training_set(TRAIN, SCHEMA, Labelling())
    assert np.isfinite(rows.inputs).all()
    assert set(np.unique(rows.labels)) == {0, 1, 2}
    features = batch_features(hourly_bars(), SCHEMA)
    inputs = to_model_inputs(
        features.select(SCHEMA.names).to_numpy(), features["close"].to_numpy(), SCHEMA
    ).astype(np.float32)
    complete = np.isfinite(inputs).all(axis=1)
    assert rows.inputs.tobytes() == inputs[complete][: len(rows.inputs)].tobytes()


def test_a_recording_of_another_timeframe_is_refused(tmp_path):
    path = tmp_path / "daily.parquet"
    pl.read_parquet(TRAIN).head(3).with_columns(timeframe=pl.lit("1d")).write_parquet(path)
    with pytest.raises(ValueError, match="must hold 5m bars; found"):
        load_training_set(path, SCHEMA, Labelling())
