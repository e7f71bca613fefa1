"""The image of inputs against the inputs of reflected bars."""

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from operators.features import FeatureMachine, Mirror, to_model_inputs
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS, FeatureKind
from tests.operators.features.series import recorded_series

SCHEMA = FEATURE_SCHEMAS["fs34"]
BARS = 300
OF_OTHER_PRICES = {"volatility_7", "volatility_30", "bb_width", "relative_spread"}
"""Measured against a price that is not the close: even up to the square of the move."""


def inputs_of_last(bars: pl.DataFrame) -> np.ndarray:
    machine = FeatureMachine(SCHEMA)
    matrix = machine.vector_matrix(machine.update(bars))
    return to_model_inputs(matrix, bars["close"].to_numpy(), SCHEMA)[-1:]


def reflect_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the bars with every price as far on the other side of the last close."""
    twice = 2.0 * bars["close"][-1]
    return bars.with_columns(
        open=twice - pl.col("open"),
        high=twice - pl.col("low"),
        low=twice - pl.col("high"),
        close=twice - pl.col("close"),
    )


@pytest.mark.parametrize("end", range(400, 6000, 700))
def test_image_of_the_inputs_is_the_input_of_the_image(end):
    bars = recorded_series(count=6000)[end - BARS : end]
    found = Mirror.of(SCHEMA).reflect(inputs_of_last(bars))[0]
    expected = inputs_of_last(reflect_bars(bars))[0]
    assert np.isfinite(expected).all()
    for name, image, true in zip(SCHEMA.names, found.tolist(), expected.tolist(), strict=True):
        tolerance = 0.1 * abs(true) + 1e-4 if name in OF_OTHER_PRICES else 1e-7
        assert image == pytest.approx(true, abs=tolerance, rel=0.0), name


@pytest.mark.parametrize("move", [-0.32, -0.1, -0.001, 0.0, 0.02, 0.4, 1.0])
def test_returns_of_any_size_are_reflected_exactly(move):
    close, image = 50.0, Mirror.of(SCHEMA)
    inputs = np.zeros((1, len(SCHEMA)))
    expected = {}
    for name, before in (("returns", close / (1.0 + move)), ("roc_10", close / (1.0 - move / 4))):
        reflected = 2.0 * close - before
        unit = 100.0 if name == "roc_10" else 1.0
        inputs[0, SCHEMA.names.index(name)] = unit * (close / before - 1.0)
        expected[name] = unit * (close / reflected - 1.0)
    inputs[0, SCHEMA.names.index("log_returns")] = np.log1p(move)
    expected["log_returns"] = np.log1p(expected["returns"])
    found = dict(zip(SCHEMA.names, image.reflect(inputs)[0].tolist(), strict=True))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_a_fall_that_has_no_image_is_taken_for_the_largest_that_has():
    inputs = np.zeros((3, len(SCHEMA)))
    place = SCHEMA.names.index("returns")
    inputs[:, place] = [-0.4, -0.6, np.nan]
    found = Mirror.of(SCHEMA).reflect(inputs)[:, place]
    np.testing.assert_allclose(found, [1.0, 1.0, np.nan], rtol=1e-12)


def test_the_image_of_any_usable_input_is_finite():
    for value in (-1e6, -1.0, 1e6):
        assert np.isfinite(Mirror.of(SCHEMA).reflect(np.full((2, len(SCHEMA)), value))).all()


def test_windows_are_those_of_prices_that_are_reflected_in_their_logarithm():
    schema = SEQUENCE_SCHEMAS["sq120"]
    bars = recorded_series(count=400)
    squared = bars["close"][-1] ** 2
    image = bars.with_columns(
        open=squared / pl.col("open"),
        high=squared / pl.col("low"),
        low=squared / pl.col("high"),
        close=squared / pl.col("close"),
    )
    found, expected = (
        FeatureMachine(SCHEMA).update(one).select(schema.names).to_numpy()[-schema.steps :]
        for one in (bars, image)
    )
    np.testing.assert_allclose(Mirror.of(schema).reflect(found), expected, rtol=1e-9, atol=1e-12)


def test_mirrored_twice_is_as_before():
    bars = recorded_series(count=600)
    machine = FeatureMachine(SCHEMA)
    matrix = machine.vector_matrix(machine.update(bars))
    inputs = to_model_inputs(matrix, bars["close"].to_numpy(), SCHEMA)
    mirror = Mirror.of(SCHEMA)
    np.testing.assert_allclose(mirror.reflect(mirror.reflect(inputs)), inputs, atol=1e-12)


def test_a_schema_with_inputs_of_no_known_image_is_refused():
    with pytest.raises(ValueError, match=r"image in the mirror; found none of \['price_range', "):
        Mirror.of(FEATURE_SCHEMAS["fs64"])
    momentum = SCHEMA.features[SCHEMA.names.index("momentum_5")]
    windows = replace(SEQUENCE_SCHEMAS["sq120"], features=(momentum,))
    with pytest.raises(ValueError, match=r"found none of \['momentum_5'\]"):
        Mirror.of(windows)


def test_a_learner_cannot_be_told_of_a_direction_by_an_even_input():
    even = {"volatility", "atr", "volume", "adx", "bb_width", "relative_spread"}
    mirror = Mirror.of(SCHEMA)
    curved = {name for _, name in mirror.curved}
    assert curved == {"returns", "log_returns", "roc_10"}
    kept = {
        name
        for place, name in enumerate(SCHEMA.names)
        if name not in curved
        and (mirror.sources[place], mirror.factors[place], mirror.offsets[place]) == (place, 1, 0)
    }
    assert all(any(name.startswith(word) for word in even) for name in kept)
    levels = {one.name for one in SCHEMA.features if one.kind is FeatureKind.LEVEL}
    assert not kept & levels
