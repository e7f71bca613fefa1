"""How often regimes were called right, and by how much one caller was better than the rule.

Intervals as in `onnx_models.evaluation`: blocks of time over all symbols, drawn with replacement,
the same draws for both callers, so that their difference has an interval of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from onnx_models.evaluation import BLOCK_HOURS, INTERVAL, RESAMPLES, SEED
from schemas.regime import REGIMES

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RULE = "rule"
COMPARED = ("accuracy", "balanced_accuracy", "gain")
"""Measures whose difference to the rule has an interval; more is better for each."""

_HOUR_NS = 3_600_000_000_000
_CLASS_COUNT = len(REGIMES)
_PROBABILITY_MIN = 1e-7


class Caller(Struct, frozen=True, kw_only=True):
    """What one caller said of the rows of a period."""

    codes: IntArray
    probabilities: FloatArray
    """(rows, 5)"""


class RegimePeriod(Struct, frozen=True, kw_only=True):
    """Callers on the same rows, and what came after these."""

    labels: IntArray
    times_ns: IntArray
    prior: FloatArray
    """(5,) class shares of what was known before the period."""
    callers: dict[str, Caller]
    """By name, `RULE` among them."""


def score_callers(parts: Sequence[RegimePeriod]) -> dict[str, dict[str, Any]]:
    """Return every caller's measures over one or more periods, as plain values, by name.

    Each has `measures` (`value` and `interval_95`: accuracy, balanced accuracy as the mean recall of
    the classes that occur, log-loss in nats, gain on the class prior in nats, precision, recall and
    F1 per class), `less_rule` (the difference to the rule of `COMPARED`), `said` and `came` (class
    shares) and `confusion` (rows by what was said, columns by what came).
    """
    names = list(parts[0].callers)
    blocks = {name: np.concatenate([_sum_blocks(part, name) for part in parts]) for name in names}
    count = len(blocks[RULE])
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    whole = {name: _measure(blocks[name].sum(axis=0)[None, :]) for name in names}
    resampled = {name: _measure(drawn @ blocks[name]) for name in names}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        cells = blocks[name].sum(axis=0)[2:].reshape(_CLASS_COUNT, _CLASS_COUNT)
        found[name] = {
            "rows": int(cells.sum()),
            "blocks": count,
            "measures": {
                key: _with_interval(value[0], resampled[name][key])
                for key, value in whole[name].items()
            },
            "less_rule": {
                key: _with_interval(
                    whole[name][key][0] - whole[RULE][key][0],
                    resampled[name][key] - resampled[RULE][key],
                )
                for key in COMPARED
            },
            "said": _shares(cells.sum(axis=1)),
            "came": _shares(cells.sum(axis=0)),
            "confusion": cells.astype(np.int64).tolist(),
        }
    return found


def is_better(scored: Mapping[str, Any]) -> bool:
    """Return whether a caller was right more often than the rule, over all rows and per class.

    Both, because always naming the commonest regime is often right and tells nothing.
    """
    differences = [scored["less_rule"][key] for key in ("accuracy", "balanced_accuracy")]
    return all(one["interval_95"][0] > 0.0 for one in differences)


def _sum_blocks(part: RegimePeriod, name: str) -> FloatArray:
    """Return (blocks, 2 + 25): log-loss, log-loss of the prior, cells of the confusion matrix."""
    caller, labels = part.callers[name], part.labels
    said = np.maximum(caller.probabilities[np.arange(len(labels)), labels], _PROBABILITY_MIN)
    cells = np.eye(_CLASS_COUNT**2)[caller.codes * _CLASS_COUNT + labels]
    columns = np.column_stack([-np.log(said), -np.log(part.prior[labels]), cells])
    _, block = np.unique(
        (part.times_ns - part.times_ns.min()) // (BLOCK_HOURS * _HOUR_NS), return_inverse=True
    )
    sums = np.zeros((int(block.max()) + 1, columns.shape[1]))
    np.add.at(sums, block, columns)
    return sums


def _measure(sums: FloatArray) -> dict[str, FloatArray]:
    """Return every measure for each row of sums."""
    cells = sums[:, 2:].reshape(-1, _CLASS_COUNT, _CLASS_COUNT)
    rows = cells.sum(axis=(1, 2))
    hits = np.einsum("nii->ni", cells)
    said, came = cells.sum(axis=2), cells.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = hits / came, hits / said
        harmonic = 2.0 * hits / (said + came)
    found = {
        "accuracy": hits.sum(axis=1) / rows,
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "log_loss": sums[:, 0] / rows,
        "gain": (sums[:, 1] - sums[:, 0]) / rows,
    }
    for code, regime in enumerate(REGIMES):
        found[f"precision_{regime}"] = precision[:, code]
        found[f"recall_{regime}"] = recall[:, code]
        found[f"f1_{regime}"] = harmonic[:, code]
    return found


def _with_interval(value: Any, resampled: FloatArray) -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "interval_95": None}
    low, high = np.quantile(resampled[np.isfinite(resampled)], INTERVAL)
    return {"value": float(value), "interval_95": [float(low), float(high)]}


def _shares(counts: FloatArray) -> dict[str, float]:
    return {
        regime.value: float(count / counts.sum())
        for regime, count in zip(REGIMES, counts, strict=True)
    }
