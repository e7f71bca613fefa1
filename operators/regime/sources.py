"""Who says which regime a bar looks like: a rule with fixed thresholds, or a model that is judged offline."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.regime import REGIMES, RG11, Regime

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NO_CALL = -1
"""Code of a bar that nothing can be said about."""

_CODES = {regime: code for code, regime in enumerate(REGIMES)}
_SLOPE, _RANGE = RG11.names.index("sma_50_slope"), RG11.names.index("true_range_ratio")


class Calls(Struct, frozen=True, kw_only=True):
    """What each row looks like."""

    codes: IntArray
    """(rows,) place in `REGIMES`, `NO_CALL` without one."""
    strengths: FloatArray
    """(rows,) how clear the call is, 0 to 1; NaN if the source cannot tell."""
    probabilities: FloatArray
    """(rows, 5) of `REGIMES`; NaN if the source has none."""


class RegimeSource(Protocol):
    """Calls a regime from the inputs of one bar; it remembers nothing."""

    @property
    def name(self) -> str:
        """Name of the model, or `rule`."""

    @property
    def version(self) -> str:
        """Version of the model or the rule."""

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the model's bytes, or of the rule's numbers."""

    def call(self, inputs: FloatArray) -> Calls:
        """Return the calls for (rows, 11) inputs of `RG11`, NaN where missing."""


class RuleNumbers(Struct, frozen=True, kw_only=True):
    """Thresholds of the rule, those of the predecessor, with their units."""

    crisis_range_ratio: float = 2.0
    high_range_ratio: float = 1.5
    trend_range_ratio: float = 1.2
    trend_slope_pct_per_day: float = 0.5
    """Slope of `sma_50` beyond which there is a trend, in percent per day.

    The predecessor compared the angle of the slope with 0.5: as degrees that is 0.87 % per day, and
    it was called 0.5 %. Which bars make the day was not said; read as percent per hourly bar the
    threshold is 12 % a day, and no market trends.
    """
    bars_per_day: float = 24.0


class RegimeRule:
    """The predecessor's rule on the ratio of ranges and the slope of `sma_50`.

    In this order: `true_range_ratio` above 2.0 is CRISIS, above 1.5 HIGH_VOL_CHOPPY; below 1.2 with a
    slope above 0.5 % per day BULL_TRENDING, below -0.5 % BEAR_TRENDING; all else LOW_VOL_RANGE. Its
    further threshold of 0.8 for LOW_VOL_RANGE decided nothing, since all else was called the same;
    its VIX has no counterpart here. It knows no probability and says none.
    """

    name = "rule"
    version = "1"

    def __init__(self, numbers: RuleNumbers | None = None) -> None:
        self.numbers = RuleNumbers() if numbers is None else numbers
        self.content_hash = sha256(msgspec.json.encode(self.numbers, order="sorted")).hexdigest()

    def call(self, inputs: FloatArray) -> Calls:
        """Return the calls for (rows, 11) inputs; a row without slope or ratio has none."""
        numbers, ratio = self.numbers, inputs[:, _RANGE]
        slope_pct = 100.0 * numbers.bars_per_day * inputs[:, _SLOPE]
        quiet = ratio < numbers.trend_range_ratio
        found = np.select(
            [
                ~(np.isfinite(ratio) & np.isfinite(slope_pct)),
                ratio > numbers.crisis_range_ratio,
                ratio > numbers.high_range_ratio,
                quiet & (slope_pct > numbers.trend_slope_pct_per_day),
                quiet & (slope_pct < -numbers.trend_slope_pct_per_day),
            ],
            [
                NO_CALL,
                _CODES[Regime.CRISIS],
                _CODES[Regime.HIGH_VOL_CHOPPY],
                _CODES[Regime.BULL_TRENDING],
                _CODES[Regime.BEAR_TRENDING],
            ],
            default=_CODES[Regime.LOW_VOL_RANGE],
        )
        return Calls(
            codes=np.asarray(found, dtype=np.int64),
            strengths=np.full(len(inputs), np.nan),
            probabilities=np.full((len(inputs), len(REGIMES)), np.nan),
        )


def call_by_lift(probabilities: FloatArray, usual_shares: Sequence[float]) -> Calls:
    """Return the calls of a model's (rows, 5) probabilities; a row with a NaN has none.

    A regime that is rare is never the likeliest of five; it is called where it is much likelier than
    usual: the call is the largest of `probability / sqrt(usual share)`, and its part of their sum is
    the strength. The probabilities are reported as they are.
    """
    weighted = probabilities / np.sqrt(np.array(usual_shares))
    known = np.isfinite(weighted).all(axis=1)
    codes = np.full(len(weighted), NO_CALL, dtype=np.int64)
    codes[known] = weighted[known].argmax(axis=1)
    strengths = np.full(len(weighted), np.nan)
    strengths[known] = weighted[known].max(axis=1) / weighted[known].sum(axis=1)
    return Calls(codes=codes, strengths=strengths, probabilities=probabilities)
