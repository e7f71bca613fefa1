import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_models.labels import BUY, HOLD, SELL, UNKNOWN, Labelling, label_rows

HOUR_NS = 3_600_000_000_000
QUIET = Labelling(horizon_bars=2, cost_bps=100.0, volatility_factor=0.0)


def frame(closes, symbol="BTCUSDT", volatility=0.0):
    count = len(closes)
    return pl.DataFrame(
        {
            "venue": ["x"] * count,
            "symbol": [symbol] * count,
            "close_time_ns": [(i + 1) * HOUR_NS for i in range(count)],
            "close": [float(close) for close in closes],
            "volatility": [volatility] * count,
        },
        schema_overrides={"volatility": pl.Float64},
    )


def labels_of(rows, labelling=QUIET):
    return label_rows(rows, labelling).labels.tolist()


def test_the_first_close_beyond_the_band_decides():
    assert labels_of(frame([1000, 1011, 985, 1000, 1000]))[0] == BUY
    assert labels_of(frame([1000, 985, 1011, 1000, 1000]))[0] == SELL
    assert labels_of(frame([1000, 1009, 991, 1011, 1000]))[0] == HOLD


def test_labels_are_known_when_the_horizon_has_closed():
    target = label_rows(frame([1000, 1000, 1011, 989, 1000]), QUIET)
    assert target.labels.tolist() == [BUY, BUY, SELL, UNKNOWN, UNKNOWN]
    assert target.ends_ns.tolist() == [3 * HOUR_NS, 4 * HOUR_NS, 5 * HOUR_NS, 0, 0]
    assert target.returns[:3] == pytest.approx([0.011, -0.011, 1000 / 1011 - 1])
    assert np.isnan(target.returns[3:]).all()


@pytest.mark.parametrize(
    ("close", "label"), [(10_101, BUY), (10_099, HOLD), (9_901, HOLD), (9_899, SELL)]
)
def test_a_move_within_the_cost_is_no_direction(close, label):
    assert labels_of(frame([10_000, 10_000, close]))[0] == label


def test_the_band_widens_with_volatility():
    noisy = Labelling(horizon_bars=4, cost_bps=0.0, volatility_factor=0.5)
    closes = [1000, 1000, 1000, 1000, 1015]
    assert labels_of(frame(closes, volatility=0.014), noisy)[0] == BUY
    assert labels_of(frame(closes, volatility=0.016), noisy)[0] == HOLD


def test_without_volatility_the_label_is_unknown():
    assert labels_of(frame([1, 2, 3], volatility=None)) == [UNKNOWN] * 3


def test_symbols_are_labelled_apart():
    both = pl.concat([frame([1000, 1000, 2000]), frame([1000, 1000, 500], "ETHUSDT")])
    assert labels_of(both.sort("close_time_ns", "symbol")) == [BUY, SELL, *[UNKNOWN] * 4]


def first_touch(closes, volatility, labelling):
    """The definition as a loop over one series."""
    horizon, found = labelling.horizon_bars, []
    band = labelling.cost_bps / 1e4 + labelling.volatility_factor * volatility * horizon**0.5
    for i in range(len(closes)):
        if i + horizon >= len(closes):
            found.append(UNKNOWN)
            continue
        moves = [closes[i + k] / closes[i] - 1.0 for k in range(1, horizon + 1)]
        beyond = [BUY if move > band else SELL for move in moves if abs(move) > band]
        found.append(beyond[0] if beyond else HOLD)
    return found


@given(
    st.lists(st.floats(50.0, 200.0), min_size=1, max_size=40),
    st.integers(1, 6),
    st.floats(0.0, 0.2),
)
def test_labels_equal_a_loop_over_the_definition(closes, horizon, volatility):
    labelling = Labelling(horizon_bars=horizon, cost_bps=22.0)
    found = labels_of(frame(closes, volatility=volatility), labelling)
    assert found == first_touch(closes, volatility, labelling)


def test_the_definition_names_its_numbers():
    text = Labelling(horizon_bars=4).definition
    assert "22 bps" in text
    assert "0.5 * volatility_30 * sqrt(4)" in text
