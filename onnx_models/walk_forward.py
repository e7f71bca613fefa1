"""Which rows a model may learn from, and which later ones judge it.

Chronological periods, purged of rows whose label is settled inside the next period and with an
embargo behind each boundary (M. Lopez de Prado, *Advances in Financial Machine Learning*, 2018, ch.
7). The splitters at hand count rows, not time: with many symbols a row count is no time.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from onnx_models.dataset import HOUR_NS, DataSet
from schemas.features import FeatureSchema, SequenceSchema

IntArray = npt.NDArray[np.int64]

FINAL_SHARE = 0.2
"""Part of the time range that only the final evaluation sees."""
CALIBRATION_SHARE = 0.25
"""Part of what lies before a test period that stops and calibrates instead of being learnt."""
FIRST_TEST_SHARE = 0.4
"""Part of the development range before the first fold's test period."""
ROWS_MIN = 200
"""Fewest rows of a period that a fit or a measurement is made of."""


class RecordingTooShortError(ValueError):
    """A recording holds too few rows of what is to be learnt or judged; a longer one may hold them."""


class Fold(Struct, frozen=True, kw_only=True):
    """Row numbers of three periods in order of time; what lies between belongs to none."""

    name: str
    train: IntArray
    calibration: IntArray
    """Decides when a fit stops and how its scores become probabilities."""
    test: IntArray

    def sizes(self) -> dict[str, Any]:
        """Return the number of rows of each period."""
        return {name: len(getattr(self, name)) for name in ("train", "calibration", "test")}


class Plan(Struct, frozen=True, kw_only=True):
    """Every fold of the development range, and the one whose test period is touched once."""

    folds: tuple[Fold, ...]
    final: Fold


def plan_data_set(
    data: DataSet, schema: FeatureSchema | SequenceSchema, horizon_bars: int, folds: int
) -> Plan:
    """Return the plan for the rows of `data` that a model of `schema` can use.

    The embargo is one horizon. Raises `RecordingTooShortError` as `plan_walk_forward`.
    """
    rows = data.usable_rows(horizon_bars, schema)
    ends_ns = data.targets[horizon_bars].ends_ns[rows]
    return plan_walk_forward(
        rows, data.close_times_ns[rows], ends_ns, folds, horizon_bars * HOUR_NS
    )


def plan_walk_forward(
    rows: IntArray, times_ns: IntArray, ends_ns: IntArray, folds: int, embargo_ns: int
) -> Plan:
    """Return `folds` folds of growing training periods, then the final one.

    `rows` are numbers of rows, `times_ns` and `ends_ns` when each is known and its label settled.
    Raises `RecordingTooShortError` if a period has fewer than `ROWS_MIN` rows.
    """
    if len(rows) < ROWS_MIN:
        msg = f"data must have at least {ROWS_MIN} rows; found {len(rows)}; give a longer recording"
        raise RecordingTooShortError(msg)
    first, last = int(times_ns.min()), int(times_ns.max()) + 1
    final_start = first + int((last - first) * (1.0 - FINAL_SHARE))
    development = final_start - first
    edges = [
        first + int(development * (FIRST_TEST_SHARE + (1.0 - FIRST_TEST_SHARE) * i / max(folds, 1)))
        for i in range(folds + 1)
    ]
    spans = [(f"fold_{i + 1}", edges[i], edges[i + 1]) for i in range(folds)]
    cut = [
        _cut(name, rows, times_ns, ends_ns, (first, start, end), embargo_ns)
        for name, start, end in [*spans, ("final", final_start, last)]
    ]
    return Plan(folds=tuple(cut[:-1]), final=cut[-1])


def _cut(
    name: str,
    rows: IntArray,
    times_ns: IntArray,
    ends_ns: IntArray,
    span: tuple[int, int, int],
    embargo_ns: int,
) -> Fold:
    first, start, end = span
    turn = first + int((start - first) * (1.0 - CALIBRATION_SHARE))
    fold = Fold(
        name=name,
        train=rows[ends_ns < turn],
        calibration=rows[(times_ns >= turn + embargo_ns) & (ends_ns < start)],
        test=rows[(times_ns >= start + embargo_ns) & (times_ns < end)],
    )
    for period, count in fold.sizes().items():
        if count < ROWS_MIN:
            msg = (
                f"{period} period of {name} must have at least {ROWS_MIN} rows; found {count}; give "
                f"a longer recording or fewer folds"
            )
            raise RecordingTooShortError(msg)
    return fold
