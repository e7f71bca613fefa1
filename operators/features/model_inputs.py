"""Vectors in a form that a model can carry from one instrument and price level to another."""

import numpy as np

from operators.features.kernel import FloatArray
from schemas.features import FeatureKind, FeatureSchema

_NEEDED = ("volume_sma_20", "volume_ratio", "obv", "obv_ema")


def to_model_inputs(matrix: FloatArray, close: FloatArray, schema: FeatureSchema) -> FloatArray:
    """Return the scale-free view of feature vectors, float32-ready (finite or NaN).

    `matrix` (rows, features of `schema`) and `close` (rows,) > 0 of the same bars; returns a new
    (rows, features) float64 matrix in the same order. By kind of the feature:

    - level: `value / close - 1`; difference: `value / close`;
    - volume: `volume_sma_20` becomes `ln(1 + volume_ratio)`; `obv` becomes
      `(obv - obv_ema) / volume_sma_20`; `obv_ema` and `vpt` become NaN. The latter are totals since
      the first bar of the log: in any scale they tell when the log began, so that a model trained on
      months and served after a short prefill would read another number for the same market;
    - ratio, bounded, flag, external: as they are.

    Each row is a function of its own row alone, so nothing looks ahead. Missing stays NaN. Raises
    `ValueError` if the shapes disagree.
    """
    if matrix.shape != (len(close), len(schema)):
        msg = (
            f"matrix of schema {schema.name!r} must have the shape {(len(close), len(schema))!r}; "
            f"found {matrix.shape!r}; pass vectors and closes of the same bars"
        )
        raise ValueError(msg)
    inputs = matrix.copy()
    for i, feature in enumerate(schema.features):
        if feature.kind is FeatureKind.LEVEL:
            inputs[:, i] = matrix[:, i] / close - 1.0
        elif feature.kind is FeatureKind.DIFFERENCE:
            inputs[:, i] = matrix[:, i] / close
        elif feature.kind is FeatureKind.VOLUME:
            inputs[:, i] = _scale_volume(feature.name, matrix, schema.names)
    return inputs


def _scale_volume(name: str, matrix: FloatArray, names: tuple[str, ...]) -> FloatArray:
    columns = {one: matrix[:, names.index(one)] for one in _NEEDED if one in names}
    if name == "volume_sma_20":
        return np.log1p(columns["volume_ratio"])
    if name == "obv":
        average = columns["volume_sma_20"]
        divisor = np.where(average > 0.0, average, np.nan)
        return (columns["obv"] - columns["obv_ema"]) / divisor
    return np.full(len(matrix), np.nan)
