"""Which inputs a served model leans on, measured on rows it never saw."""

from typing import Any

import numpy as np

from infra.onnx_session import OnnxSession
from onnx_models.families import Float32Array, IntArray

ROWS_MAX = 4_000
TOP = 10
SEED = 7


def rank_inputs(
    session: OnnxSession, inputs: Float32Array, labels: IntArray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the `TOP` inputs by the log-loss (nats) that is lost when their rows are mixed up.

    L. Breiman, *Random Forests* (2001), section 10. `inputs` (rows, ..., features): of windows a
    whole channel is exchanged at once. Inputs that say the same share what they are worth.
    """
    chosen = np.linspace(0, len(inputs) - 1, min(len(inputs), ROWS_MAX)).astype(np.int64)
    rows, came = inputs[chosen], labels[chosen]
    mixed = np.random.default_rng(SEED).permutation(len(rows))
    base = _loss(session, rows, came)
    found = []
    for i, name in enumerate(names):
        changed = rows.copy()
        changed[..., i] = rows[mixed][..., i]
        found.append({"input": name, "log_loss_lost": _loss(session, changed, came) - base})
    return sorted(found, key=lambda one: -float(str(one["log_loss_lost"])))[:TOP]


def _loss(session: OnnxSession, inputs: Float32Array, labels: IntArray) -> float:
    answer = session.score(inputs)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(answer, 1e-15)).mean())
