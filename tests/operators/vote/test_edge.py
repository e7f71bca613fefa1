import numpy as np
import polars as pl
import pytest

from onnx_models.labels import Labelling, label_rows
from operators.vote.edge import TradingCosts, expected_edges_bps, expected_move_bps
from operators.vote.labels import LabelRule
from operators.vote.panel import _decide
from tests.operators.recorded_bars import hourly_bars, with_features

COSTS = TradingCosts(fee_bps=10, half_spread_bps=1, slippage_bps=0.5, margin=0.1)


def test_costs_are_paid_twice():
    assert COSTS.round_trip_bps == pytest.approx(23.0)
    assert COSTS.threshold_bps == pytest.approx(2.3)


def test_edge_by_hand():
    pooled = np.array([[0.2, 0.4, 0.4], [0.5, 0.3, 0.2], [0.3, 0.4, 0.3]])
    moves = np.array([200.0, 100.0, 100.0])
    found = expected_edges_bps(pooled, moves, COSTS)
    assert found[0] == pytest.approx([-40 - 23, 40 - 23])
    assert found[1] == pytest.approx([30 - 23, -30 - 23])
    assert found[2] == pytest.approx([-23, -23])


@pytest.mark.parametrize(
    ("buy", "stance"), [(0.4, 2), (0.4264, 2), (0.3264, 1), (0.3266, 2), (0.2, 1)]
)
def test_a_trade_is_approved_only_above_the_threshold(buy, stance):
    # 200 bps of move: buy - sell must exceed (23 + 2.3) / 200 = 0.1265.
    pooled = np.array([[0.2, 1 - 0.2 - buy, buy]])
    edges = expected_edges_bps(pooled, np.array([200.0]), COSTS)
    assert _decide(pooled, edges, COSTS.threshold_bps)[0] == stance


def test_an_edge_that_equals_the_threshold_is_not_above_it():
    pooled = np.array([[0.25, 0.25, 0.5]])
    edges = np.array([[-100.0, 2.0]])
    assert _decide(pooled, edges, 2.0)[0] == 1
    assert _decide(pooled, edges, 1.999)[0] == 2


def test_no_opinion_is_an_abstention_and_an_unknown_edge_a_hold():
    pooled = np.array([[np.nan] * 3, [0.1, 0.2, 0.7]])
    edges = expected_edges_bps(pooled, np.array([100.0, np.nan]), COSTS)
    assert _decide(pooled, edges, 0.0).tolist() == [-1, 1]


def test_expected_move_is_the_recorded_move_after_a_touch():
    bars = with_features(hourly_bars().sort("close_time_ns", "venue", "symbol"))
    rows = bars.with_columns(volatility=pl.col("volatility_30").fill_nan(None))
    target = label_rows(rows, Labelling())
    expected = expected_move_bps(bars["volatility_30"].to_numpy(), LabelRule())
    for label, sign in ((0, -1), (2, 1)):
        own = target.labels == label
        recorded = float(sign * target.returns[own].mean() * 1e4)
        assert float(expected[own].mean()) == pytest.approx(recorded, rel=0.15)
