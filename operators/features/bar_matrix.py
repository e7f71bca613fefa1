"""From columns of bars to the checked arrays that the kernel reads.

Nothing that is not a finite, plausible bar may enter a recursion: one NaN would stay in an average
for ever. So a batch with a bad bar is refused whole, before any state has moved.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from operators.bar_columns import BarColumns
from operators.features.kernel import Bar, FloatArray, IntArray

PRICE_MIN, PRICE_MAX = 1e-12, 1e15
"""Prices outside are refused, so that no quotient or square of prices leaves float64."""

VOLUME_MAX = 1e24
"""A larger volume of one bar is refused, for the same reason."""

SIDE_TOLERANCE = 1e-9
"""How far, as a fraction, `buy_volume` may exceed `volume`: they are sums in different orders."""

BEFORE_ALL_TIME_NS = np.iinfo(np.int64).min
"""Time of the last bar of a series that has none."""

_PRICES = ("open", "high", "low", "close")
_REQUIRED = ("venue", "symbol", "timeframe", "close_time_ns", *_PRICES, "volume")
_NUMBERS = {
    column: "spread_bps_mean" if column is Bar.SPREAD_BPS else column.name.lower() for column in Bar
}


def read_bars(bars: BarColumns) -> FloatArray:
    """Return the (bars, 7 of `Bar`) matrix; a null or absent optional column is NaN.

    Raises `ValueError` if a column is missing, or naming the first bar whose prices are not finite
    and within bounds, whose high and low do not enclose open and close, or whose volume, buy volume
    or spread is negative or not finite.
    """
    absent = [name for name in _REQUIRED if name not in bars]
    if absent:
        msg = f"bars must have the columns {', '.join(_REQUIRED)}; found none named {absent!r}"
        raise ValueError(msg)
    matrix = np.full((bars.height, len(Bar)), np.nan)
    for column, name in _NUMBERS.items():
        if name in bars:
            matrix[:, column] = bars.floats(name)
    _refuse(bars, matrix, ~_plausible(matrix))
    return matrix


@njit(cache=True)
def move_times(series: IntArray, times: IntArray, last_time: IntArray) -> int:
    """Set `last_time` (series,) to the latest of `times` (bars,) as `series` (bars,) tells.

    Returns the first bar that is not later than its series' last one, -1 if there is none.
    """
    for i in range(times.shape[0]):
        if times[i] <= last_time[series[i]]:
            return i
        last_time[series[i]] = times[i]
    return -1


def _plausible(matrix: FloatArray) -> npt.NDArray[np.bool_]:
    prices = matrix[:, Bar.OPEN : Bar.VOLUME]
    volume, buy_volume = matrix[:, Bar.VOLUME], matrix[:, Bar.BUY_VOLUME]
    spread_bps = matrix[:, Bar.SPREAD_BPS]
    # Comparisons with NaN are false, so what must hold is asked, never what must not.
    bounded = ((prices >= PRICE_MIN) & (prices <= PRICE_MAX)).all(axis=1)
    enclosed = (prices.max(axis=1) == matrix[:, Bar.HIGH]) & (
        prices.min(axis=1) == matrix[:, Bar.LOW]
    )
    measured = (volume >= 0) & (volume <= VOLUME_MAX)
    sided = (buy_volume >= 0) & (buy_volume <= volume * (1 + SIDE_TOLERANCE))
    spread = (spread_bps >= 0) & (spread_bps < np.inf)
    plausible: npt.NDArray[np.bool_] = (
        bounded
        & enclosed
        & measured
        & (sided | np.isnan(buy_volume))
        & (spread | np.isnan(spread_bps))
    )
    return plausible


def _refuse(bars: BarColumns, matrix: FloatArray, bad: npt.NDArray[np.bool_]) -> None:
    if not bad.any():
        return
    row = int(bad.argmax())
    shown = {name: float(matrix[row, at]) for at, name in _NUMBERS.items() if name in bars}
    msg = (
        f"bar of {'/'.join(map(str, bars.keys()[row]))} at {int(bars.integers('close_time_ns')[row])!r} must "
        f"have finite positive prices within low and high, and volumes and a spread of at least 0; "
        f"found {shown!r}; correct the source of the bar"
    )
    raise ValueError(msg)
