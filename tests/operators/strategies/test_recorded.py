"""The four rules over five months of recorded bars against TA-Lib, numpy and plain loops."""

import numpy as np
import polars as pl
import pytest
import talib

from operators.signals import SignalMachine
from operators.strategies import build_strategies
from schemas.settings import default_strategies
from tests.operators.recorded_bars import daily_bars, hourly_bars, with_features

TOLERANCE = 1e-9


def series_of(bars, symbol):
    own = bars.filter(pl.col("symbol") == symbol)
    columns = {name: own[name].to_numpy() for name in ("high", "low", "close", "volume")}
    return {**columns, "time": own["close_time_ns"].to_list()}


def alike(found, expected):
    return (
        found == expected if expected is None else found == pytest.approx(expected, rel=TOLERANCE)
    )


def edges(times, entry, leave, stop, target):
    """Return the signals of a plain loop over conditions of completed bars."""
    found, before = {}, (False, False)
    for i, time in enumerate(times):
        now = (bool(entry[i]) and not leave[i], bool(leave[i]))
        if now[0] and not before[0]:
            found[time, "enter"] = (stop[i], None if target is None else target[i])
        if now[1] and not before[1]:
            found[time, "exit"] = (None, None)
        before = now
    return found


def rsi_mean_reversion(s):
    rsi, atr = talib.RSI(s["close"], 14), talib.ATR(s["high"], s["low"], s["close"], 14)
    return rsi < 35, rsi > 65, s["close"] - 2 * atr, s["close"] + 3 * atr


def bollinger_bounce(s):
    upper, _, lower = talib.BBANDS(s["close"], 20, 2, 2)
    rsi, atr = talib.RSI(s["close"], 14), talib.ATR(s["high"], s["low"], s["close"], 14)
    stop = lower - 1.5 * atr
    return (s["low"] <= lower) & (rsi < 45) & (stop < s["close"]), s["high"] >= upper, stop, None


def prior(values, length, function):
    out = np.full(len(values), np.nan)
    for i in range(length, len(values)):
        out[i] = function(values[i - length : i])
    return out


def breakout_momentum(s):
    atr = talib.ATR(s["high"], s["low"], s["close"], 14)
    average = prior(s["volume"], 20, np.mean)
    entry = (s["close"] > prior(s["high"], 20, np.max)) & (s["volume"] > 1.5 * average)
    leave = s["close"] < prior(s["low"], 10, np.min)
    return entry, leave, s["close"] - 1.5 * atr, s["close"] + 4.5 * atr


def exact_average(values, length):
    """Return moving averages without rounding noise: SOLUSDT's 20 and 50 once met to the digit."""
    units = np.round(values * 1e8).astype(np.int64)
    sums = np.convolve(units, np.ones(length, dtype=np.int64))[: len(units)]
    sums = sums.astype(np.float64) / (length * 1e8)
    sums[: length - 1] = np.nan
    return sums


def ma_crossover(s):
    close = s["close"]
    fast, slow, trend = (exact_average(close, n) for n in (20, 50, 100))
    atr = talib.ATR(s["high"], s["low"], close, 14)
    fast_before, slow_before = np.roll(fast, 1), np.roll(slow, 1)
    fast_before[0] = slow_before[0] = np.nan
    entry = (fast > slow) & (fast_before <= slow_before) & (close > trend)
    entry &= s["volume"] > prior(s["volume"], 20, np.mean)
    entry &= close <= 0.99 * prior(s["high"], 50, np.max)
    leave = (fast < slow) & (fast_before >= slow_before)
    return entry, leave, close - 2 * atr, close + 4 * atr


def rule(row, reference, bars):
    criterion = f"{reference.__name__} on five recorded months equals an outside reference"
    marks = pytest.mark.acceptance(row, criterion=criterion)
    return pytest.param(reference, bars, marks=marks, id=reference.__name__)


RULES = [
    rule("S-157", rsi_mean_reversion, hourly_bars),
    rule("S-158", breakout_momentum, daily_bars),
    rule("S-159", bollinger_bounce, hourly_bars),
    rule("S-160", ma_crossover, hourly_bars),
]


@pytest.mark.parametrize(("reference", "bars"), RULES)
def test_signals_of_recorded_months_equal_an_outside_reference(reference, bars, measured):
    name = reference.__name__
    strategy = build_strategies({name: default_strategies()[name]})
    found = SignalMachine(strategy).on_features(with_features(bars()))
    counts = {"enter": 0, "exit": 0}
    for symbol in bars()["symbol"].unique().sort():
        own = series_of(bars(), symbol)
        with np.errstate(invalid="ignore"):
            expected = edges(own["time"], *reference(own))
        signals = {
            (one.event_time_ns, str(one.action)): one for one in found if one.symbol == symbol
        }
        assert signals.keys() == expected.keys()
        for key, (stop, target) in expected.items():
            counts[key[1]] += 1
            assert alike(signals[key].stop_price, stop)
            assert alike(signals[key].target_price, target)
    assert min(counts.values()) >= 1
    measured(f"{counts['enter']} entries and {counts['exit']} exits equal")


def test_exit_of_a_breakout_can_fire_because_the_low_leaves_out_its_own_bar():
    found = SignalMachine(
        build_strategies({"breakout_momentum": default_strategies()["breakout_momentum"]})
    ).on_features(with_features(daily_bars()))
    assert any(signal.action == "exit" for signal in found)
