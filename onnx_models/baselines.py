"""What anybody could say without a model: the forecasts that a model has to beat."""

import numpy as np
from msgspec import Struct

from onnx_models.dataset import DataSet
from onnx_models.families import Float32Array, FloatArray, IntArray

CLASS_COUNT = 3
CLIP_DEVIATIONS = 5.0
"""Standardised inputs of the regression are cut here: one crash must not be the model."""


class ClassPrior(Struct, frozen=True, kw_only=True, tag="class_prior"):
    """Always the class shares of what was known."""

    shares: list[float]

    def answer(self, data: DataSet, rows: IntArray) -> FloatArray:
        """Return (len(rows), 3) probabilities."""
        del data
        return np.tile(np.array(self.shares), (len(rows), 1))


class LastSign(Struct, frozen=True, kw_only=True, tag="last_sign"):
    """The class shares that followed a bar that fell, stood still or rose, as the last one did."""

    shares: list[list[float]]

    def answer(self, data: DataSet, rows: IntArray) -> FloatArray:
        """Return (len(rows), 3) probabilities."""
        return np.array(self.shares)[_last_signs(data, rows) + 1]


class LogisticRegression(Struct, frozen=True, kw_only=True, tag="logistic_regression"):
    """Multinomial logistic regression on the standardised inputs of the bar."""

    means: list[float]
    deviations: list[float]
    weights: list[list[float]]
    """(classes, features)"""
    biases: list[float]

    def answer(self, data: DataSet, rows: IntArray) -> FloatArray:
        """Return (len(rows), 3) probabilities."""
        standard = standardise(data.inputs[rows], self.means, self.deviations)
        logits = standard @ np.array(self.weights).T
        logits += np.array(self.biases)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


Baseline = ClassPrior | LastSign | LogisticRegression
"""Plain values, so that a card can carry what its model was compared with."""


def class_shares(labels: IntArray) -> FloatArray:
    """Return the (3,) shares of the classes, with one more row of each so that none is zero."""
    counts = np.bincount(labels, minlength=CLASS_COUNT) + 1.0
    return np.asarray(counts / counts.sum())


def fit_baselines(data: DataSet, horizon_bars: int, known: IntArray) -> dict[str, Baseline]:
    """Return every baseline fitted on the `known` rows, by the name it has in tables."""
    labels = data.targets[horizon_bars].labels[known]
    signs = _last_signs(data, known)
    return {
        "class_prior": ClassPrior(shares=class_shares(labels).tolist()),
        "last_sign": LastSign(
            shares=[class_shares(labels[signs == sign]).tolist() for sign in (-1, 0, 1)]
        ),
        "logistic_regression": _fit_logistic(data.inputs[known].astype(np.float64), labels),
    }


def standardise(
    inputs: Float32Array | FloatArray, means: list[float], deviations: list[float]
) -> FloatArray:
    """Return `inputs` in deviations from the mean, cut at `CLIP_DEVIATIONS`."""
    standard = (inputs.astype(np.float64) - np.array(means)) / np.array(deviations)
    return np.asarray(np.clip(standard, -CLIP_DEVIATIONS, CLIP_DEVIATIONS))


def _fit_logistic(inputs: FloatArray, labels: IntArray) -> LogisticRegression:
    from sklearn import linear_model  # noqa: PLC0415  # scoring needs no trainer

    spread = inputs.std(axis=0)
    means = inputs.mean(axis=0).tolist()
    deviations = np.where(spread > 0.0, spread, 1.0).tolist()
    fitted = linear_model.LogisticRegression(max_iter=500)
    fitted.fit(standardise(inputs, means, deviations), labels)
    if len(fitted.classes_) != CLASS_COUNT:
        msg = (
            f"rows to learn from must have all three classes; found {fitted.classes_.tolist()!r}; "
            f"give a longer recording"
        )
        raise ValueError(msg)
    return LogisticRegression(
        means=means,
        deviations=deviations,
        weights=fitted.coef_.tolist(),
        biases=fitted.intercept_.tolist(),
    )


def _last_signs(data: DataSet, rows: IntArray) -> IntArray:
    returns = data.inputs[rows, data.schema.names.index("returns")]
    return np.asarray(np.sign(returns), dtype=np.int64)
