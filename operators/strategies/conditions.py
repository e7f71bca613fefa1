"""Which rules hold on which bars: all strategies over all columns in one go."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from operators.bar_columns import BarColumns
from operators.strategies.base import BoolArray, FloatArray, Strategy


class Conditions:
    """The conditions of several strategies, each true, false or not to be judged.

    A missing (null or not finite) input makes a condition false, and the stance unknown unless an
    exit holds. An entry without a stop strictly between 0 and the close is no entry but an unknown.
    An exit wins over an entry on the same bar. On a bar of another timeframe than the strategy's
    nothing holds and all is unknown.
    """

    def __init__(self, strategies: Sequence[Strategy[Any]]) -> None:
        self._strategies = list(strategies)
        self._names = sorted({"close"}.union(*(one.inputs for one in strategies)))

    def evaluate(self, bars: BarColumns) -> BoolArray:
        """Return (bars, strategies, 3): entry holds, exit holds, stance is unknown."""
        judged = np.zeros((bars.height, len(self._strategies), 3), dtype=np.bool_)
        if not self._strategies:
            return judged
        columns = {name: bars.floats(name) for name in self._names}
        finite = dict(zip(self._names, np.isfinite(list(columns.values())), strict=True))
        close = columns["close"]
        timeframes = bars.texts("timeframe")
        applying = {one: _equal(timeframes, one) for one in set(timeframes)}
        for i, strategy in enumerate(self._strategies):
            if strategy.timeframe not in applying:
                judged[:, i, 2] = True
                continue
            exit_known = _all(finite, strategy.exit_inputs) & applying[strategy.timeframe]
            entry_known = _all(finite, strategy.entry_inputs) & exit_known
            # What is not finite may overflow or be undefined here; it counts for nothing below.
            with np.errstate(all="ignore"):
                stop: FloatArray = strategy.stop_price(columns)
                wants_entry = entry_known & strategy.entry(columns)
                leaves = exit_known & strategy.exit(columns)
            # Comparisons with NaN are false: what must hold is asked.
            protected = (stop > 0.0) & (stop < close)
            judged[:, i, 0] = wants_entry & protected & ~leaves
            judged[:, i, 1] = leaves
            judged[:, i, 2] = ~leaves & ~(entry_known & (~wants_entry | protected))
        return judged


def _equal(timeframes: list[str], wanted: str) -> BoolArray:
    return np.fromiter((one == wanted for one in timeframes), np.bool_, len(timeframes))


def _all(finite: dict[str, BoolArray], names: Iterable[str]) -> BoolArray:
    judged: BoolArray = np.logical_and.reduce([finite[name] for name in names])
    return judged
