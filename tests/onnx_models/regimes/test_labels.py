"""Labels of regimes read the future and what was usual before every input, and nothing between."""

from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_models.dataset import read_hourly
from onnx_models.regimes.labels import (
    UNKNOWN,
    RegimeLabelling,
    classify,
    label_regimes,
    measure_future,
)
from onnx_models.regimes.rows import load_regime_rows
from operators.bar_columns import BarColumns
from operators.features import FeatureMachine
from operators.regime import INDICATORS, RegimeRule, regime_inputs
from schemas.features import FEATURE_SCHEMAS
from schemas.regime import REGIMES
from tests.onnx_models.recorded import HOURS

LABELLING = RegimeLabelling()
GAP, AHEAD, USUAL = LABELLING.gap_bars, LABELLING.horizon_bars, LABELLING.usual_bars
FIRST = GAP + USUAL
ROW = 900


@cache
def bars():
    return read_hourly([HOURS], ["BTCUSDT"])[:1600]


def inputs_of(frame):
    return regime_inputs(
        FeatureMachine(FEATURE_SCHEMAS["fs34"], INDICATORS).extend(BarColumns.of(frame))
    )


def shuffled(frame, first, last, seed):
    """Return `frame` with the bars [first, last) in another order and twice as volatile."""
    order = np.random.default_rng(seed).permutation(np.arange(first, last))
    middle = float(frame["close"][first])
    changed = [
        pl.concat(
            [
                frame[name][:first],
                (frame[name][order] / middle) ** 2 * middle,
                frame[name][last:],
            ]
        ).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    volume = pl.concat([frame["volume"][:first], frame["volume"][order], frame["volume"][last:]])
    return frame.with_columns(*changed, volume)


@pytest.mark.acceptance("S-147", criterion="labels are of the future, never of the inputs")
def test_the_bars_that_inputs_read_change_no_label_and_those_that_labels_read_no_input(measured):
    whole, known = label_regimes(bars(), LABELLING), inputs_of(bars())
    seen = shuffled(bars(), ROW - GAP + 1, ROW + 1, seed=1)
    assert label_regimes(seen, LABELLING).labels[ROW] == whole.labels[ROW]
    activity = [measure_future(*columns(frame), LABELLING) for frame in (bars(), seen)]
    assert activity[0][0][ROW] == activity[1][0][ROW]
    assert activity[0][1][ROW] == activity[1][1][ROW]
    assert (inputs_of(seen)[ROW] != known[ROW]).all()
    later = shuffled(bars(), ROW + 1, ROW + 1 + AHEAD, seed=2)
    assert inputs_of(later)[: ROW + 1].tobytes() == known[: ROW + 1].tobytes()
    moved = measure_future(*columns(later), LABELLING)
    assert moved[0][ROW] != activity[0][0][ROW]
    measured(f"{GAP} bars of inputs and {AHEAD} + {USUAL} bars of the label share none")


def columns(frame):
    return frame["open"].to_numpy(), frame["close"].to_numpy()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), row=st.integers(FIRST, 1500))
def test_no_history_of_the_inputs_moves_a_label(seed, row):
    changed = shuffled(bars(), row - GAP + 1, row + 1, seed)
    assert label_regimes(changed, LABELLING).labels[row] == expected_label(row)


def expected_label(row):
    return label_regimes(bars(), LABELLING).labels[row]


@pytest.mark.parametrize("row", [FIRST, ROW, 1500])
def test_activity_and_trend_are_their_formulas(row):
    opens, closes = columns(bars())
    found = measure_future(opens, closes, LABELLING)
    path = np.log(np.r_[opens[row + 1], closes[row + 1 : row + 1 + AHEAD]])
    before = np.log(closes[row - GAP - USUAL : row - GAP + 1])
    usual = np.abs(np.diff(before)).mean()
    assert len(before) == USUAL + 1
    assert found[0][row] == pytest.approx(np.abs(np.diff(path)).mean() / usual)
    assert found[1][row] == pytest.approx((path[-1] - path[0]) / np.linalg.norm(np.diff(path)))


def test_labels_begin_and_end_where_their_windows_are_whole():
    target = label_regimes(bars(), LABELLING)
    known = np.flatnonzero(target.labels != UNKNOWN)
    assert (known[0], known[-1]) == (FIRST, bars().height - AHEAD - 1)
    times = bars()["close_time_ns"].to_numpy()
    assert np.array_equal(target.ends_ns[known], times[known + AHEAD])
    assert (target.ends_ns[target.labels == UNKNOWN] == 0).all()


@pytest.mark.parametrize(
    ("activity", "trend", "expected"),
    [
        (2.01, 3.0, "crisis"),
        (2.0, 3.0, "high_vol_choppy"),
        (1.5, 1.01, "bull_trending"),
        (1.5, -1.01, "bear_trending"),
        (1.5, 1.0, "high_vol_choppy"),
        (1.2, 0.0, "low_vol_range"),
        (0.1, -1.01, "bear_trending"),
    ],
)
def test_classes_at_their_thresholds(activity, trend, expected):
    (code,) = classify(np.array([activity]), np.array([trend]), LABELLING)
    assert REGIMES[code] == expected


def test_series_do_not_mix():
    both = read_hourly([HOURS], ["BTCUSDT", "ETHUSDT"])
    alone = both.filter(pl.col("symbol") == "ETHUSDT")
    place = (both["symbol"] == "ETHUSDT").to_numpy()
    assert np.array_equal(
        label_regimes(both, LABELLING).labels[place], label_regimes(alone, LABELLING).labels
    )


def test_a_market_that_stands_still_has_no_label():
    still = bars().with_columns(open=pl.lit(1.0), close=pl.lit(1.0))
    assert set(label_regimes(still, LABELLING).labels) == {UNKNOWN}


@pytest.mark.acceptance("S-148", criterion="all five regimes occur in recorded labels and calls")
def test_recorded_months_hold_all_five(measured):
    rows = load_regime_rows([HOURS])
    counts = np.bincount(rows.labels[rows.usable], minlength=5)
    said = np.bincount(RegimeRule().call(rows.inputs[rows.usable]).codes, minlength=5)
    assert counts.min() > 500
    assert said.min() > 100
    shares = counts / counts.sum()
    measured(", ".join(f"{name} {share:.0%}" for name, share in zip(REGIMES, shares, strict=True)))
