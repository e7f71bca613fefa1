"""The two ordered lists of model inputs, `fs34` and `fs64`, with unit, formula and warm-up of each.

`fs34` is the predecessor's 25 inputs and nine more; `fs64` is its 49 "unified" inputs and fifteen
that come from outside the bars. A feature has one name and one formula in both lists, so the names
say their windows. How the predecessor's names were resolved:

- `rsi`, `roc`, `adx`, `atr`, `volume_sma`, `volatility` became `rsi_14`, `roc_10`, `adx_14`,
  `atr_14`, `volume_sma_20`, `volatility_24`;
- `regime` is one flag per canonical regime (five); no flag is set while the regime is unknown;
- `bb_middle` and `sma_20` are the same number under two names, because the 49 hold both;
- `ema_*_dist` is measured against the average, not against the close;
- `relative_spread` is the predecessor's bar-based range, `(high - low) / ((high + low) / 2)`: bars
  carry no quotes; the quoted spread is `spread_bps`;
- `stoch_k` and `stoch_d` are the fast stochastic, which is what the predecessor computed;
- `volatility_*` is not annualised: the bars of a schema may have any timeframe;
- where the predecessor averaged plainly (RSI, ATR, ADX, directional indicators) Wilder's smoothing
  seeded with a mean is used, as TA-Lib does; where it added 1e-10 to a denominator the value is
  missing when the denominator is zero.
"""

from enum import StrEnum
from functools import cached_property
from hashlib import sha256

import msgspec
from msgspec import Struct


class FeatureKind(StrEnum):
    """How a feature scales with the price or the volume of its instrument."""

    LEVEL = "level"
    """A price; comparable between instruments only as a ratio to the close."""
    DIFFERENCE = "difference"
    """A difference of prices; comparable only as a fraction of the close."""
    VOLUME = "volume"
    """A quantity or a running total of quantities; comparable only as a ratio of volumes."""
    RATIO = "ratio"
    """Free of scale, without fixed bounds."""
    BOUNDED = "bounded"
    """Free of scale, within fixed bounds."""
    FLAG = "flag"
    """0 or 1."""
    EXTERNAL = "external"
    """Not a function of the bars; missing until a source delivers it, never zero."""


class FeatureDefinition(Struct, frozen=True, kw_only=True):
    """One model input: its name, unit, formula and the bars it needs."""

    name: str
    unit: str
    formula: str
    warm_up_bars: int
    """Bars of a series up to and including the first that has a value; 0 for external inputs."""
    kind: FeatureKind


class FeatureSchema(Struct, frozen=True, kw_only=True, dict=True):
    """An ordered list of model inputs; a vector is meaningless without its schema's hash."""

    name: str
    version: int
    features: tuple[FeatureDefinition, ...]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in vector order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def schema_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over the schema's canonical JSON.

        Canonical: keys sorted, no white space, UTF-8. Any change of order, name, unit, formula,
        kind or warm-up changes the hash, so a model fed by another definition is refused.
        """
        return sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of a model's input."""
        return (len(self.features),)


class SequenceSchema(Struct, frozen=True, kw_only=True, dict=True):
    """What a sequence model reads: the scale-free view of some features over the last bars."""

    name: str
    version: int
    steps: int
    """Bars in a window, the oldest first."""
    features: tuple[FeatureDefinition, ...]
    """The channels, in order."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the channels in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def schema_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over the canonical JSON; see `FeatureSchema`."""
        return sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of a model's input: (steps, channels)."""
        return (self.steps, len(self.features))


_LEVEL, _DIFFERENCE, _VOLUME = FeatureKind.LEVEL, FeatureKind.DIFFERENCE, FeatureKind.VOLUME
_RATIO, _BOUNDED, _FLAG = FeatureKind.RATIO, FeatureKind.BOUNDED, FeatureKind.FLAG
_EXTERNAL = FeatureKind.EXTERNAL

_BAND = "the mean and the population standard deviation (ddof 0) of the last 20 closes"
_RANGE = "the true range max(high - low, |high - close[-1]|, |low - close[-1]|)"

