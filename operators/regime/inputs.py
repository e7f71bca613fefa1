"""The eleven inputs of a regime, from what the live feature operator computes."""

import numpy as np
import numpy.typing as npt

from operators.bar_columns import BarColumns
from operators.features import Indicator
from schemas.regime import RANGE_BARS, RG11, SLOPES

FloatArray = npt.NDArray[np.float64]

INDICATORS: tuple[Indicator, ...] = tuple(
    Indicator(name)
    for name in (
        *(f"sma_{n}" for n, _ in SLOPES),
        *(f"sma_{n}_lag_{lag}" for n, lag in SLOPES),
        *(f"true_range_mean_{n}" for n in RANGE_BARS),
    )
)
"""What a `FeatureMachine` must compute beside its schema for `regime_inputs`."""

WARM_UP_BARS = max(one.warm_up_bars for one in RG11.features)
"""Bars of a series up to and including the first that has every input."""


def regime_inputs(bars: BarColumns) -> FloatArray:
    """Return the (rows, 11) inputs in the order of `RG11`, NaN where missing.

    `bars` come from a `FeatureMachine` with `INDICATORS`. Each row is a function of its own row
    alone, so stream and batch agree bit for bit. Raises `KeyError` if a column is not there.
    """
    close = bars.floats("close")
    means = {n: bars.floats(f"sma_{n}") for n, _ in SLOPES}
    short, long = (bars.floats(f"true_range_mean_{n}") for n in RANGE_BARS)
    columns = {
        **{
            f"sma_{n}_slope": (means[n] / bars.floats(f"sma_{n}_lag_{lag}") - 1.0) / lag
            for n, lag in SLOPES
        },
        "true_range_ratio": short / np.where(long > 0.0, long, np.nan),
        "rsi_14": bars.floats("rsi_14"),
        "macd_pct": bars.floats("macd") / close,
        "macd_signal_pct": bars.floats("macd_signal") / close,
        "volume_ratio": bars.floats("volume_ratio"),
        **{f"close_to_sma_{n}": close / mean - 1.0 for n, mean in means.items()},
    }
    return np.column_stack([columns[name] for name in RG11.names])
