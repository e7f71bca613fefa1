"""Features of a series of bars by the formulas of `schemas.features`, in plain numpy and polars.

Each function takes the series and the rows that are asked for, and returns one number a row, NaN where
the feature must be missing. Means over windows are taken window by window; what has a memory of its
own (`ema_*`, `rsi_14`, `atr_14`, `macd`) is run over the whole series from its seed on.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Series:
    """The bars of one venue, symbol and timeframe from its first on, in time order."""

    def __init__(self, high: Floats, low: Floats, close: Floats, volume: Floats) -> None:
        """All have one value a bar."""
        self.high, self.low, self.close, self.volume = high, low, close, volume

    @cached_property
    def returns(self) -> Floats:
        """Change of the close against the bar before; NaN on the first."""
        return _late(self.close[1:] / self.close[:-1] - 1.0)

    @cached_property
    def change(self) -> Floats:
        """Rise of the close, NaN on the first bar."""
        return _late(np.diff(self.close))

    @cached_property
    def true_range(self) -> Floats:
        """The largest of high - low and both distances to the close before; NaN on the first bar."""
        before = self.close[:-1]
        return _late(np.maximum(self.high[1:], before) - np.minimum(self.low[1:], before))

    @cached_property
    def macd(self) -> Floats:
        """Both averages begin on the 26th bar."""
        late = min(14, len(self.close))
        fast = seeded_mean(self.close[late:], 12, 2 / 13, late)
        return fast - seeded_mean(self.close, 26, 2 / 27)

    @cached_property
    def macd_signal(self) -> Floats:
        """Exponential mean over 9 of `macd`, from its first value on."""
        late = min(25, len(self.close))
        return seeded_mean(self.macd[late:], 9, 2 / 10, late)

    @cached_property
    def atr(self) -> Floats:
        """Wilder's mean over 14 of the true range."""
        return wilder_mean(self.true_range)


Formula = Callable[[Series, Rows], Floats]


def _late(values: Floats, bars: int = 1) -> Floats:
    """Return `values` after `bars` missing ones."""
    return np.concatenate([np.full(bars, np.nan), values])


def seeded_mean(values: Floats, length: int, alpha: float, before: int = 0) -> Floats:
    """Return the exponential mean of `values`, seeded with the mean of its first `length`.

    `before` NaN come first: one for each bar that `values` leaves out.
    """
    if len(values) < length:
        return np.full(len(values) + before, np.nan)
    seeded = np.r_[values[:length].mean(), values[length:]]
    run = pl.Series(seeded).ewm_mean(alpha=alpha, adjust=False).to_numpy()
    return _late(run, before + length - 1)


def wilder_mean(values: Floats) -> Floats:
    """Return Wilder's mean over 14 of values whose first is missing."""
    return seeded_mean(values[1:], 14, 1 / 14, 1)


def window(values: Floats, rows: Rows, length: int) -> Floats:
    """Return the last `length` values up to each row, one line a row; NaN before the first bar."""
    places = rows[:, None] + np.arange(1 - length, 1)
    return np.where(places >= 0, values[np.maximum(places, 0)], np.nan)


def ago(values: Floats, rows: Rows, bars: int) -> Floats:
    """Return the value `bars` bars before each row."""
    return np.where(rows >= bars, values[np.maximum(rows - bars, 0)], np.nan)


def _mean(length: int) -> Formula:
    return lambda series, rows: window(series.close, rows, length).mean(axis=1)


def _exponential(length: int) -> Formula:
    return lambda series, rows: seeded_mean(series.close, length, 2 / (length + 1))[rows]


def _volatility(length: int) -> Formula:
    return lambda series, rows: window(series.returns, rows, length).std(axis=1, ddof=1)


def _momentum(bars: int) -> Formula:
    return lambda series, rows: series.close[rows] - ago(series.close, rows, bars)


def _band(deviations: float) -> Formula:
    def of(series: Series, rows: Rows) -> Floats:
        closes = window(series.close, rows, 20)
        return np.asarray(closes.mean(axis=1) + deviations * closes.std(axis=1), dtype=np.float64)

    return of


def _rsi(series: Series, rows: Rows) -> Floats:
    gain = wilder_mean(np.maximum(series.change, 0.0))[rows]
    loss = wilder_mean(np.maximum(-series.change, 0.0))[rows]
    return 100.0 * gain / (gain + loss)


def _stochastic(series: Series, rows: Rows) -> Floats:
    lowest = window(series.low, rows, 14).min(axis=1)
    highest = window(series.high, rows, 14).max(axis=1)
    return np.asarray(100.0 * (series.close[rows] - lowest) / (highest - lowest), dtype=np.float64)


def _slow_stochastic(series: Series, rows: Rows) -> Floats:
    # Of the first two bars the row is missing anyway: their windows are not full.
    last = [_stochastic(series, np.maximum(rows - bars, 0)) for bars in range(3)]
    return np.asarray(sum(last) / 3.0, dtype=np.float64)


def _band_width(series: Series, rows: Rows) -> Floats:
    closes = window(series.close, rows, 20)
    return np.asarray(4.0 * closes.std(axis=1) / closes.mean(axis=1), dtype=np.float64)


def _volume_ratio(series: Series, rows: Rows) -> Floats:
    mean = window(series.volume, rows, 20).mean(axis=1)
    return np.where(mean > 0, series.volume[rows] / mean, np.nan)


FORMULAS: dict[str, Formula] = {
    "returns": lambda series, rows: series.returns[rows],
    "log_returns": lambda series, rows: np.log(series.close[rows] / ago(series.close, rows, 1)),
    "price_range": lambda series, rows: (series.high - series.low)[rows] / series.close[rows],
    "relative_spread": lambda series, rows: (
        2.0 * (series.high - series.low)[rows] / (series.high + series.low)[rows]
    ),
    **{f"sma_{length}": _mean(length) for length in (7, 14, 20, 30, 50)},
    **{f"ema_{length}": _exponential(length) for length in (7, 9, 14, 21, 30, 50, 200)},
    **{f"volatility_{length}": _volatility(length) for length in (7, 24, 30)},
    **{f"momentum_{bars}": _momentum(bars) for bars in (5, 10, 20)},
    "roc_10": lambda series, rows: 100.0 * (series.close[rows] / ago(series.close, rows, 10) - 1.0),
    "rsi_14": _rsi,
    "atr_14": lambda series, rows: series.atr[rows],
    "atr_pct": lambda series, rows: series.atr[rows] / series.close[rows],
    "macd": lambda series, rows: series.macd[rows],
    "macd_signal": lambda series, rows: series.macd_signal[rows],
    "macd_hist": lambda series, rows: (series.macd - series.macd_signal)[rows],
    "stoch_k": _stochastic,
    "stoch_d": _slow_stochastic,
    "bb_middle": _mean(20),
    "bb_upper": _band(2.0),
    "bb_lower": _band(-2.0),
    "bb_width": _band_width,
    "volume_sma_20": lambda series, rows: window(series.volume, rows, 20).mean(axis=1),
    "volume_ratio": _volume_ratio,
}
"""Every feature that is computed a second time."""
