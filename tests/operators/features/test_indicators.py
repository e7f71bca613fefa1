"""Declared rolling values: names, windows, equality with polars."""

import numpy as np
import polars as pl
import pytest

from operators.features import FeatureMachine, Indicator
from schemas.features import FEATURE_SCHEMAS
from tests.operators.features.reference import scaled_difference
from tests.operators.features.series import recorded_series

FS34 = FEATURE_SCHEMAS["fs34"]
LENGTHS = (1, 2, 10, 20, 50, 51, 100, 300)


def compute(*names: str, count: int = 2000) -> pl.DataFrame:
    indicators = tuple(Indicator(name) for name in names)
    return FeatureMachine(FS34, indicators).update(recorded_series(count=count))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    ("family", "column", "kind", "shift"),
    [
        ("prior_high", "high", "max", 1),
        ("resistance", "high", "max", 1),
        ("prior_low", "low", "min", 1),
        ("prior_volume_mean", "volume", "mean", 1),
        ("prior_sma", "close", "mean", 1),
        ("sma", "close", "mean", 0),
    ],
)
def test_indicator_equals_polars(family, column, kind, shift, length):
    name = f"{family}_{length}"
    found = compute(name)[name].to_numpy()
    rolling = getattr(pl.col(column), f"rolling_{kind}")(length).shift(shift)
    expected = recorded_series(count=2000).select(rolling).to_series().to_numpy()

    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert scaled_difference(found, expected) <= (1e-9 if kind == "mean" else 0.0)
    assert int(np.argmax(~np.isnan(found))) + 1 == Indicator(name).warm_up_bars


def test_prior_close_is_the_close_before():
    found = compute("prior_close")["prior_close"].to_numpy()

    assert np.isnan(found[0])
    assert np.array_equal(found[1:], recorded_series(count=2000)["close"].to_numpy()[:-1])


def test_prior_sma_is_the_sma_of_the_bar_before_bit_for_bit():
    features = compute("prior_sma_20", "prior_sma_100", "sma_100")

    for length in (20, 100):
        now, prior = features[f"sma_{length}"], features[f"prior_sma_{length}"]
        assert now.to_numpy()[:-1].tobytes() == prior.to_numpy()[1:].tobytes()


@pytest.mark.parametrize(("length", "lag"), [(20, 5), (50, 10), (200, 20), (1, 299), (280, 20)])
def test_lagged_sma_is_the_sma_of_that_bar_bit_for_bit(length, lag):
    found = compute(f"sma_{length}", f"sma_{length}_lag_{lag}")
    now, lagged = found[f"sma_{length}"].to_numpy(), found[f"sma_{length}_lag_{lag}"].to_numpy()

    assert now[:-lag].tobytes() == lagged[lag:].tobytes()
    assert np.isnan(lagged[:lag]).all()
    first = int(np.argmax(~np.isnan(lagged))) + 1
    assert first == Indicator(f"sma_{length}_lag_{lag}").warm_up_bars == length + lag


@pytest.mark.parametrize("length", [1, 20, 100, 299])
def test_true_range_mean_equals_polars(length):
    name = f"true_range_mean_{length}"
    found = compute(name)[name].to_numpy()
    before = pl.col("close").shift(1)
    reach = [
        pl.col("high") - pl.col("low"),
        *((pl.col(one) - before).abs() for one in ("high", "low")),
    ]
    true_range = pl.when(before.is_not_null()).then(pl.max_horizontal(reach))
    expected = (
        recorded_series(count=2000).select(true_range.rolling_mean(length)).to_series().to_numpy()
    )

    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert scaled_difference(found, expected) <= 1e-9
    assert int(np.argmax(~np.isnan(found))) + 1 == Indicator(name).warm_up_bars


def test_longer_ring_changes_no_feature():
    names = list(FEATURE_SCHEMAS["fs34"].names)

    assert compute("prior_high_300").select(names).equals(compute().select(names), null_equal=True)


def test_indicator_that_is_a_feature_gets_no_second_column():
    features = compute("sma_20", "sma_20", "prior_close", "prior_close")

    assert features.columns.count("sma_20") == 1
    assert features.columns[-2:] == ["prior_close", "missing_mask"]


@pytest.mark.parametrize(
    "name",
    [
        *("", "prior_high", "prior_high_0", "prior_high_301", "prior_high_-3", "vwap_20", "sma_x"),
        *("sma_20_lag_0", "sma_200_lag_101", "prior_high_20_lag_5", "sma_20_lag_"),
    ],
)
def test_unknown_indicator_is_refused_with_the_families(name):
    with pytest.raises(ValueError, match=r"prior_close or one of prior_high_N, .*sma_N") as caught:
        Indicator(name)

    assert repr(name) in str(caught.value)
