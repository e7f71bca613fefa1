"""Rolling values that rule strategies declare by name beside the feature schema."""

import re

import numpy as np
from msgspec import Struct

from operators.features.kernel import COLUMNS, HISTORY_BARS, Family, IntArray

LENGTH_MAX = 300
"""Longest window of a declared indicator, in bars."""

_FAMILIES = {
    "prior_high": Family.PRIOR_HIGH,
    "prior_low": Family.PRIOR_LOW,
    "prior_volume_mean": Family.PRIOR_VOLUME_MEAN,
    "prior_sma": Family.PRIOR_SMA,
    "resistance": Family.PRIOR_HIGH,
    "sma": Family.SMA,
}
_NAME = re.compile(r"(?P<family>[a-z_]+)_(?P<length>[1-9][0-9]{0,3})")


class Indicator(Struct, frozen=True, order=True):
    """One declared indicator; its name says all.

    - `prior_high_N`, `resistance_N`: highest high of the N bars before this bar;
    - `prior_low_N`: lowest low of the N bars before this bar;
    - `prior_volume_mean_N`: mean volume of the N bars before this bar;
    - `sma_N`: mean of the last N closes, this bar's included;
    - `prior_sma_N`: `sma_N` as it was on the bar before;
    - `prior_close`: close of the bar before.

    Raises `ValueError` on construction if the name is of no family or N is not within 1 to 300.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name == "prior_close":
            return
        match = _NAME.fullmatch(self.name)
        if match is None or match["family"] not in _FAMILIES or int(match["length"]) > LENGTH_MAX:
            families = ", ".join(f"{family}_N" for family in _FAMILIES)
            msg = (
                f"indicator must be prior_close or one of {families} with N from 1 to {LENGTH_MAX}; "
                f"found {self.name!r}; correct the strategy's declaration"
            )
            raise ValueError(msg)

    @property
    def family(self) -> Family:
        """What the kernel computes."""
        if self.name == "prior_close":
            return Family.PRIOR_CLOSE
        return _FAMILIES[self.name.rpartition("_")[0]]

    @property
    def length(self) -> int:
        """Window in bars."""
        return 1 if self.name == "prior_close" else int(self.name.rpartition("_")[2])

    @property
    def warm_up_bars(self) -> int:
        """Bars of a series up to and including the first that has a value."""
        return self.length if self.family is Family.SMA else self.length + 1


def select_indicators(declared: tuple[Indicator, ...]) -> tuple[Indicator, ...]:
    """Return what must be computed beside the features: each once, sorted by name.

    An `sma_N` that is a feature anyway is left out; it has a column already.
    """
    return tuple(sorted({one for one in declared if one.name not in COLUMNS}))


def encode_indicators(indicators: tuple[Indicator, ...]) -> IntArray:
    """Return (indicators, 2) family and length for the kernel."""
    codes = [(int(one.family), one.length) for one in indicators]
    return np.array(codes, dtype=np.int64).reshape(-1, 2)


def measure_history_bars(indicators: tuple[Indicator, ...]) -> int:
    """Return how many bars a series' ring must hold: the longest window and this bar."""
    return max([HISTORY_BARS, *(one.length + 1 for one in indicators)])
