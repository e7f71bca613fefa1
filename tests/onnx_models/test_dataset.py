from decimal import Decimal

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import asdict

from onnx_models.dataset import ProvenanceError, load_data_set, to_hourly
from operators.features import batch_features, to_model_inputs
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS
from tests.onnx_models.recorded import FIVE_MINUTES, HOURS, three_symbols, write_days
from tests.operators.recorded_bars import hourly_bars

SCHEMA = FEATURE_SCHEMAS["fs34"]
WINDOWS = SEQUENCE_SCHEMAS["sq120"]
HOUR_NS = 3_600_000_000_000


def test_hourly_bars_equal_a_decimal_loop():
    bars = pl.read_parquet(FIVE_MINUTES)
    first = bars.filter(pl.col("ts_ns") < pl.col("ts_ns").min() + 24 * HOUR_NS)
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
    bars = pl.read_parquet(FIVE_MINUTES).filter(pl.col("symbol") == "BTCUSDT").head(36)
    holed = pl.concat([bars[:17], bars[18:]])
    assert to_hourly(bars).height == 3
    assert to_hourly(holed)["open_time_ns"].to_list() == [bars["ts_ns"][0], bars["ts_ns"][24]]


@pytest.mark.parametrize(("timeframe", "minutes"), [("15m", 15), ("30m", 30)])
def test_hours_of_quarters_and_halves_are_the_hours_of_the_five_minutes(timeframe, minutes):
    bars = pl.read_parquet(FIVE_MINUTES).filter(pl.col("symbol") == "BTCUSDT").head(120)
    length_ns = minutes * HOUR_NS // 60
    longer = (
        bars.group_by("venue", "symbol", pl.col("ts_ns") // length_ns * length_ns)
        .agg(
            pl.lit(timeframe).alias("timeframe"), pl.col("open").first(), pl.col("high").max(),
            pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum(),
        )
    )  # fmt: skip
    assert to_hourly(longer).equals(to_hourly(bars))
    assert to_hourly(longer.sort("ts_ns")[1:]).height == 9


def test_order_of_the_recording_does_not_matter():
    bars = pl.read_parquet(FIVE_MINUTES).head(2000)
    assert to_hourly(bars.sample(fraction=1.0, shuffle=True, seed=5)).equals(to_hourly(bars))


def test_recorded_hours_are_the_hours_of_the_five_minutes():
    names = ["BTCUSDT", "XRPUSDT"]
    made, kept = (
        to_hourly(pl.read_parquet(path).filter(pl.col("symbol").is_in(names)))
        for path in (FIVE_MINUTES, HOURS)
    )
    assert made.equals(kept)


def test_rows_equal_the_live_features():
    data = load_data_set([FIVE_MINUTES])
    features = batch_features(hourly_bars(), SCHEMA)
    inputs = to_model_inputs(
        features.select(SCHEMA.names).to_numpy(), features["close"].to_numpy(), SCHEMA
    ).astype(np.float32)
    assert data.inputs.tobytes() == inputs.tobytes()
    assert np.isfinite(data.inputs[data.usable_rows(4, SCHEMA)]).all()


@pytest.mark.acceptance(
    "S-082", criterion="Features never look ahead; shuffling the future is unseen"
)
def test_shuffling_the_future_moves_no_feature_and_no_settled_label(tmp_path, measured):
    path = write_days(tmp_path / "bars.parquet", days=20)
    bars = pl.read_parquet(path)
    cut = bars["ts_ns"].min() + 15 * 24 * HOUR_NS
    known, future = bars.filter(pl.col("ts_ns") < cut), bars.filter(pl.col("ts_ns") >= cut)
    values = ["open", "high", "low", "close", "volume"]
    mixed = pl.concat(
        [
            pl.concat([part.drop(values), part.select(values).sample(fraction=1.0, shuffle=True, seed=3)], how="horizontal")
            for part in future.partition_by("symbol")
        ]
    ).select(bars.columns)  # fmt: skip
    pl.concat([known, mixed]).write_parquet(tmp_path / "mixed.parquet")
    first, second = (load_data_set([tmp_path / f"{name}.parquet"]) for name in ("bars", "mixed"))
    past = first.close_times_ns <= cut
    assert np.array_equal(first.inputs[past], second.inputs[past], equal_nan=True)
    settled = past & (first.targets[4].ends_ns <= cut)
    assert np.array_equal(first.targets[4].labels[settled], second.targets[4].labels[settled])
    assert not np.array_equal(first.inputs[~past], second.inputs[~past], equal_nan=True)
    measured(f"{int(past.sum())} rows before the cut, all alike")


@pytest.mark.acceptance(
    "S-082", criterion="Dataset manifest states rows, range, schema hash, provenance=recorded"
)
def test_the_manifest_says_what_the_data_set_holds(measured):
    data = three_symbols()
    found = data.manifest
    assert found.provenance == "recorded"
    assert found.bars == len(data.closes) == 3 * 152 * 24
    assert found.rows == len(data.usable_rows(4, SCHEMA))
    assert found.feature_schema_hash == SCHEMA.schema_hash
    assert found.first_open_ns == data.close_times_ns.min() - HOUR_NS
    assert found.last_close_ns == data.close_times_ns.max()
    assert set(found.symbols) == {
        f"binance_spot:{one}" for one in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    }
    assert set(found.labels) == {"1", "4"}
    assert msgspec.json.decode(msgspec.json.encode(asdict(found))) == asdict(found)
    measured(f"{found.rows} rows, {(found.last_close_ns - found.first_open_ns) / 8.64e13:.0f} days")


def test_gaps_are_counted_per_symbol(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=10, symbols=("BTCUSDT",))
    bars = pl.read_parquet(path)
    pl.concat([bars[:100], bars[103:150], bars[151:]]).write_parquet(path)
    (found,) = load_data_set([path]).manifest.symbols.values()
    assert (found["missing_bars"], found["longest_gap_bars"]) == (4, 3)


def test_the_content_hash_knows_values_and_not_files(tmp_path):
    one = write_days(tmp_path / "one.parquet", days=10)
    bars = pl.read_parquet(one)
    bars.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "two.parquet")
    bars.with_columns(pl.col("volume") * 2).write_parquet(tmp_path / "three.parquet")
    hashes = [
        load_data_set([tmp_path / f"{name}.parquet"]).manifest.content_hash
        for name in ("one", "two", "three")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.acceptance("S-082", criterion="Synthetic data is refused")
@pytest.mark.parametrize("provenance", ["reconstructed", "synthetic"])
def test_data_that_was_not_recorded_is_refused(tmp_path, provenance, measured):
    path = write_days(tmp_path / "bars.parquet", days=5)
    pl.read_parquet(path).with_columns(provenance=pl.lit(provenance)).write_parquet(path)
    with pytest.raises(ProvenanceError, match="must be recorded; found"):
        load_data_set([path])
    measured("refused")


def test_bars_that_say_recorded_are_taken(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=5)
    pl.read_parquet(path).with_columns(provenance=pl.lit("recorded")).write_parquet(path)
    assert load_data_set([path]).manifest.bars == 360


@pytest.mark.parametrize("timeframes", [["1d"], ["5m", "1h"]])
def test_bars_that_hours_are_not_made_of_are_refused(timeframes):
    bars = pl.read_parquet(HOURS).head(len(timeframes))
    with pytest.raises(ValueError, match="must have one timeframe"):
        to_hourly(bars.with_columns(timeframe=pl.Series(timeframes)))


def test_an_unknown_symbol_is_refused_with_the_known_ones(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=5)
    with pytest.raises(ValueError, match=r"found no \['FTTUSDT'\]; choose from BTCUSDT, ETHUSDT"):
        load_data_set([path], symbols=["FTTUSDT"])


def test_a_bar_in_two_files_is_refused(tmp_path):
    one, two = (write_days(tmp_path / f"{name}.parquet", days=5) for name in "ab")
    with pytest.raises(ValueError, match="a bar must be in one file only"):
        load_data_set([one, two])


def test_a_file_of_trades_is_refused():
    with pytest.raises(ValueError, match="must hold bars; found 'trades'"):
        load_data_set([HOURS.with_name("trades_binance_spot_20240808.parquet")])


def test_bars_without_volume_leave_a_feature_empty_and_are_refused(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=10)
    pl.read_parquet(path).with_columns(volume=pl.lit(0.0)).write_parquet(path)
    with pytest.raises(ValueError, match=r"must have values; found none of \[.*volume"):
        load_data_set([path])


def test_bars_with_a_price_that_is_no_number_are_refused(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=10)
    bars = pl.read_parquet(path)
    bars.with_columns(close=pl.lit(float("nan"))).write_parquet(path)
    with pytest.raises(ValueError, match="finite positive prices"):
        load_data_set([path])


def test_windows_hold_the_bars_up_to_a_row_and_of_its_series_alone():
    data = three_symbols()
    rows = np.random.default_rng(2).integers(0, len(data.closes), 60)
    rows = np.concatenate([rows, np.arange(400)])
    found = data.reader(WINDOWS).take(rows)
    assert found.shape == (460, *WINDOWS.input_shape)
    channels = data.channels(WINDOWS)
    for row, window in zip(rows, found, strict=True):
        same = np.flatnonzero(data.symbol_codes[: row + 1] == data.symbol_codes[row])
        expected = np.full(window.shape, np.nan, dtype=np.float32)
        last = same[-WINDOWS.steps :]
        expected[WINDOWS.steps - len(last) :] = channels[last]
        assert np.array_equal(window, expected, equal_nan=True)


def test_rows_that_are_usable_for_windows_have_whole_windows():
    data = three_symbols()
    reader, usable = data.reader(WINDOWS), data.usable_rows(4, WINDOWS)
    assert np.isfinite(reader.take(usable)).all()
    rest = np.setdiff1d(data.usable_rows(4, SCHEMA), usable)
    assert len(rest)
    assert (~np.isfinite(reader.take(rest))).any(axis=(1, 2)).all()