_TABLE: tuple[tuple[str, str, FeatureKind, int, str], ...] = (
    ("returns", "fraction", _RATIO, 2, "close / close[-1] - 1"),
    ("log_returns", "fraction", _RATIO, 2, "ln(close / close[-1])"),
    ("price_range", "fraction", _RATIO, 1, "(high - low) / close"),
    ("body_size", "fraction", _RATIO, 1, "|close - open| / close"),
    ("upper_wick", "fraction", _RATIO, 1, "(high - max(open, close)) / close"),
    ("lower_wick", "fraction", _RATIO, 1, "(min(open, close) - low) / close"),
    *(
        (f"sma_{n}", "price", _LEVEL, n, f"mean of the last {n} closes")
        for n in (7, 14, 20, 30, 50)
    ),
    *(
        (
            f"ema_{n}",
            "price",
            _LEVEL,
            n,
            f"ema[-1] + 2 / {n + 1} * (close - ema[-1]), seeded with the mean of the first {n} closes",
        )
        for n in (7, 9, 14, 21, 30, 50, 200)
    ),
    *(
        (f"ema_{n}_dist", "fraction", _RATIO, n, f"(close - ema_{n}) / ema_{n}")
        for n in (9, 21, 50, 200)
    ),
    *(
        (
            f"volatility_{n}",
            "fraction",
            _RATIO,
            n + 1,
            f"sample standard deviation (ddof 1) of the last {n} returns, not annualised",
        )
        for n in (7, 24, 30)
    ),
    (
        "rsi_14",
        "percent",
        _BOUNDED,
        15,
        (
            "100 * gain / (gain + loss), gain and loss being Wilder's means over 14 of the rises and "
            "of the falls of the close, seeded with their means; missing if both are zero"
        ),
    ),
    (
        "macd",
        "price",
        _DIFFERENCE,
        26,
        "ema_12 - ema_26 of the close, both seeded with a mean that ends at the 26th bar",
    ),
    ("macd_signal", "price", _DIFFERENCE, 34, "ema_9 of macd, seeded with its first 9 values"),
    ("macd_hist", "price", _DIFFERENCE, 34, "macd - macd_signal"),
    (
        "stoch_k",
        "percent",
        _BOUNDED,
        14,
        (
            "100 * (close - lowest) / (highest - lowest) over the lows and highs of the last 14 bars; "
            "missing if highest = lowest"
        ),
    ),
    ("stoch_d", "percent", _BOUNDED, 16, "mean of the last 3 stoch_k; missing if one is missing"),
    ("roc_10", "percent", _RATIO, 11, "100 * (close / close[-10] - 1)"),
    (
        "adx_14",
        "percent",
        _BOUNDED,
        28,
        (
            "Wilder's mean over 14 of 100 * |plus_di - minus_di| / (plus_di + minus_di), seeded with "
            "the mean of the first 14; missing on a bar where that quotient has no value"
        ),
    ),
    (
        "plus_di",
        "percent",
        _BOUNDED,
        15,
        (
            "100 * Wilder's sum over 14 of the rise of the high where it exceeds the fall of the low, "
            f"over Wilder's sum over 14 of {_RANGE}; missing if the latter is zero"
        ),
    ),
    (
        "minus_di",
        "percent",
        _BOUNDED,
        15,
        (
            "100 * Wilder's sum over 14 of the fall of the low where it exceeds the rise of the high, "
            f"over Wilder's sum over 14 of {_RANGE}; missing if the latter is zero"
        ),
    ),
    ("bb_middle", "price", _LEVEL, 20, "mean of the last 20 closes"),
    ("bb_upper", "price", _LEVEL, 20, f"mean + 2 * deviation, {_BAND}"),
    ("bb_lower", "price", _LEVEL, 20, f"mean - 2 * deviation, {_BAND}"),
    ("bb_width", "fraction", _RATIO, 20, "(bb_upper - bb_lower) / bb_middle"),
    (
        "bb_position",
        "fraction",
        _RATIO,
        20,
        "(close - bb_lower) / (bb_upper - bb_lower); missing if the band has no width",
    ),
    (
        "atr_14",
        "price",
        _DIFFERENCE,
        15,
        f"Wilder's mean over 14 of {_RANGE}, seeded with the mean of the first 14",
    ),
    ("atr_pct", "fraction", _RATIO, 15, "atr_14 / close (a fraction, in spite of its name)"),
    ("volume_sma_20", "quantity", _VOLUME, 20, "mean of the last 20 volumes"),
    ("volume_ratio", "fraction", _RATIO, 20, "volume / volume_sma_20; missing if that is zero"),
    ("obv", "quantity", _VOLUME, 1, "running sum of volume * sign(close - close[-1]), first 0"),
    ("obv_ema", "quantity", _VOLUME, 20, "ema_20 of obv, seeded with the mean of its first 20"),
    ("vpt", "quantity", _VOLUME, 1, "running sum of volume * returns, first 0"),
    (
        "is_doji",
        "flag",
        _FLAG,
        1,
        "|close - open| / (high - low) < 0.1; missing if high = low",
    ),
    (
        "is_hammer",
        "flag",
        _FLAG,
        1,
        "min(open, close) - low > 2 * |close - open| and close != open",
    ),
    ("is_engulfing", "flag", _FLAG, 2, "|close - open| > 1.5 * |close[-1] - open[-1]|"),
    ("gap_up", "flag", _FLAG, 2, "low > high[-1]"),
    ("gap_down", "flag", _FLAG, 2, "high < low[-1]"),
    *((f"momentum_{n}", "price", _DIFFERENCE, n + 1, f"close - close[-{n}]") for n in (5, 10, 20)),
    ("acceleration", "price", _DIFFERENCE, 7, "momentum_5 - momentum_5[-1]"),
    ("relative_spread", "fraction", _RATIO, 1, "(high - low) / ((high + low) / 2)"),
    (
        "signed_flow",
        "fraction",
        _BOUNDED,
        1,
        "(2 * buy_volume - volume) / volume; missing if the side is unknown or the volume zero",
    ),
    (
        "spread_bps",
        "bps",
        _RATIO,
        1,
        "mean quoted spread over the bar's quotes; missing without quotes",
    ),
    ("divergence_bps", "bps", _EXTERNAL, 0, "price against the same kind of instrument elsewhere"),
    ("funding_rate", "fraction", _EXTERNAL, 0, "funding rate of the current interval"),
    ("funding_delta", "fraction", _EXTERNAL, 0, "funding_rate against the previous interval"),
    ("basis_bps", "bps", _EXTERNAL, 0, "perpetual price against its index"),
    ("lead_lag_ms", "milliseconds", _EXTERNAL, 0, "how far the leading venue is ahead"),
    ("open_interest_change", "fraction", _EXTERNAL, 0, "open interest against the bar before"),
    ("book_imbalance", "fraction", _EXTERNAL, 0, "(bid - ask) / (bid + ask) of the sizes at best"),
    *(
        (f"regime_{name}", "flag", _EXTERNAL, 0, f"1 while the regime is {name.upper()}, else 0")
        for name in (
            "bull_trending",
            "bear_trending",
            "high_vol_choppy",
            "low_vol_range",
            "crisis",
        )
    ),
    ("sentiment", "fraction", _EXTERNAL, 0, "polarity of the news, -1 to 1"),
)

