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
    "prior_sma": Family.SMA,
    "resistance": Family.PRIOR_HIGH,
    "sma": Family.SMA,
    "true_range_mean": Family.TRUE_RANGE_MEAN,
}
_NAME = re.compile(
    r"(?P<family>[a-z_]+)_(?P<length>[1-9][0-9]{0,3})(_lag_(?P<lag>[1-9][0-9]{0,3}))?"
)


class Indicator(Struct, frozen=True, order=True):
    """One declared indicator; its name says all.

    - `prior_high_N`, `resistance_N`: highest high of the N bars before this bar;
    - `prior_low_N`: lowest low of the N bars before this bar;
    - `prior_volume_mean_N`: mean volume of the N bars before this bar;
    - `sma_N`: mean of the last N closes, this bar's included;
    - `prior_sma_N`: `sma_N` as it was on the bar before;
    - `sma_N_lag_K`: `sma_N` as it was K bars before;
    - `true_range_mean_N`: mean of the true range of the last N bars, this bar's included;
    - `prior_close`: close of the bar before.

    Raises `ValueError` on construction if the name is of no family or its window (N, with K) is not
    within 1 to 300.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name == "prior_close":
            return
        match = _NAME.fullmatch(self.name)
        if match is None or not _is_known(match):
            families = ", ".join(f"{family}_N" for family in _FAMILIES)
            msg = (
                f"indicator must be prior_close or one of {families}, sma_N_lag_K with N + K from 1 "
                f"to {LENGTH_MAX}; found {self.name!r}; correct the strategy's declaration"
            )
            raise ValueError(msg)

    @property
    def family(self) -> Family:
        """What the kernel computes."""
        return Family.PRIOR_CLOSE if self.name == "prior_close" else _FAMILIES[self._parts[0]]

    @property
    def length(self) -> int:
        """Window in bars."""
        return self._parts[1]

    @property
    def lag(self) -> int:
        """Bars between the end of the window and this bar, where the family does not say."""
        return self._parts[2]

    @property
    def warm_up_bars(self) -> int:
        """Bars of a series up to and including the first that has a value."""
        return self.length + (self.lag if self.family is Family.SMA else 1)

    @property
    def _parts(self) -> tuple[str, int, int]:
        """Return family, length and lag as the name says."""
        match = _NAME.fullmatch(self.name)
        if match is None:
            return (self.name, 1, 0)
        lag = 1 if match["family"] == "prior_sma" else int(match["lag"] or 0)
        return (match["family"], int(match["length"]), lag)


def select_indicators(declared: tuple[Indicator, ...]) -> tuple[Indicator, ...]:
    """Return what must be computed beside the features: each once, sorted by name.

    An `sma_N` that is a feature anyway is left out; it has a column already.
    """
    return tuple(sorted({one for one in declared if one.name not in COLUMNS}))


def encode_indicators(indicators: tuple[Indicator, ...]) -> IntArray:
    """Return (indicators, 3) family, length and lag for the kernel."""
    codes = [(int(one.family), one.length, one.lag) for one in indicators]
    return np.array(codes, dtype=np.int64).reshape(-1, 3)


def measure_history_bars(indicators: tuple[Indicator, ...]) -> int:
    """Return how many bars a series' ring must hold: the longest window and this bar."""
    return max([HISTORY_BARS, *(one.length + max(one.lag, 1) for one in indicators)])


def _is_known(match: re.Match[str]) -> bool:
    lag = int(match["lag"] or 0)
    known = match["family"] == "sma" if lag else match["family"] in _FAMILIES
    return known and int(match["length"]) + lag <= LENGTH_MAX
