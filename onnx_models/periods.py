"""Forecasts for the rows of a period, of models and of baselines, ready to be judged."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from msgspec import Struct

from onnx_models.baselines import Baseline, class_shares, fit_baselines
from onnx_models.dataset import DataSet, InputReader
from onnx_models.evaluation import Judged, Outcomes, Yardstick, fit_yardstick
from onnx_models.families import Float32Array, FloatArray, IntArray

BATCH_ROWS = 4096


def read_outcomes(data: DataSet, horizon_bars: int, rows: IntArray) -> Outcomes:
    """Return what became of `rows`."""
    target = data.targets[horizon_bars]
    return Outcomes(
        labels=target.labels[rows],
        returns=target.returns[rows],
        volatility=data.volatility[rows],
        times_ns=data.close_times_ns[rows],
    )


def answer_rows(
    reader: InputReader, rows: IntArray, answer: Callable[[Float32Array], FloatArray]
) -> FloatArray:
    """Return the answers for `rows`, asked in batches: windows of all rows would fill the memory."""
    batches = [rows[first : first + BATCH_ROWS] for first in range(0, len(rows), BATCH_ROWS)]
    return np.concatenate([answer(reader.take(batch)) for batch in batches])


def fix_yardstick(
    data: DataSet, horizon_bars: int, train: IntArray, calibration: IntArray, answers: FloatArray
) -> Yardstick:
    """Return the yardstick of a period from the rows before it.

    `answers` are the calibrated probabilities of the calibration rows; the prior counts both.
    """
    target = data.targets[horizon_bars]
    prior = class_shares(target.labels[np.concatenate([train, calibration])])
    outcomes = read_outcomes(data, horizon_bars, calibration)
    return fit_yardstick(answers, outcomes, prior, target.labelling.cost_bps, horizon_bars)


class FixedBaseline(Struct, frozen=True, kw_only=True):
    """A baseline with its own yardstick, both fixed before the rows it is judged on."""

    baseline: Baseline
    yardstick: Yardstick

    def judge(self, data: DataSet, rows: IntArray) -> Judged:
        """Return its forecasts for `rows`, to be judged as those of a model."""
        return Judged(
            probabilities=self.baseline.answer(data, rows),
            outcomes=read_outcomes(data, self.yardstick.horizon_bars, rows),
            yardstick=self.yardstick,
        )


class BaselineBench:
    """The baselines of any period; fitted once however many models are compared with them."""

    def __init__(self) -> None:
        self._fitted: dict[tuple[str, int, str], dict[str, FixedBaseline]] = {}

    def fit(
        self, data: DataSet, horizon_bars: int, train: IntArray, calibration: IntArray
    ) -> dict[str, FixedBaseline]:
        """Return every baseline by name, fitted on both periods: it has nothing to stop."""
        known = np.concatenate([train, calibration])
        rows_hash = sha256(known.tobytes()).hexdigest()
        key = (data.manifest.content_hash, horizon_bars, rows_hash)
        if key not in self._fitted:
            self._fitted[key] = {
                name: FixedBaseline(
                    baseline=baseline,
                    yardstick=fix_yardstick(
                        data, horizon_bars, train, calibration, baseline.answer(data, calibration)
                    ),
                )
                for name, baseline in fit_baselines(data, horizon_bars, known).items()
            }
        return self._fitted[key]
