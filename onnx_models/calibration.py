"""Scores become probabilities that mean what they say, inside the graph that is served.

Temperature scaling (C. Guo et al., *On Calibration of Modern Neural Networks*, 2017) and its version
with a bias (A. Alexandari et al., *Maximum Likelihood with Bias-Corrected Calibration*, 2020):
softmax(scale * log(p) + bias). Only hold has a bias: one between sell and buy would carry the drift of
the calibration weeks into every later answer. Which method is used is decided inside the range.
"""

from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import minimize

from onnx_models.families import FloatArray, IntArray
from onnx_models.labels import HOLD

PROBABILITY_MIN = 1e-7
"""Smaller probabilities are raised to it before the logarithm."""
OPSET_OF_TREES = 15
"""Operator set of the calibration behind a graph that has none of its own."""
_OUTPUT = "probabilities"


class Calibration(Struct, frozen=True, kw_only=True):
    """softmax(scale * log(p) + bias)."""

    method: str
    scale: float = 1.0
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return the calibrated (rows, 3) probabilities."""
        return _softmax(self._logits(probabilities))

    def _logits(self, probabilities: FloatArray) -> FloatArray:
        return np.asarray(self.scale * _logarithms(probabilities) + np.array(self.bias))


def fit_calibration(probabilities: FloatArray, labels: IntArray, times_ns: IntArray) -> Calibration:
    """Return the calibration that served best over halves of the calibration range.

    Each method is fitted on one half in time and judged on the other, both ways; the best by
    log-loss is then fitted on all rows. Identity is one of them, so that noise is not calibrated.
    """
    late = times_ns > np.median(times_ns)
    halves = [(~late, late), (late, ~late)] if late.any() and not late.all() else []
    found: dict[str, float] = {}
    for method in METHODS:
        losses = [
            _loss(_fit(method, probabilities[a], labels[a]), probabilities[b], labels[b])
            for a, b in halves
        ]
        found[method] = float(np.mean(losses)) if losses else 0.0
    best = min(METHODS, key=lambda method: found[method])
    return _fit(best, probabilities, labels)


METHODS = ("identity", "temperature", "temperature_and_hold_bias")
"""From the plainest to the richest; of equals the plainest is taken."""


def _fit(method: str, probabilities: FloatArray, labels: IntArray) -> Calibration:
    """Return the maximum likelihood parameters: log of the scale and, if any, the bias of hold."""
    if method == "identity":
        return Calibration(method=method)
    logs, hits = _logarithms(probabilities), np.eye(3)[labels]
    count = 2 if method == "temperature_and_hold_bias" else 1

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        scale = np.exp(parameters[0])
        answer = _softmax(scale * logs + _bias(parameters))
        error = (answer - hits) / len(labels)
        value = -np.log(np.maximum((answer * hits).sum(axis=1), PROBABILITY_MIN)).mean()
        slope = np.array([scale * (error * logs).sum(), error[:, HOLD].sum()])
        return float(value), slope[:count]

    fitted = minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B").x
    sell, hold, buy = (float(one) for one in _bias(fitted))
    return Calibration(method=method, scale=float(np.exp(fitted[0])), bias=(sell, hold, buy))


def _bias(parameters: FloatArray) -> FloatArray:
    bias = np.zeros(3)
    bias[HOLD] = parameters[1] if len(parameters) > 1 else 0.0
    return bias


def fold_into_graph(model: bytes, calibration: Calibration) -> bytes:
    """Return `model` with the calibration behind its `probabilities`, under the same name."""
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == _OUTPUT:
                    names[i] = "uncalibrated"
    constants: dict[str, Any] = {
        "calibration_min": PROBABILITY_MIN,
        "calibration_scale": calibration.scale,
        "calibration_bias": calibration.bias,
    }
    if not any(one.domain == "" for one in proto.opset_import):
        # Trees alone need none of the common operators.
        proto.opset_import.append(helper.make_opsetid("", OPSET_OF_TREES))
    imports = sorted(proto.opset_import, key=lambda one: one.domain)
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, dtype=np.float32), name)
        for name, value in constants.items()
    )
    graph.node.extend(
        [
            # Not Clip: it is written differently before and after operator set 11.
            helper.make_node("Max", ["uncalibrated", "calibration_min"], ["raised"]),
            helper.make_node("Log", ["raised"], ["logarithms"]),
            helper.make_node("Mul", ["logarithms", "calibration_scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "calibration_bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [_OUTPUT], axis=1),
        ]
    )
    rows = next(one for one in graph.output if one.name == _OUTPUT).type.tensor_type.shape.dim[0]
    shape: list[str | None] = [rows.dim_param or None, 3]  # type: ignore[list-item]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, shape))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _logarithms(probabilities: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(probabilities, PROBABILITY_MIN)))


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _loss(calibration: Calibration, probabilities: FloatArray, labels: IntArray) -> float:
    answer = calibration.apply(probabilities)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(answer, PROBABILITY_MIN)).mean())
