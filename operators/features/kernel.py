"""The compiled recursion behind every feature: one bar at a time per series.

A value is a function of its series' bars alone. Windows are summed afresh from the ring on every
bar, oldest value first, and recursions live in explicit float64 state, so neither the cut of the
stream into batches nor the age of the process can change a bit. `fastmath` and `parallel` stay off
for the same reason. All compiled code and the enumerations it reads live in this one file, because
numba's on-disk cache notices changes of a function's own file only.

Formulas: `schemas.features`. Conventions (seeds, Wilder's smoothing): TA-Lib's C sources.
"""

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MaskArray = npt.NDArray[np.uint64]


Bar = IntEnum("Bar", "OPEN HIGH LOW CLOSE VOLUME BUY_VOLUME SPREAD_BPS", start=0)
"""Columns of the bar matrix that the kernel reads."""

Column = IntEnum(
    "Column",
    (
        "RETURNS LOG_RETURNS PRICE_RANGE BODY_SIZE UPPER_WICK LOWER_WICK "
        "SMA_7 SMA_14 SMA_20 SMA_30 SMA_50 "
        "EMA_7 EMA_9 EMA_14 EMA_21 EMA_30 EMA_50 EMA_200 "
        "EMA_9_DIST EMA_21_DIST EMA_50_DIST EMA_200_DIST "
        "VOLATILITY_7 VOLATILITY_24 VOLATILITY_30 "
        "RSI_14 MACD MACD_SIGNAL MACD_HIST STOCH_K STOCH_D ROC_10 ADX_14 PLUS_DI MINUS_DI "
        "BB_MIDDLE BB_UPPER BB_LOWER BB_WIDTH BB_POSITION ATR_14 ATR_PCT "
        "VOLUME_SMA_20 VOLUME_RATIO OBV OBV_EMA VPT "
        "IS_DOJI IS_HAMMER IS_ENGULFING GAP_UP GAP_DOWN "
        "MOMENTUM_5 MOMENTUM_10 MOMENTUM_20 ACCELERATION RELATIVE_SPREAD SIGNED_FLOW SPREAD_BPS"
    ),
    start=0,
)
"""Rows of the output matrix; declared indicators follow after the last."""

COLUMNS: tuple[str, ...] = tuple(column.name.lower() for column in Column)
"""Names of the computed features in the order of the output matrix."""

Slot = IntEnum(
    "Slot",
    (
        "EMA_7 EMA_9 EMA_12 EMA_14 EMA_21 EMA_26 EMA_30 EMA_50 EMA_200 MACD_SIGNAL "
        "GAIN LOSS TRUE_RANGE_MEAN TRUE_RANGE_SUM PLUS_MOVE MINUS_MOVE ADX OBV OBV_EMA VPT "
        "PREVIOUS_BODY"
    ),
    start=0,
)
"""Columns of a series' recursion state."""

History = IntEnum("History", "HIGH LOW CLOSE VOLUME RETURN STOCH_K", start=0)
"""Rows of a series' ring of recent bars."""

HISTORY_BARS = 50
"""Longest window of a feature; a declared indicator may need a longer ring."""


class Family(IntEnum):
    """Families of declared indicators; `PRIOR_` excludes this bar from the window."""

    PRIOR_HIGH = 0
    PRIOR_LOW = 1
    PRIOR_VOLUME_MEAN = 2
    SMA = 3
    PRIOR_CLOSE = 4
    TRUE_RANGE_MEAN = 5


_compiled = njit(cache=True, error_model="numpy")
# Every divisor below is proven positive first, so the cheaper error model never meets a zero.


@_compiled
def _mean(values: FloatArray, end: int, length: int) -> float:
    total = 0.0
    for k in range(end - length + 1, end + 1):
        total += values[k]
    return total / length


@_compiled
def _highest(values: FloatArray, end: int, length: int) -> float:
    highest: float = values[end]
    for k in range(end - length + 1, end):
        highest = max(highest, values[k])
    return highest


@_compiled
def _lowest(values: FloatArray, end: int, length: int) -> float:
    lowest: float = values[end]
    for k in range(end - length + 1, end):
        lowest = min(lowest, values[k])
    return lowest


