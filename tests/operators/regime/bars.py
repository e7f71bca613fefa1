"""Bars whose computed columns make the rule call what a test asks for."""

import numpy as np
import polars as pl

from schemas.regime import REGIMES, Regime

HOUR_NS = 3_600_000_000_000
START_NS = 1_704_067_200_000_000_000
RATIO_AND_SLOPE = {
    Regime.BULL_TRENDING: (1.0, 0.0005),
    Regime.BEAR_TRENDING: (1.0, -0.0005),
    Regime.HIGH_VOL_CHOPPY: (1.6, 0.0005),
    Regime.LOW_VOL_RANGE: (0.7, 0.0),
    Regime.CRISIS: (2.5, -0.0005),
    None: (np.nan, np.nan),
}
"""Ratio of ranges, and slope of sma_50 per bar, for each call of the rule."""


def bars_calling(calls, symbol="A", start_ns=START_NS, timeframe="1h"):
    """Return one bar per call; a call is a regime or None."""
    numbers = np.array([RATIO_AND_SLOPE[call] for call in calls]).reshape(-1, 2)
    count = len(calls)
    ones = np.ones(count)
    columns = {
        **{f"sma_{n}": ones for n in (20, 200)},
        **{f"sma_{n}_lag_{lag}": ones for n, lag in ((20, 5), (50, 10), (200, 20))},
        "sma_50": 1.0 + 10.0 * numbers[:, 1],
        "true_range_mean_20": numbers[:, 0],
        "true_range_mean_100": ones,
        **dict.fromkeys(("close", "rsi_14", "macd", "macd_signal", "volume_ratio"), ones),
    }
    return pl.DataFrame(
        {
            "venue": ["venue"] * count,
            "symbol": [symbol] * count,
            "timeframe": [timeframe] * count,
            "close_time_ns": start_ns + HOUR_NS * np.arange(1, count + 1),
            **columns,
        }
    )


def calling(text):
    """Return the calls behind a text of one letter each: b, s, h, l, c, and - for none."""
    letters = dict(zip("bshlc", REGIMES, strict=True)) | {"-": None}
    return [letters[letter] for letter in text]
