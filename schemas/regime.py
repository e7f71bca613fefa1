"""The regimes of a market, what others called them, and what a regime model reads.

`rg11` is the predecessor's list of eleven inputs. Its names said windows but no units; here a slope
is a fraction per bar, so that a threshold cannot be read as per day where the bars are hours.
"""

from collections.abc import Mapping
from enum import StrEnum

from schemas.features import FEATURES, FeatureDefinition, FeatureKind, FeatureSchema


class Regime(StrEnum):
    """State of a market."""

    BULL_TRENDING = "bull_trending"
    BEAR_TRENDING = "bear_trending"
    HIGH_VOL_CHOPPY = "high_vol_choppy"
    LOW_VOL_RANGE = "low_vol_range"
    CRISIS = "crisis"
    UNKNOWN = "unknown"
    """Too few bars, or no regime has been confirmed yet."""


REGIMES: tuple[Regime, ...] = tuple(one for one in Regime if one is not Regime.UNKNOWN)
"""Order of the probability columns of a regime model."""


class Vocabulary(StrEnum):
    """Who else named regimes."""

    BRAIN_OVERVIEW = "brain_overview"
    """Bull, Bear, High Vol, Low Vol, Range-Bound; it has no crisis."""
    BRAIN_CLASSIFIER = "brain_classifier"
    """Bull, Bear, High Vol Choppy, Low Vol Range, Crisis."""
    META = "meta"
    """BULL, BEAR, RANGE, VOLATILE, UNCERTAIN."""
    EXIT_BRAIN = "exit_brain"
    """NORMAL, VOLATILE, TRENDING, RANGE_BOUND."""


_WORDS: Mapping[Vocabulary, tuple[str, str, str, str, str, str]] = {
    Vocabulary.BRAIN_OVERVIEW: ("Bull", "Bear", "High Vol", "Low Vol", "High Vol", "High Vol"),
    Vocabulary.BRAIN_CLASSIFIER: (
        *("Bull", "Bear", "High Vol Choppy", "Low Vol Range", "Crisis", "High Vol Choppy"),
    ),
    Vocabulary.META: ("BULL", "BEAR", "VOLATILE", "RANGE", "VOLATILE", "UNCERTAIN"),
    Vocabulary.EXIT_BRAIN: (
        *("TRENDING", "TRENDING", "VOLATILE", "RANGE_BOUND", "VOLATILE", "NORMAL"),
    ),
}
"""In the order of `Regime`. Who cannot say unknown hears the more careful word."""

TRANSLATIONS: Mapping[Vocabulary, Mapping[Regime, str]] = {
    vocabulary: dict(zip(Regime, words, strict=True)) for vocabulary, words in _WORDS.items()
}
"""What each vocabulary says to each regime; every regime has a word in every vocabulary."""


def translate(regime: Regime, vocabulary: Vocabulary) -> str:
    """Return the word of `vocabulary` for `regime`."""
    return TRANSLATIONS[vocabulary][regime]


SLOPES: tuple[tuple[int, int], ...] = ((20, 5), (50, 10), (200, 20))
"""Length of the mean and bars between its two ends, per slope."""
RANGE_BARS = (20, 100)
"""Bars of the short and of the long mean of the true range."""


def _define(name: str, bars: int, formula: str) -> FeatureDefinition:
    return FeatureDefinition(
        name=name, unit="fraction", formula=formula, warm_up_bars=bars, kind=FeatureKind.RATIO
    )


_DEFINITIONS: tuple[FeatureDefinition, ...] = (
    *(
        _define(
            f"sma_{n}_slope",
            n + lag,
            f"(sma_{n} / sma_{n}[-{lag}] - 1) / {lag}: mean change per bar over {lag} bars",
        )
        for n, lag in SLOPES
    ),
    _define(
        "true_range_ratio",
        RANGE_BARS[1] + 1,
        (
            "mean true range of the last 20 bars over that of the last 100; true range = "
            "max(high - low, |high - close[-1]|, |low - close[-1]|); missing if the latter is zero"
        ),
    ),
    FEATURES["rsi_14"],
    _define("macd_pct", 26, "macd / close (a fraction, in spite of its name)"),
    _define("macd_signal_pct", 34, "macd_signal / close (a fraction, in spite of its name)"),
    FEATURES["volume_ratio"],
    *(_define(f"close_to_sma_{n}", n, f"close / sma_{n} - 1") for n, _ in SLOPES),
)

RG11 = FeatureSchema(name="rg11", version=1, features=_DEFINITIONS)
"""What a regime rule or model reads; scale-free as it stands."""