@_compiled
def _sample_deviation(values: FloatArray, end: int, length: int) -> float:
    mean = _mean(values, end, length)
    total = 0.0
    for k in range(end - length + 1, end + 1):
        total += (values[k] - mean) * (values[k] - mean)
    return math.sqrt(total / (length - 1))


@_compiled
def _exponential(previous: float, value: float, count: int, period: int) -> float:
    """Return the next state of an EMA: the sum of its seed, then the average itself."""
    if count < period:
        return previous + value
    if count == period:
        return (previous + value) / period
    return (value - previous) * (2.0 / (period + 1)) + previous


@_compiled
def _wilder_mean(previous: float, value: float, count: int, period: int) -> float:
    """Return the next state of Wilder's mean: the sum of its seed, then the mean itself."""
    if count < period:
        return previous + value
    if count == period:
        return (previous + value) / period
    return (previous * (period - 1) + value) / period


@_compiled
def _wilder_sum(previous: float, value: float, count: int, period: int) -> float:
    """Return the next state of Wilder's sum, seeded with `period - 1` values."""
    if count < period:
        return previous + value
    return previous - previous / period + value


@_compiled
def _write_shape(row: FloatArray, bar: FloatArray) -> None:
    """Write what this bar alone tells."""
    open_, high, low, close = bar[Bar.OPEN], bar[Bar.HIGH], bar[Bar.LOW], bar[Bar.CLOSE]
    body, spread = abs(close - open_), high - low
    lower_wick = min(open_, close) - low
    row[Column.PRICE_RANGE] = spread / close
    row[Column.BODY_SIZE] = body / close
    row[Column.UPPER_WICK] = (high - max(open_, close)) / close
    row[Column.LOWER_WICK] = lower_wick / close
    row[Column.RELATIVE_SPREAD] = spread / ((high + low) / 2.0)
    row[Column.IS_HAMMER] = 1.0 if lower_wick > 2.0 * body and body > 0.0 else 0.0
    if spread > 0.0:
        row[Column.IS_DOJI] = 1.0 if body / spread < 0.1 else 0.0
    if bar[Bar.VOLUME] > 0.0:
        row[Column.SIGNED_FLOW] = (2.0 * bar[Bar.BUY_VOLUME] - bar[Bar.VOLUME]) / bar[Bar.VOLUME]
    row[Column.SPREAD_BPS] = bar[Bar.SPREAD_BPS]


@_compiled
def _write_change(
    row: FloatArray, bar: FloatArray, history: FloatArray, state: FloatArray, end: int, seen: int
) -> None:
    """Write what this bar tells against the bar before it, and the running totals."""
    body = abs(bar[Bar.CLOSE] - bar[Bar.OPEN])
    if seen > 1:
        close, previous = bar[Bar.CLOSE], history[History.CLOSE, end - 1]
        change = history[History.RETURN, end]
        row[Column.RETURNS] = change
        row[Column.LOG_RETURNS] = math.log(close / previous)
        row[Column.IS_ENGULFING] = 1.0 if body > 1.5 * state[Slot.PREVIOUS_BODY] else 0.0
        row[Column.GAP_UP] = 1.0 if bar[Bar.LOW] > history[History.HIGH, end - 1] else 0.0
        row[Column.GAP_DOWN] = 1.0 if bar[Bar.HIGH] < history[History.LOW, end - 1] else 0.0
        if close > previous:
            state[Slot.OBV] += bar[Bar.VOLUME]
        elif close < previous:
            state[Slot.OBV] -= bar[Bar.VOLUME]
        state[Slot.VPT] += change * bar[Bar.VOLUME]
    state[Slot.PREVIOUS_BODY] = body
    state[Slot.OBV_EMA] = _exponential(state[Slot.OBV_EMA], state[Slot.OBV], seen, 20)
    row[Column.OBV], row[Column.VPT] = state[Slot.OBV], state[Slot.VPT]
    if seen >= 20:
        row[Column.OBV_EMA] = state[Slot.OBV_EMA]


