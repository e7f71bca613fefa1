"""The eleven inputs: formulas, warm-up, and equality of stream and batch."""

import itertools
import pickle
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.bar_columns import BarColumns
from operators.features import FeatureMachine
from operators.regime import INDICATORS, WARM_UP_BARS, regime_inputs
from schemas.features import FEATURE_SCHEMAS
from schemas.regime import RG11
from tests.operators.features.reference import scaled_difference
from tests.operators.recorded_bars import hourly_bars

FS34 = FEATURE_SCHEMAS["fs34"]
BARS = hourly_bars()[:2400]
CUTS = st.lists(st.integers(0, BARS.height), max_size=10).map(
    lambda cuts: [0, *sorted(cuts), BARS.height]
)


def machine():
    return FeatureMachine(FS34, INDICATORS)


@cache
def whole():
    return regime_inputs(machine().extend(BarColumns.of(BARS)))


@settings(max_examples=25)
@given(cuts=CUTS)
def test_no_cut_and_no_restart_changes_a_bit(cuts):
    one, parts = machine(), []
    for first, last in itertools.pairwise(cuts):
        parts.append(regime_inputs(one.extend(BarColumns.of(BARS[first:last]))))
        one = pickle.loads(pickle.dumps(one))
    assert np.concatenate(parts).tobytes() == whole().tobytes()


def reference():
    close, before = pl.col("close"), pl.col("close").shift(1)
    means = {n: close.rolling_mean(n) for n in (20, 50, 200)}
    reach = [pl.col("high") - pl.col("low"), (pl.col("high") - before).abs()]
    true_range = pl.when(before.is_not_null()).then(
        pl.max_horizontal([*reach, (pl.col("low") - before).abs()])
    )
    return {
        "sma_20_slope": (means[20] / means[20].shift(5) - 1) / 5,
        "sma_50_slope": (means[50] / means[50].shift(10) - 1) / 10,
        "sma_200_slope": (means[200] / means[200].shift(20) - 1) / 20,
        "true_range_ratio": true_range.rolling_mean(20) / true_range.rolling_mean(100),
        "volume_ratio": pl.col("volume") / pl.col("volume").rolling_mean(20),
        **{f"close_to_sma_{n}": close / mean - 1 for n, mean in means.items()},
    }


@pytest.mark.parametrize("name", list(reference()))
def test_an_input_is_its_formula(name):
    bars = hourly_bars().filter(pl.col("symbol") == "BTCUSDT")[:1500]
    found = regime_inputs(machine().extend(BarColumns.of(bars)))[:, RG11.names.index(name)]
    expected = bars.select(reference()[name]).to_series().to_numpy()
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert scaled_difference(found, expected) <= 1e-7


def test_the_others_are_features_of_the_bar():
    features = machine().extend(BarColumns.of(BARS))
    close = features.floats("close")
    for name, expected in (
        ("rsi_14", features.floats("rsi_14")),
        ("macd_pct", features.floats("macd") / close),
        ("macd_signal_pct", features.floats("macd_signal") / close),
    ):
        column = whole()[:, RG11.names.index(name)]
        assert np.array_equal(column, expected, equal_nan=True)


def test_each_input_begins_when_its_schema_says():
    symbols = BARS["symbol"].to_list()
    rows = [i for i, symbol in enumerate(symbols) if symbol == symbols[0]]
    series = whole()[rows]
    for name, column, feature in zip(RG11.names, series.T, RG11.features, strict=True):
        assert int(np.argmax(~np.isnan(column))) + 1 == feature.warm_up_bars, name
    assert int(np.argmax(np.isfinite(series).all(axis=1))) + 1 == WARM_UP_BARS


def test_inputs_are_the_same_for_a_market_at_another_price_and_volume():
    scaled = BARS.with_columns(
        *(pl.col(name) * 4.0 for name in ("open", "high", "low", "close")), pl.col("volume") * 8.0
    )
    found = regime_inputs(machine().extend(BarColumns.of(scaled)))
    assert np.allclose(found, whole(), rtol=1e-9, atol=1e-15, equal_nan=True)
