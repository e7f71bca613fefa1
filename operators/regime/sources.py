"""Who says which regime a bar looks like: a rule with fixed thresholds, or a served model."""

from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.regime import REGIMES, RG11, Regime

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

NO_CALL = -1
"""Code of a bar that nothing can be said about."""

_CODES = {regime: code for code, regime in enumerate(REGIMES)}
_SLOPE, _RANGE = RG11.names.index("sma_50_slope"), RG11.names.index("true_range_ratio")
_SUM_TOLERANCE = 1e-3


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


class RegimeScorer(Protocol):
    """A loaded regime model whose bytes were verified."""

    @property
    def version(self) -> str:
        """Version of the model."""

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the exact bytes that score."""

    @property
    def feature_schema_hash(self) -> str:
        """Hash of the feature schema that the model was trained on."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the probability columns."""

    def score(self, matrix: Float32Array) -> FloatArray:
        """Return (rows, 5) probabilities of `REGIMES` for (rows, 11) inputs."""


class RegimeModel:
    """A served model whose calls weigh each probability against the regime's usual share.

    A regime that is rare is never the likeliest of five; it is called where it is much likelier than
    usual: the call is the largest of `probability / sqrt(usual share)`, and its part of their sum is
    the strength. The probabilities that it reports are the model's own.

    Raises `ValueError` on construction if the model reads or answers anything else, or the shares
    are not five numbers above zero.
    """

    def __init__(self, name: str, scorer: RegimeScorer, usual_shares: Sequence[float]) -> None:
        self.name, self._scorer = name, scorer
        self.version, self.content_hash = scorer.version, scorer.content_hash
        self._require("feature schema hash", RG11.schema_hash, scorer.feature_schema_hash)
        self._require("classes", tuple(REGIMES), scorer.classes)
        self._shares = list(usual_shares)
        if len(self._shares) != len(REGIMES) or not all(
            isfinite(p) and p > 0 for p in self._shares
        ):
            self._require("usual shares", "five numbers above zero", self._shares)

    def call(self, inputs: FloatArray) -> Calls:
        """Return the calls for (rows, 11) inputs; a row with a missing or wild input has none."""
        with np.errstate(over="ignore"):  # what is too wide becomes infinite, and is no call
            narrow = inputs.astype(np.float32)
        usable = np.flatnonzero(np.isfinite(narrow).all(axis=1))
        probabilities = np.full((len(inputs), len(REGIMES)), np.nan)
        if len(usable):
            probabilities[usable] = self._score(narrow[usable])
        return call_by_lift(probabilities, self._shares)

    def _score(self, inputs: Float32Array) -> FloatArray:
        found = self._scorer.score(inputs)
        whole = np.abs(found.sum(axis=1) - 1.0) <= _SUM_TOLERANCE
        sound = whole & ((found >= 0.0) & (found <= 1.0)).all(axis=1)
        return np.where(sound[:, None], found, np.nan)

    def _require(self, subject: str, expected: object, found: object) -> None:
        if expected != found:
            msg = (
                f"{subject} of regime model {self.name!r} must be {expected!r}; found {found!r}; "
                f"train the model again or choose the artefact that fits"
            )
            raise ValueError(msg)


def call_by_lift(probabilities: FloatArray, usual_shares: Sequence[float]) -> Calls:
    """Return the calls of (rows, 5) probabilities, NaN rows without one; see `RegimeModel`."""
    weighted = probabilities / np.sqrt(np.array(usual_shares))
    known = np.isfinite(weighted).all(axis=1)
    codes = np.full(len(weighted), NO_CALL, dtype=np.int64)
    codes[known] = weighted[known].argmax(axis=1)
    strengths = np.full(len(weighted), np.nan)
    strengths[known] = weighted[known].max(axis=1) / weighted[known].sum(axis=1)
    return Calls(codes=codes, strengths=strengths, probabilities=probabilities)
