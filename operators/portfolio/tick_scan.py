"""Compiled search for the first tick at which a leg's working orders can act."""

import numpy as np
import numpy.typing as npt
from numba import njit

Units = npt.NDArray[np.int64]

NEVER_NS = int(np.iinfo(np.int64).max)
"""An activation time that no tick passes, and a target that no price passes."""


@njit(cache=True)
def find_event(  # type: ignore[no-untyped-def]  # noqa: ANN201
    times: Units,
    prices: Units,
    sizes: Units,
    start: int,
    size_min: int,
    market_after_ns: int,
    stop_after_ns: int,
    stop_units: int,
    trail_units: int,
    best_units: int,
    target_after_ns: int,
    target_units: int,
):
    """Return the index of the first tick from `start` on that an order reacts to, or -1.

    A market order needs a tick later than `market_after_ns` with a size of at least `size_min`; a
    stop one later than `stop_after_ns` at or below `max(stop_units, best - trail_units)`, where the
    best price grows tick by tick; a target one above `target_units`. All prices are in units.
    """
    best = best_units
    for index in range(start, times.shape[0]):
        time = times[index]
        price = prices[index]
        if time > market_after_ns and sizes[index] >= size_min:
            return index
        if time > stop_after_ns:
            level = stop_units
            if trail_units > 0:
                level = max(level, best - trail_units)
            if price <= level:
                return index
        if price > target_units and time > target_after_ns and sizes[index] >= size_min:
            return index
        best = max(best, price)
    return -1
