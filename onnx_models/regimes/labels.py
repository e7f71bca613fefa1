"""What regime each bar stood before, told from the bars that followed alone.

The predecessor's labels were its rule's own calls, so that a model scored by repeating its inputs.
Here a label reads bars after the row, and compares them with what had been usual before the first
bar that any input of the row reads. Nothing of the row's own time is in it.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from operators.regime import WARM_UP_BARS
from schemas.regime import REGIMES, Regime

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

UNKNOWN = -1
"""Label of a bar whose future, or whose past, is not long enough."""

_SERIES = ("venue", "symbol")
_CODES = {regime: code for code, regime in enumerate(REGIMES)}


class RegimeLabelling(Struct, frozen=True, kw_only=True):
    """Five classes from realised volatility and trend of the next bars."""

    horizon_bars: int = 24
    usual_bars: int = 336
    """Bars whose mean |return| is what is usual: fourteen days."""
    gap_bars: int = WARM_UP_BARS
    """Bars up to the row that no label reads: every window of the inputs lies within."""
    crisis_ratio: float = 2.0
    high_ratio: float = 1.5
    choppy_ratio: float = 1.2
    trend_deviations: float = 1.0

    @property
    def definition(self) -> str:
        """The label in words."""
        n = self.horizon_bars
        return (
            f"over the next {n} bars, from the open of the first: activity = mean |log return| over "
            f"that of the {self.usual_bars} bars that end {self.gap_bars} bars before the row; trend "
            f"= ln(close[+{n}] / open[+1]) / sqrt(sum of squared log returns); activity > "
            f"{self.crisis_ratio:g} crisis, else > {self.high_ratio:g} high_vol_choppy, else trend > "
            f"{self.trend_deviations:g} bull_trending, < -{self.trend_deviations:g} bear_trending, "
            f"else activity > {self.choppy_ratio:g} high_vol_choppy, else low_vol_range"
        )


class RegimeTarget(Struct, frozen=True, kw_only=True):
    """What came after each bar."""

    labels: IntArray
    """(bars,) place in `REGIMES`, `UNKNOWN` where it cannot be told."""
    ends_ns: IntArray
    """(bars,) close of the last bar that the label reads; 0 where unknown."""


def label_regimes(bars: pl.DataFrame, labelling: RegimeLabelling) -> RegimeTarget:
    """Return what came after each bar.

    `bars` has `venue`, `symbol`, `close_time_ns`, `open` and `close`, each series in time order.
    Where a bar is missing the next one counts, and the label's end says so.
    """
    labels = np.full(bars.height, UNKNOWN, dtype=np.int64)
    ends_ns = np.zeros(bars.height, dtype=np.int64)
    numbered = bars.select(*_SERIES, "close_time_ns", "open", "close").with_row_index("row")
    for _, part in numbered.group_by(_SERIES, maintain_order=True):
        rows = part["row"].to_numpy()
        activity, trend = measure_future(
            part["open"].to_numpy(), part["close"].to_numpy(), labelling
        )
        found = classify(activity, trend, labelling)
        known = np.flatnonzero(found != UNKNOWN)
        labels[rows] = found
        ends_ns[rows[known]] = part["close_time_ns"].to_numpy()[known + labelling.horizon_bars]
    return RegimeTarget(labels=labels, ends_ns=ends_ns)


def measure_future(
    opens: FloatArray, closes: FloatArray, labelling: RegimeLabelling
) -> tuple[FloatArray, FloatArray]:
    """Return activity and trend of each bar of one series, NaN where a window is not whole."""
    n, usual_bars, count = labelling.horizon_bars, labelling.usual_bars, len(closes)
    activity, trend = np.full(count, np.nan), np.full(count, np.nan)
    rows = np.arange(labelling.gap_bars + usual_bars, count - n)
    if not len(rows):
        return activity, trend
    logs, first = np.log(closes), np.log(closes) - np.log(opens)
    returns = np.diff(logs, prepend=np.nan)
    # Each window is summed afresh: differences of running totals would carry other bars' rounding.
    rest = np.lib.stride_tricks.sliding_window_view(returns, n - 1)[rows + 2]
    before = np.lib.stride_tricks.sliding_window_view(returns, usual_bars)
    usual = np.abs(before[rows - labelling.gap_bars - usual_bars + 1]).mean(axis=1)
    moved = (np.abs(first[rows + 1]) + np.abs(rest).sum(axis=1)) / n
    noise = np.sqrt(first[rows + 1] ** 2 + (rest**2).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        activity[rows] = np.where(usual > 0.0, moved / usual, np.nan)
        net = logs[rows + n] - np.log(opens[rows + 1])
        trend[rows] = np.where(noise > 0.0, net / noise, 0.0)
    return activity, trend


def classify(activity: FloatArray, trend: FloatArray, labelling: RegimeLabelling) -> IntArray:
    """Return the place in `REGIMES` of each row, `UNKNOWN` where a number is missing."""
    return np.asarray(
        np.select(
            [
                ~(np.isfinite(activity) & np.isfinite(trend)),
                activity > labelling.crisis_ratio,
                activity > labelling.high_ratio,
                trend > labelling.trend_deviations,
                trend < -labelling.trend_deviations,
                activity > labelling.choppy_ratio,
            ],
            [
                UNKNOWN,
                _CODES[Regime.CRISIS],
                _CODES[Regime.HIGH_VOL_CHOPPY],
                _CODES[Regime.BULL_TRENDING],
                _CODES[Regime.BEAR_TRENDING],
                _CODES[Regime.HIGH_VOL_CHOPPY],
            ],
            default=_CODES[Regime.LOW_VOL_RANGE],
        ),
        dtype=np.int64,
    )
