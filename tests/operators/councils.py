"""Councils over models that a test answers for itself, and over the shipped one."""

from functools import cache
from pathlib import Path

import numpy as np

from infra.onnx_session import OnnxSession
from operators.council import Council
from operators.model_schedule import ModelSchedule
from operators.vote import build_rule
from operators.voters import build_learners, build_served
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS
from schemas.settings import ModelSettings, VoteSettings

SHIPPED = Path(__file__).parents[2] / "onnx_models" / "artefacts" / "objects"
FS34, SQ120 = FEATURE_SCHEMAS["fs34"], SEQUENCE_SCHEMAS["sq120"]


@cache
def shipped() -> OnnxSession:
    """Return a model that reads vectors as they are recorded."""
    folders = [
        one for model in sorted(SHIPPED.glob("lightgbm*")) for one in sorted(model.iterdir())
    ]
    return OnnxSession(folders[0])


class Answering:
    """A model whose answer is arithmetic on its input, so that a test can repeat it."""

    def __init__(self, version="1", schema=FS34, lean=1.0, trusted=True, **changes) -> None:
        self.version, self.content_hash = version, f"hash of {version}"
        self.timeframe, self.horizon_bars, self.trusted = "1h", 4, trusted
        self.feature_schema_hash, self.lean = schema.schema_hash, lean
        self.seen: list[np.ndarray] = []
        for name, value in changes.items():
            setattr(self, name, value)

    def score(self, matrix):
        self.seen.append(matrix)
        flat = matrix.reshape(len(matrix), -1).astype(np.float64)
        lean = 0.2 * self.lean * np.tanh(1e3 * flat[:, -matrix.shape[-1]])
        return np.column_stack([0.3 - lean, np.full(len(matrix), 0.4), 0.3 + lean])


class Loader:
    """A registry in memory: versions by model, the newest active."""

    def __init__(self, **models) -> None:
        self.models = models

    def active_versions(self, model):
        """Return all versions, the last one active."""
        found = self.models.get(model, ())
        return tuple(one.version for one in reversed(found))

    def load(self, model, version):
        """Return the model of that version."""
        return next(one for one in self.models[model] if one.version == version)


ONNX = ModelSettings(kind="onnx")
MODELS = {
    "lightgbm": ONNX,
    "patchtst": ONNX,
    "river_logistic": ModelSettings(kind="river", learner="logistic"),
}


def build_council(models=None, loader=None, known=(), state=None, vote=None) -> Council:
    """Return a council of two served models and a learner, or of `models`."""
    chosen, rule = MODELS if models is None else models, vote or VoteSettings()
    default = {"lightgbm": [shipped()], "patchtst": [Answering(schema=SQ120)]}
    served = build_served(chosen, rule.horizon_bars)
    names = [one.model for one in served]
    loader = loader or Loader(**default)
    # What the first start wrote is in the log when the next one reads it.
    first = [one for one in ModelSchedule(0, names, loader).start() if hasattr(one, "model")]
    schedule = ModelSchedule(0, names, loader, [*first, *known])
    if state is not None:
        schedule.state = state.newest_ns
    if not known:
        assert schedule.start() == []
    learners = build_learners(chosen, build_rule(rule).label)
    council = Council(0, served, learners, schedule, rule)
    if state is not None:
        council.state = state
    return council
