"""Windows of bars: a function of their own series alone, however the bars are cut or kept."""

import pickle
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.features import (
    FeatureMachine,
    SequenceWindows,
    select_channels,
    to_model_inputs,
    vector_matrix,
)
from schemas.features import FEATURE_SCHEMAS, FEATURES, SEQUENCE_SCHEMAS, SequenceSchema
from tests.operators.features.series import recorded_bars

SQ120 = SEQUENCE_SCHEMAS["sq120"]
SHORT = SequenceSchema(
    name="short",
    version=1,
    steps=5,
    features=(FEATURES["log_returns"], FEATURES["relative_spread"]),
)


def frame_of(symbols) -> pl.DataFrame:
    return pl.DataFrame(
        {"venue": ["v"] * len(symbols), "symbol": list(symbols)},
        schema={"venue": pl.String, "symbol": pl.String},
    )


def numbers(count, schema=SHORT, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(schema.features)))


def plain_windows(symbols, inputs, schema=SHORT) -> np.ndarray:
    """The last `steps` rows of each row's own series, by the plainest loop."""
    found = np.full((len(symbols), schema.steps, inputs.shape[1]), np.nan, dtype=np.float32)
    for i, symbol in enumerate(symbols):
        own = [k for k in range(i + 1) if symbols[k] == symbol][-schema.steps :]
        found[i, schema.steps - len(own) :] = inputs[own]
    return found


def same_bits(left, right) -> bool:
    return (
        left.shape == right.shape
        and left.dtype == right.dtype
        and left.tobytes() == right.tobytes()
    )


@settings(max_examples=60)
@given(
    symbols=st.lists(st.sampled_from(["A", "B", "C"]), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    restored=st.booleans(),
)
def test_windows_do_not_depend_on_the_cut_or_on_a_restart(symbols, cuts, restored):
    inputs = numbers(len(symbols))
    inputs[::7] = np.nan
    windows, found = SequenceWindows(SHORT), []
    edges = sorted({0, len(symbols), *(cut for cut in cuts if cut < len(symbols))})
    for first, last in pairwise(edges):
        if restored:
            windows = pickle.loads(pickle.dumps(windows))
        batch = windows.advance(frame_of(symbols[first:last]), inputs[first:last])
        found.append(batch.take(np.arange(last - first)))

    expected = plain_windows(symbols, inputs)
    assert same_bits(np.concatenate([np.empty((0, 5, 2), np.float32), *found]), expected)


def test_the_same_symbol_on_two_venues_is_two_series():
    frame = pl.DataFrame({"venue": ["v", "w", "v", "w"], "symbol": ["A"] * 4})
    inputs = numbers(4)

    found = SequenceWindows(SHORT).advance(frame, inputs).take(np.arange(4))

    assert np.array_equal(found[2, -2:], inputs[[0, 2]].astype(np.float32))
    assert np.array_equal(found[3, -2:], inputs[[1, 3]].astype(np.float32))


def test_a_window_is_complete_when_every_number_of_it_is_there():
    symbols, inputs = list("ABABABABABABABAB"), numbers(16)
    inputs[5, 1] = np.nan

    batch = SequenceWindows(SHORT).advance(frame_of(symbols), inputs)

    expected = np.isfinite(batch.take(np.arange(16))).all(axis=(1, 2))
    assert batch.complete.tolist() == expected.tolist()
    assert [bool(expected[row]) for row in (7, 8, 13, 15)] == [False, True, False, True]


def test_rows_are_taken_in_the_order_asked_and_by_mask():
    batch = SequenceWindows(SHORT).advance(frame_of("ABAB"), numbers(4))
    every = batch.take(np.arange(4))

    assert same_bits(batch.take([3, 0]), every[[3, 0]])
    assert same_bits(batch.take(np.array([True, False, False, True])), every[[0, 3]])
    assert batch.take(np.array([], dtype=np.int64)).shape == (0, 5, 2)
    with pytest.raises(IndexError):
        batch.take([4])


def test_inputs_of_another_width_are_refused_and_nothing_moves():
    windows = SequenceWindows(SHORT)
    with pytest.raises(ValueError, match="log_returns, relative_spread"):
        windows.advance(frame_of("AB"), np.zeros((2, 3)))

    assert windows.series == ()


def test_a_snapshot_holds_the_series_in_use_alone():
    windows = SequenceWindows(SQ120)
    names = [f"S{i}" for i in range(65)]
    windows.advance(frame_of(names[:64]), numbers(64, SQ120))
    windows.advance(frame_of(names), numbers(65, SQ120))

    assert len(windows.series) == 65
    assert len(pickle.dumps(windows)) < 65 * 119 * 3 * 4 + 4000


def test_channels_are_columns_of_the_scale_free_view():
    schema = FEATURE_SCHEMAS["fs34"]
    bars = recorded_bars().head(400)
    features = FeatureMachine(schema).update(bars)
    inputs = to_model_inputs(vector_matrix(features, schema), bars["close"].to_numpy(), schema)

    found = select_channels(inputs, schema, SQ120)

    for i, name in enumerate(SQ120.names):
        assert np.array_equal(found[:, i], features[name].to_numpy(), equal_nan=True)


def test_a_channel_that_the_schema_lacks_is_refused():
    foreign = SequenceSchema(name="foreign", version=1, steps=3, features=(FEATURES["obv"],))
    with pytest.raises(ValueError, match="obv"):
        select_channels(np.zeros((1, 34)), FEATURE_SCHEMAS["fs34"], foreign)