@_compiled
def _write_windows(row: FloatArray, history: FloatArray, end: int, seen: int) -> None:
    """Write means and deviations over windows of closes, volumes and returns."""
    closes, volumes = history[History.CLOSE], history[History.VOLUME]
    returns = history[History.RETURN]
    for length, column in (
        (7, Column.SMA_7),
        (14, Column.SMA_14),
        (20, Column.SMA_20),
        (30, Column.SMA_30),
        (50, Column.SMA_50),
    ):
        if seen >= length:
            row[column] = _mean(closes, end, length)
    for length, column in (
        (7, Column.VOLATILITY_7),
        (24, Column.VOLATILITY_24),
        (30, Column.VOLATILITY_30),
    ):
        if seen > length:
            row[column] = _sample_deviation(returns, end, length)
    if seen >= 20:
        mean_volume = _mean(volumes, end, 20)
        row[Column.VOLUME_SMA_20] = mean_volume
        if mean_volume > 0.0:
            row[Column.VOLUME_RATIO] = volumes[end] / mean_volume


@_compiled
def _write_momenta(row: FloatArray, closes: FloatArray, end: int, seen: int) -> None:
    """Write differences of this close to earlier ones."""
    for length, column in (
        (5, Column.MOMENTUM_5),
        (10, Column.MOMENTUM_10),
        (20, Column.MOMENTUM_20),
    ):
        if seen > length:
            row[column] = closes[end] - closes[end - length]
    if seen > 6:
        row[Column.ACCELERATION] = row[Column.MOMENTUM_5] - (closes[end - 1] - closes[end - 6])
    if seen > 10:
        row[Column.ROC_10] = (closes[end] / closes[end - 10] - 1.0) * 100.0


@_compiled
def _write_bands(row: FloatArray, closes: FloatArray, end: int, seen: int) -> None:
    """Write the Bollinger bands from differences to the close.

    Differences of equal prices are exactly zero, so a flat window has a band of exactly no width;
    sums of prices would leave a rounding error to divide by.
    """
    if seen < 20:
        return
    close, total, squares = closes[end], 0.0, 0.0
    for k in range(end - 19, end + 1):
        total += closes[k] - close
    offset = total / 20.0
    for k in range(end - 19, end + 1):
        squares += (closes[k] - close - offset) * (closes[k] - close - offset)
    deviation = math.sqrt(squares / 20.0)
    middle = row[Column.SMA_20]
    row[Column.BB_MIDDLE] = middle
    row[Column.BB_UPPER] = middle + 2.0 * deviation
    row[Column.BB_LOWER] = middle - 2.0 * deviation
    row[Column.BB_WIDTH] = 4.0 * deviation / middle
    if deviation > 0.0:
        row[Column.BB_POSITION] = 0.5 - offset / (4.0 * deviation)


@_compiled
def _write_exponentials(
    row: FloatArray, state: FloatArray, closes: FloatArray, end: int, seen: int
) -> None:
    """Write the exponential means, their distances and the MACD."""
    close = closes[end]
    for period, slot, column in (
        (7, Slot.EMA_7, Column.EMA_7),
        (9, Slot.EMA_9, Column.EMA_9),
        (14, Slot.EMA_14, Column.EMA_14),
        (21, Slot.EMA_21, Column.EMA_21),
        (30, Slot.EMA_30, Column.EMA_30),
        (50, Slot.EMA_50, Column.EMA_50),
        (200, Slot.EMA_200, Column.EMA_200),
    ):
        state[slot] = _exponential(state[slot], close, seen, period)
        if seen >= period:
            row[column] = state[slot]
    for average, distance in (
        (Column.EMA_9, Column.EMA_9_DIST),
        (Column.EMA_21, Column.EMA_21_DIST),
        (Column.EMA_50, Column.EMA_50_DIST),
        (Column.EMA_200, Column.EMA_200_DIST),
    ):
        row[distance] = (close - row[average]) / row[average]
    state[Slot.EMA_26] = _exponential(state[Slot.EMA_26], close, seen, 26)
    if seen < 26:
        return
    if seen == 26:  # As TA-Lib: both averages start on the bar on which the slow one can.
        state[Slot.EMA_12] = _mean(closes, end, 12)
    else:
        state[Slot.EMA_12] = _exponential(state[Slot.EMA_12], close, seen, 12)
    macd = state[Slot.EMA_12] - state[Slot.EMA_26]
    row[Column.MACD] = macd
    state[Slot.MACD_SIGNAL] = _exponential(state[Slot.MACD_SIGNAL], macd, seen - 25, 9)
    if seen >= 34:
        row[Column.MACD_SIGNAL] = state[Slot.MACD_SIGNAL]
        row[Column.MACD_HIST] = macd - state[Slot.MACD_SIGNAL]


