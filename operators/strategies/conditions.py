"""Which rules hold on which bars: all strategies over a whole frame in one select."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.strategies.base import Strategy

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Conditions:
    """The conditions of several strategies, each true, false or not to be judged.

    A missing (null or not finite) input makes a condition false, and the stance unknown unless an
    exit holds. An entry without a stop strictly between 0 and the close is no entry but an unknown.
    An exit wins over an entry on the same bar. On a bar of another timeframe than the strategy's
    nothing holds and all is unknown.
    """

    def __init__(self, strategies: Sequence[Strategy[Any]]) -> None:
        self._timeframes = [strategy.timeframe for strategy in strategies]
        self._inputs = [(one.entry_inputs, one.exit_inputs) for one in strategies]
        self._names = sorted({"close"}.union(*(one.inputs for one in strategies)))
        self._expressions = [
            expression.alias(f"{i}/{name}")
            for i, one in enumerate(strategies)
            for name, expression in (
                ("entry", one.entry()),
                ("exit", one.exit()),
                ("stop", one.stop_price()),
            )
        ]

    def evaluate(self, bars: pl.DataFrame) -> BoolArray:
        """Return (bars, strategies, 3): entry holds, exit holds, stance is unknown."""
        judged = np.zeros((bars.height, len(self._timeframes), 3), dtype=np.bool_)
        if not self._timeframes:
            return judged
        raw = bars.select(self._expressions)
        timeframes = bars["timeframe"].to_numpy()
        # Polars orders NaN above every number, so `NaN > 65` is true there: that the inputs are
        # numbers has to be asked, a comparison alone does not fail closed. It is asked in numpy,
        # because twenty times `is_finite` in the select made one call cost 3 ms instead of 0.15.
        finite = {name: np.isfinite(_to_floats(bars[name])) for name in self._names}
        close = _to_floats(bars["close"])
        for i, (entry_inputs, exit_inputs) in enumerate(self._inputs):
            applies = timeframes == self._timeframes[i]
            exit_known = _all(finite, exit_inputs) & applies
            entry_known = _all(finite, entry_inputs) & exit_known
            stop = _to_floats(raw[f"{i}/stop"])
            wants_entry = entry_known & _to_booleans(raw[f"{i}/entry"])
            leaves = exit_known & _to_booleans(raw[f"{i}/exit"])
            # Comparisons with NaN are false in numpy: what must hold is asked.
            protected = (stop > 0.0) & (stop < close)
            judged[:, i, 0] = wants_entry & protected & ~leaves
            judged[:, i, 1] = leaves
            judged[:, i, 2] = ~leaves & ~(entry_known & (~wants_entry | protected))
        return judged


def _all(finite: dict[str, BoolArray], names: tuple[str, ...]) -> BoolArray:
    judged: BoolArray = np.logical_and.reduce([finite[name] for name in names])
    return judged


def _to_floats(column: pl.Series) -> FloatArray:
    return column.cast(pl.Float64).to_numpy()


def _to_booleans(column: pl.Series) -> BoolArray:
    return (column.fill_null(value=False) if column.null_count() else column).to_numpy()
