"""What River's own objects say of one event, step by step."""

from typing import Any

from operators.voters.river_softmax import CONSTANT, INTERCEPT, SCALED_MAX, ScaledSoftmax


def ask_river(model: Any, sample: dict[str, float]) -> list[float]:
    """Return the probability of each of the three labels, 0 for one never seen."""
    if isinstance(model, ScaledSoftmax):
        scaled = model.scaler.transform_one(sample)
        scaled = {name: min(max(value, -SCALED_MAX), SCALED_MAX) for name, value in scaled.items()}
        said = model.model.predict_proba_one(scaled | {CONSTANT: INTERCEPT})
    else:
        said = model.predict_proba_one(sample)
    return [said.get(label, 0.0) for label in range(3)]