@_compiled
def _write_oscillators(
    row: FloatArray, state: FloatArray, history: FloatArray, end: int, seen: int
) -> None:
    """Write the stochastic and the relative strength index."""
    stochastic, closes = history[History.STOCH_K], history[History.CLOSE]
    if seen >= 14:
        lowest = _lowest(history[History.LOW], end, 14)
        highest = _highest(history[History.HIGH], end, 14)
        if highest > lowest:
            stochastic[end] = 100.0 * ((closes[end] - lowest) / (highest - lowest))
            stochastic[end - stochastic.shape[0] // 2] = stochastic[end]
        row[Column.STOCH_K] = stochastic[end]
    if seen >= 16:
        row[Column.STOCH_D] = _mean(stochastic, end, 3)
    if seen > 1:
        change = closes[end] - closes[end - 1]
        gain = _wilder_mean(state[Slot.GAIN], max(change, 0.0), seen - 1, 14)
        loss = _wilder_mean(state[Slot.LOSS], max(-change, 0.0), seen - 1, 14)
        state[Slot.GAIN], state[Slot.LOSS] = gain, loss
        if seen > 14 and gain + loss > 0.0:
            row[Column.RSI_14] = 100.0 * (gain / (gain + loss))


@_compiled
def _write_directional(
    row: FloatArray, state: FloatArray, history: FloatArray, end: int, seen: int
) -> None:
    """Write the average true range, the directional indicators and their index."""
    if seen < 2:
        return
    count, true_range = seen - 1, _true_range(history, end)
    rise = history[History.HIGH, end] - history[History.HIGH, end - 1]
    fall = history[History.LOW, end - 1] - history[History.LOW, end]
    plus = rise if rise > 0.0 and rise > fall else 0.0
    minus = fall if fall > 0.0 and fall > rise else 0.0
    average = _wilder_mean(state[Slot.TRUE_RANGE_MEAN], true_range, count, 14)
    range_sum = _wilder_sum(state[Slot.TRUE_RANGE_SUM], true_range, count, 14)
    plus = _wilder_sum(state[Slot.PLUS_MOVE], plus, count, 14)
    minus = _wilder_sum(state[Slot.MINUS_MOVE], minus, count, 14)
    state[Slot.TRUE_RANGE_MEAN], state[Slot.TRUE_RANGE_SUM] = average, range_sum
    state[Slot.PLUS_MOVE], state[Slot.MINUS_MOVE] = plus, minus
    if count < 14:
        return
    row[Column.ATR_14] = average
    row[Column.ATR_PCT] = average / history[History.CLOSE, end]
    directed = range_sum > 0.0 and plus + minus > 0.0
    if range_sum > 0.0:
        row[Column.PLUS_DI] = 100.0 * (plus / range_sum)
        row[Column.MINUS_DI] = 100.0 * (minus / range_sum)
    count -= 13
    if directed:
        total = row[Column.PLUS_DI] + row[Column.MINUS_DI]
        quotient = 100.0 * (abs(row[Column.MINUS_DI] - row[Column.PLUS_DI]) / total)
        state[Slot.ADX] = _wilder_mean(state[Slot.ADX], quotient, count, 14)
        if count >= 14:
            row[Column.ADX_14] = state[Slot.ADX]
    elif count <= 14:  # As TA-Lib: without a quotient the seed counts zero, the mean stands still.
        state[Slot.ADX] = _wilder_mean(state[Slot.ADX], 0.0, count, 14)


@_compiled
def _true_range(history: FloatArray, at: int) -> float:
    high, low = history[History.HIGH, at], history[History.LOW, at]
    before = history[History.CLOSE, at - 1]
    return float(max(high - low, abs(high - before), abs(low - before)))


@_compiled
def _indicator(ring: FloatArray, end: int, seen: int, family: int, length: int, lag: int) -> float:
    """Return one declared indicator, NaN while its window is not full."""
    value: float = np.nan
    if family == Family.SMA:
        if seen >= length + lag:
            value = _mean(ring[History.CLOSE], end - lag, length)
    elif seen > length:
        if family == Family.PRIOR_HIGH:
            value = _highest(ring[History.HIGH], end - 1, length)
        elif family == Family.PRIOR_LOW:
            value = _lowest(ring[History.LOW], end - 1, length)
        elif family == Family.PRIOR_VOLUME_MEAN:
            value = _mean(ring[History.VOLUME], end - 1, length)
        elif family == Family.TRUE_RANGE_MEAN:
            value = 0.0
            for k in range(end - length + 1, end + 1):
                value += _true_range(ring, k)
            value /= length
        else:
            value = ring[History.CLOSE, end - 1]
    return value


@_compiled
def _remember(history: FloatArray, bar: FloatArray, end: int, seen: int) -> None:
    """Write this bar into both halves of the ring.

    The halves mirror each other, so that any window of up to half the ring is contiguous.
    """
    half = history.shape[1] // 2
    change = bar[Bar.CLOSE] / history[History.CLOSE, end - 1] - 1.0 if seen > 1 else np.nan
    for position in (end - half, end):
        history[History.HIGH, position] = bar[Bar.HIGH]
        history[History.LOW, position] = bar[Bar.LOW]
        history[History.CLOSE, position] = bar[Bar.CLOSE]
        history[History.VOLUME, position] = bar[Bar.VOLUME]
        history[History.RETURN, position] = change
        history[History.STOCH_K, position] = np.nan


@_compiled
def advance(
    bars: FloatArray,
    series: IntArray,
    seen: IntArray,
    state: FloatArray,
    history: FloatArray,
    indicators: IntArray,
    bits: IntArray,
    out: FloatArray,
    missing: MaskArray,
) -> None:
    """Take the bars in row order, move their series' state on and write their features.

    `bars` (bars, 7 of `Bar`); `series` (bars,) row of each bar's series in the state; `seen`
    (series,) bars so far; `state` (series, slots); `history` (series, rows, 2 * ring bars);
    `indicators` (indicators, 3) family, length and lag; `bits` (columns,) bit of a column in the mask,
    -1 without; `out` (columns + indicators, bars), written whole, NaN where missing; `missing`
    (bars,), the bits of missing columns are added. All are C-contiguous. The caller has checked
    the bars.
    """
    half = history.shape[2] // 2
    row = np.empty(out.shape[0])
    for i in range(bars.shape[0]):
        s, bar = series[i], bars[i]
        ring, slots, closes = history[s], state[s], history[s, History.CLOSE]
        end = seen[s] % half + half
        seen[s] += 1
        count = seen[s]
        row[:] = np.nan
        _remember(ring, bar, end, count)
        _write_shape(row, bar)
        _write_change(row, bar, ring, slots, end, count)
        _write_windows(row, ring, end, count)
        _write_momenta(row, closes, end, count)
        _write_bands(row, closes, end, count)
        _write_exponentials(row, slots, closes, end, count)
        _write_oscillators(row, slots, ring, end, count)
        _write_directional(row, slots, ring, end, count)
        for k in range(indicators.shape[0]):
            family, length, lag = indicators[k]
            row[len(bits) + k] = _indicator(ring, end, count, family, length, lag)
        for column in range(row.shape[0]):
            out[column, i] = row[column]
            if column < len(bits) and bits[column] >= 0 and math.isnan(row[column]):
                missing[i] |= np.uint64(1) << np.uint64(bits[column])
