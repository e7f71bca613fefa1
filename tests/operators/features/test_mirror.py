"""The image of inputs against the inputs of reflected bars."""

import numpy as np
import polars as pl
import pytest

from operators.features import FeatureMachine, Mirror, to_model_inputs
from schemas.features import FEATURE_SCHEMAS, FeatureKind
from tests.operators.features.series import recorded_series

SCHEMA = FEATURE_SCHEMAS["fs34"]
BARS = 300
OF_RETURNS = {"returns", "log_returns", "roc_10", "volatility_7", "volatility_30", "bb_width",
              "relative_spread"}  # fmt: skip
"""Measured against a price that is not the close: their image is one of second order."""


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
        tolerance = 0.1 * abs(true) + 1e-4 if name in OF_RETURNS else 1e-7
        assert image == pytest.approx(true, abs=tolerance, rel=0.0), name


def test_mirrored_twice_is_as_before():
    bars = recorded_series(count=600)
    machine = FeatureMachine(SCHEMA)
    matrix = machine.vector_matrix(machine.update(bars))
    inputs = to_model_inputs(matrix, bars["close"].to_numpy(), SCHEMA)
    mirror = Mirror.of(SCHEMA)
    np.testing.assert_allclose(mirror.reflect(mirror.reflect(inputs)), inputs, atol=1e-12)


def test_a_schema_with_inputs_of_no_known_image_is_refused():
    with pytest.raises(ValueError, match="image in the mirror; found none of 'price_range'"):
        Mirror.of(FEATURE_SCHEMAS["fs64"])


def test_a_learner_cannot_be_told_of_a_direction_by_an_even_input():
    even = {"volatility", "atr", "volume", "adx", "bb_width", "relative_spread"}
    mirror = Mirror.of(SCHEMA)
    kept = {
        name
        for place, name in enumerate(SCHEMA.names)
        if (mirror.sources[place], mirror.factors[place], mirror.offsets[place]) == (place, 1, 0)
    }
    assert all(any(name.startswith(word) for word in even) for name in kept)
    levels = {one.name for one in SCHEMA.features if one.kind is FeatureKind.LEVEL}
    assert not kept & levels
