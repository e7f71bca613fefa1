import pickle
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from onnx_models.labels import Labelling, label_rows
from operators.vote.labels import HOLD, UNKNOWN, LabelRule, OpenLabels
from tests.operators.recorded_bars import hourly_bars, with_features


def settle_all(codes, times, closes, volatilities, rule):
    """Return label and return of each row, settled close by close."""
    state = OpenLabels.none(rule)
    labels = np.full(len(codes), UNKNOWN)
    returns = np.full(len(codes), np.nan)
    held: dict[tuple[int, int], int] = {}
    bounds = [0, *(np.flatnonzero(np.diff(times)) + 1).tolist(), len(codes)]
    for start, end in pairwise(bounds):
        rows = slice(start, end)
        settled, slots = state.advance(codes[rows], closes[rows], volatilities[rows])
        for code, slot, label, move in zip(
            settled.codes, settled.slots, settled.labels, settled.returns, strict=True
        ):
            row = held[int(code), int(slot)]
            labels[row], returns[row] = label, move
        for i, slot in enumerate(slots.tolist()):
            held[int(codes[start + i]), slot] = start + i
        state = pickle.loads(pickle.dumps(state))
    return labels, returns


@pytest.mark.parametrize("horizon", [1, 4])
def test_labels_on_the_stream_are_those_of_the_data_sets(horizon):
    bars = with_features(hourly_bars().sort("close_time_ns", "venue", "symbol")).head(6 * 1200)
    # Holes, so that horizons in bars and in time differ.
    bars = bars.filter(pl.int_range(pl.len()) % 37 != 5)
    offline = label_rows(
        bars.with_columns(volatility=pl.col("volatility_30").fill_nan(None)),
        Labelling(horizon_bars=horizon),
    )
    codes = bars["symbol"].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    labels, returns = settle_all(
        codes,
        bars["close_time_ns"].to_numpy(),
        bars["close"].to_numpy(),
        bars["volatility_30"].to_numpy(),
        LabelRule(horizon_bars=horizon),
    )
    assert labels.tolist() == offline.labels.tolist()
    np.testing.assert_array_equal(returns, offline.returns)
    assert {0, 1, 2} <= set(labels.tolist())


def test_the_first_touch_decides_though_the_move_turns():
    rule = LabelRule(horizon_bars=3, cost_bps=100, volatility_factor=0)
    closes = np.array([100.0, 102.0, 97.0, 97.0])
    codes = np.zeros(4, dtype=np.int64)
    labels, returns = settle_all(codes, np.arange(4), closes, np.zeros(4), rule)
    assert labels[0] == 2
    assert returns[0] == pytest.approx(-0.03)


def test_a_move_as_large_as_the_band_is_no_touch():
    rule = LabelRule(horizon_bars=1, cost_bps=5000, volatility_factor=0)
    codes = np.zeros(3, dtype=np.int64)
    labels, _ = settle_all(codes, np.arange(3), np.array([1.0, 1.5, 0.75]), np.zeros(3), rule)
    assert labels.tolist() == [HOLD, HOLD, UNKNOWN]


def test_without_a_volatility_there_is_no_label_but_the_bar_counts():
    rule = LabelRule(horizon_bars=2)
    closes = np.array([100.0, 110.0, 120.0, 130.0])
    volatilities = np.array([np.nan, 0.01, 0.01, 0.01])
    codes = np.zeros(4, dtype=np.int64)
    labels, _ = settle_all(codes, np.arange(4), closes, volatilities, rule)
    assert labels.tolist() == [UNKNOWN, 2, UNKNOWN, UNKNOWN]
