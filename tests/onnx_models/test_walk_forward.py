from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_models.walk_forward import ROWS_MIN, plan_walk_forward
from schemas.features import FEATURE_SCHEMAS
from tests.onnx_models.recorded import hours

HOUR_NS = 3_600_000_000_000


def plan(count, symbols, folds, horizon):
    times = np.repeat(np.arange(count, dtype=np.int64), symbols) * HOUR_NS
    rows = np.arange(len(times))
    ends = times + horizon * HOUR_NS
    return times, ends, plan_walk_forward(rows, times, ends, folds, horizon * HOUR_NS)


@settings(max_examples=40)
@given(st.integers(3600, 4500), st.integers(1, 4), st.integers(0, 5), st.integers(1, 24))
def test_no_period_knows_of_a_later_one(count, symbols, folds, horizon):
    times, ends, found = plan(count, symbols, folds, horizon)
    assert len(found.folds) == folds
    for fold in (*found.folds, found.final):
        parts = [fold.train, fold.calibration, fold.test]
        for i, early in enumerate(parts):
            for late in parts[i + 1 :]:
                assert ends[early].max() < times[late].min()
                assert times[late].min() - ends[early].max() >= horizon * HOUR_NS


@settings(max_examples=20)
@given(st.integers(3600, 4500), st.integers(1, 5), st.integers(1, 12))
def test_tests_lie_apart_in_order_and_before_the_final_range(count, folds, horizon):
    times, ends, found = plan(count, 2, folds, horizon)
    spans = [times[fold.test] for fold in (*found.folds, found.final)]
    for early, late in pairwise(spans):
        assert early.max() < late.min()
    assert found.final.test[-1] == len(times) - 1
    for fold in found.folds:
        assert (
            ends[np.concatenate([fold.train, fold.calibration])].max()
            < found.final.test[0] * HOUR_NS
        )


@pytest.mark.acceptance(
    "S-083", criterion="Test window of 30 days strictly after train and embargo"
)
def test_the_final_month_of_the_shipped_recording_is_judged_alone(measured):
    data = hours()
    rows = data.usable_rows(4, FEATURE_SCHEMAS["fs34"])
    times, ends = data.close_times_ns, data.targets[4].ends_ns
    found = plan_walk_forward(rows, times[rows], ends[rows], 4, 4 * HOUR_NS).final
    days = (times[found.test].max() - times[found.test].min()) / (24 * HOUR_NS)
    gap = times[found.test].min() - ends[np.concatenate([found.train, found.calibration])].max()
    assert days >= 29.5
    assert gap >= 4 * HOUR_NS
    trained = (times[found.train].max() - times[found.train].min()) / (24 * HOUR_NS)
    assert trained >= 85
    measured(
        f"train {trained:.0f} d, test {days:.1f} d, {gap / HOUR_NS:.0f} h after the last label"
    )


def test_too_few_rows_are_refused_with_the_number_found():
    with pytest.raises(ValueError, match=f"at least {ROWS_MIN} rows; found 100"):
        plan(100, 1, 2, 4)
    with pytest.raises(ValueError, match="calibration period of fold_1 must have at least"):
        plan(1200, 1, 4, 4)
