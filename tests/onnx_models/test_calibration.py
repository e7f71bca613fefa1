import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_models.calibration import Calibration, fit_calibration, fold_into_graph

HOURS = np.arange(20_000, dtype=np.int64)


def forecasts(count=20_000, seed=4):
    return np.random.default_rng(seed).dirichlet([3.0, 4.0, 3.0], size=count)


def draw(probabilities, seed=9):
    generator = np.random.default_rng(seed)
    thresholds = probabilities.cumsum(axis=1)
    return (generator.random((len(probabilities), 1)) > thresholds).sum(axis=1).clip(0, 2)


def identity_graph(opset):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["probabilities"])],
        "identity",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def test_honest_forecasts_are_left_alone():
    true = forecasts()
    found = fit_calibration(true, draw(true), HOURS)
    assert np.abs(found.apply(true) - true).max() < 0.03


def test_overconfidence_is_undone():
    true = forecasts()
    boast = Calibration(method="x", scale=2.5).apply(true)
    found = fit_calibration(boast, draw(true), HOURS)
    assert found.scale == pytest.approx(0.4, abs=0.02)
    assert np.abs(found.apply(boast) - true).max() < 0.05


def test_a_wrong_share_of_hold_is_corrected():
    true = forecasts()
    shifted = Calibration(method="x", bias=(0.0, 0.8, 0.0)).apply(true)
    found = fit_calibration(shifted, draw(true), HOURS)
    assert found.method == "temperature_and_hold_bias"
    assert found.bias == pytest.approx((0.0, -0.8, 0.0), abs=0.05)


def test_the_drift_of_the_calibration_weeks_is_not_learnt():
    true = forecasts()
    labels = draw(Calibration(method="x", bias=(-0.5, 0.0, 0.5)).apply(true))
    sell, _, buy = fit_calibration(true, labels, HOURS).bias
    assert sell == buy == 0.0


def test_what_one_half_of_the_range_says_and_the_other_denies_is_not_learnt():
    true, late = forecasts(), np.median(HOURS) < HOURS
    more, less = (
        draw(Calibration(method="x", bias=(0.0, bias, 0.0)).apply(true)) for bias in (0.7, -0.7)
    )
    labels = np.where(late, more, less)
    assert fit_calibration(true, labels, HOURS).method == "identity"


def test_noise_in_a_few_rows_is_not_calibrated():
    true = forecasts(400)
    labels = draw(true)
    found = fit_calibration(true, labels, HOURS[:400])
    assert np.abs(found.apply(true) - true).max() < 0.1


@pytest.mark.parametrize("opset", [9, 15, 18])
@given(scale=st.floats(0.1, 5.0), bias=st.floats(-2.0, 2.0), seed=st.integers(0, 99))
def test_the_graph_answers_like_the_formula(opset, scale, bias, seed):
    calibration = Calibration(method="x", scale=scale, bias=(0.0, bias, 0.0))
    rows = forecasts(50, seed).astype(np.float32)
    rows[0] = [0.0, 1.0, 0.0]
    session = onnxruntime.InferenceSession(fold_into_graph(identity_graph(opset), calibration))
    (found,) = session.run(["probabilities"], {"input": rows})
    assert np.abs(found - calibration.apply(rows.astype(np.float64))).max() < 1e-5
    assert np.isfinite(found).all()


def test_the_graph_keeps_one_output_of_three_columns():
    model = fold_into_graph(identity_graph(15), Calibration(method="identity"))
    (output,) = onnx.load_model_from_string(model).graph.output
    assert output.name == "probabilities"
    assert output.type.tensor_type.shape.dim[1].dim_value == 3
