"""The models' view: free of scale, row by row, independent of when the log began."""

import numpy as np
import polars as pl
import pytest

from operators.features import FeatureMachine, to_model_inputs
from schemas.features import FEATURE_SCHEMAS
from tests.operators.features.series import recorded_series

SCHEMAS = list(FEATURE_SCHEMAS.values())
PRICES, QUANTITIES = ("open", "high", "low", "close"), ("volume", "buy_volume")


def inputs(bars: pl.DataFrame, schema) -> np.ndarray:
    machine = FeatureMachine(schema)
    matrix = machine.vector_matrix(machine.update(bars))
    return to_model_inputs(matrix, bars["close"].to_numpy(), schema)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_inputs_do_not_change_with_the_unit_of_price_or_volume(schema):
    bars = recorded_series(count=1500)
    scaled = bars.with_columns(
        *(pl.col(name) * 1024 for name in PRICES), *(pl.col(name) / 64 for name in QUANTITIES)
    )

    # Powers of two scale floats exactly, so the inputs are the same to the bit.
    assert inputs(bars, schema).tobytes() == inputs(scaled, schema).tobytes()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_inputs_do_not_depend_on_when_the_log_began(schema):
    bars = recorded_series(count=6000)

    early, late = inputs(bars, schema)[-1000:], inputs(bars[2000:], schema)[-1000:]

    assert np.array_equal(np.isnan(early), np.isnan(late))
    assert np.nanmax(np.abs(early - late)) < 1e-9


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_inputs_are_finite_in_float32_or_missing(schema):
    found = inputs(recorded_series(count=3000), schema).astype(np.float32)

    assert not np.isinf(found).any()
    computed = [i for i, f in enumerate(schema.features) if f.kind.value != "external"]
    always_missing = {schema.names[i] for i in computed if np.isnan(found[:, i]).all()}
    assert always_missing == {"obv_ema", "vpt"} & set(schema.names)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_inputs_of_a_row_are_a_function_of_that_row(schema):
    bars = recorded_series(count=400)
    machine = FeatureMachine(schema)
    matrix, close = machine.vector_matrix(machine.update(bars)), bars["close"].to_numpy()
    whole = to_model_inputs(matrix, close, schema)

    single = [to_model_inputs(matrix[i : i + 1], close[i : i + 1], schema) for i in range(400)]

    assert np.concatenate(single).tobytes() == whole.tobytes()


def test_each_kind_is_scaled_as_documented():
    schema, bars = FEATURE_SCHEMAS["fs64"], recorded_series(count=400)
    machine = FeatureMachine(schema)
    features = machine.update(bars)
    close = bars["close"].to_numpy()
    found = dict(
        zip(
            schema.names,
            to_model_inputs(machine.vector_matrix(features), close, schema)[-1],
            strict=True,
        )
    )
    value = features.row(-1, named=True)

    assert found["ema_200"] == value["ema_200"] / close[-1] - 1
    assert found["macd"] == value["macd"] / close[-1]
    assert found["volume_sma_20"] == np.log1p(value["volume_ratio"])
    assert found["obv"] == (value["obv"] - value["obv_ema"]) / value["volume_sma_20"]
    assert found["rsi_14"] == value["rsi_14"]
    assert found["is_doji"] == value["is_doji"]


def test_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="must have the shape"):
        to_model_inputs(np.zeros((3, 5)), np.ones(3), FEATURE_SCHEMAS["fs34"])
