import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_models.labels import BUY, HOLD, SELL, UNKNOWN, Labelling, label_rows, split_rows

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


def test_label_compares_the_close_a_horizon_later_with_the_band():
    labels, ends = label_rows(frame([1000, 1000, 1011, 989, 1000]), QUIET)
    assert labels.tolist() == [BUY, SELL, SELL, UNKNOWN, UNKNOWN]
    assert ends.tolist()[:3] == [3 * HOUR_NS, 4 * HOUR_NS, 5 * HOUR_NS]


@pytest.mark.parametrize(
    ("close", "label"), [(10_101, BUY), (10_099, HOLD), (9_901, HOLD), (9_899, SELL)]
)
def test_a_move_within_the_cost_is_no_direction(close, label):
    assert label_rows(frame([10_000, 10_000, close]), QUIET)[0][0] == label


def test_the_band_widens_with_volatility():
    noisy = Labelling(horizon_bars=4, cost_bps=0.0, volatility_factor=0.5)
    closes = [1000, 1000, 1000, 1000, 1015]
    assert label_rows(frame(closes, volatility=0.014), noisy)[0][0] == BUY
    assert label_rows(frame(closes, volatility=0.016), noisy)[0][0] == HOLD


def test_without_volatility_the_label_is_unknown():
    assert label_rows(frame([1, 2, 3], volatility=None), QUIET)[0].tolist() == [UNKNOWN] * 3


def test_symbols_are_labelled_apart():
    both = pl.concat([frame([1000, 1000, 2000]), frame([1000, 1000, 500], "ETHUSDT")])
    mixed = both.sort("close_time_ns", "symbol")
    labels, _ = label_rows(mixed, QUIET)
    assert labels.tolist() == [BUY, SELL, *[UNKNOWN] * 4]


@given(
    st.lists(st.integers(0, 400), min_size=60, max_size=200),
    st.integers(1, 8),
)
def test_no_label_of_a_period_is_settled_in_the_next_one(hours, horizon):
    times = np.array(sorted(hours), dtype=np.int64) * HOUR_NS
    ends = times + horizon * HOUR_NS
    split = split_rows(times, ends, horizon * HOUR_NS)
    parts = [split.train, split.calibration, split.test]
    assert len(np.unique(np.concatenate(parts))) == sum(len(part) for part in parts)
    for i, early in enumerate(parts):
        for late in parts[i + 1 :]:
            if len(early) and len(late):
                assert ends[early].max() < times[late].min()
                assert times[late].min() - ends[early].max() >= horizon * HOUR_NS