FEATURES: dict[str, FeatureDefinition] = {
    name: FeatureDefinition(name=name, unit=unit, kind=kind, warm_up_bars=bars, formula=formula)
    for name, unit, kind, bars, formula in _TABLE
}
"""Every feature by name. `x[-n]` in a formula is the value n bars before; no index means this bar."""

FS34: tuple[str, ...] = (
    *("returns", "log_returns"),
    *("sma_7", "sma_14", "sma_30", "sma_50"),
    *("ema_7", "ema_14", "ema_30", "ema_50"),
    *("volatility_7", "volatility_30", "rsi_14"),
    *("macd", "macd_signal", "macd_hist"),
    *("bb_upper", "bb_lower", "bb_position", "atr_14"),
    *("volume_sma_20", "volume_ratio"),
    *("momentum_5", "momentum_10", "momentum_20"),
    *("stoch_k", "stoch_d", "roc_10", "adx_14", "plus_di", "minus_di"),
    *("atr_pct", "bb_width", "relative_spread"),
)
"""The predecessor's 25 inputs in its order, then nine that it lacked."""

FS64: tuple[str, ...] = (
    *("returns", "log_returns", "price_range", "body_size", "upper_wick", "lower_wick"),
    *("rsi_14", "macd", "macd_signal", "macd_hist", "stoch_k", "stoch_d", "roc_10"),
    *("ema_9", "ema_9_dist", "ema_21", "ema_21_dist"),
    *("ema_50", "ema_50_dist", "ema_200", "ema_200_dist"),
    *("sma_20", "sma_50", "adx_14", "plus_di", "minus_di"),
    *("bb_middle", "bb_upper", "bb_lower", "bb_width", "bb_position"),
    *("atr_14", "atr_pct", "volatility_24"),
    *("volume_sma_20", "volume_ratio", "obv", "obv_ema", "vpt"),
    *("is_doji", "is_hammer", "is_engulfing", "gap_up", "gap_down"),
    *("momentum_5", "momentum_10", "momentum_20", "acceleration", "relative_spread"),
    *("divergence_bps", "funding_rate", "funding_delta", "basis_bps", "lead_lag_ms"),
    *("open_interest_change", "book_imbalance", "signed_flow", "spread_bps"),
    *("regime_bull_trending", "regime_bear_trending", "regime_high_vol_choppy"),
    *("regime_low_vol_range", "regime_crisis", "sentiment"),
)
"""The predecessor's 49 inputs in its order, then fifteen from outside the price and volume."""


def _build_schema(name: str, version: int, names: tuple[str, ...]) -> FeatureSchema:
    features = tuple(FEATURES[feature] for feature in names)
    return FeatureSchema(name=name, version=version, features=features)


FEATURE_SCHEMAS: dict[str, FeatureSchema] = {
    "fs34": _build_schema("fs34", 1, FS34),
    "fs64": _build_schema("fs64", 1, FS64),
}
"""The schemas by name."""


SEQUENCE_SCHEMAS: dict[str, SequenceSchema] = {
    "sq120": SequenceSchema(
        name="sq120",
        version=1,
        steps=120,
        features=tuple(
            FEATURES[name] for name in ("log_returns", "relative_spread", "volume_ratio")
        ),
    ),
}
"""The windows that sequence models read, by name."""
