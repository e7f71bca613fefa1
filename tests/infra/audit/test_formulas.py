"""The auditor's own features against TA-Lib, and what of the vectors it looks at."""

import numpy as np
import pytest
import talib

from infra.audit.formulas import FORMULAS, Series
from infra.audit.report import Check, Place
from infra.audit.vectors import FIRST_OF_SERIES, SAMPLED_ONE_IN, VectorAudit
from schemas.features import FEATURE_SCHEMAS, FEATURES
from schemas.fields import Provenance
from schemas.ids import bar_id, features_id
from schemas.market import BarClosed, FeaturesComputed

BARS = 600
MINUTE_NS = 60_000_000_000


@pytest.fixture(scope="module")
def walk():
    """High, low, close and volume of a random walk."""
    chance = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(chance.normal(0.0, 0.01, BARS)))
    high, low = close * (1 + chance.random(BARS) / 50), close * (1 - chance.random(BARS) / 50)
    return high, low, close, chance.random(BARS) * 9


def by_talib(name, high, low, close, volume):
    family, _, length = name.partition("_")
    macd = dict(zip(("macd", "macd_signal", "macd_hist"), talib.MACD(close), strict=True))
    bands = dict(zip(("bb_upper", "bb_middle", "bb_lower"), talib.BBANDS(close, 20), strict=True))
    stochastic = talib.STOCHF(high, low, close, 14, 3)
    others = {
        "returns": lambda: talib.ROCP(close, 1),
        "rsi_14": lambda: talib.RSI(close, 14),
        "atr_14": lambda: talib.ATR(high, low, close, 14),
        "atr_pct": lambda: talib.ATR(high, low, close, 14) / close,
        "roc_10": lambda: talib.ROC(close, 10),
        "stoch_k": lambda: stochastic[0],
        "stoch_d": lambda: stochastic[1],
        "volume_sma_20": lambda: talib.SMA(volume, 20),
        "volume_ratio": lambda: volume / talib.SMA(volume, 20),
    }
    windows = {"sma": talib.SMA, "ema": talib.EMA, "momentum": talib.MOM}
    if name in macd or name in bands:
        return {**macd, **bands}[name]
    return others[name]() if name in others else windows[family](close, int(length))


COMPARED = [
    *("returns", "rsi_14", "atr_14", "atr_pct", "roc_10", "stoch_k", "stoch_d", "volume_sma_20"),
    *("volume_ratio", "macd", "macd_signal", "macd_hist", "bb_upper", "bb_middle", "bb_lower"),
    *(name for name in FORMULAS if name.startswith(("sma_", "ema_", "momentum_"))),
]


@pytest.mark.parametrize("name", COMPARED)
def test_a_feature_equals_that_of_talib(name, walk):
    found = FORMULAS[name](Series(*walk), np.arange(BARS))
    known = ~np.isnan(found)
    assert known.sum() == BARS - FEATURES[name].warm_up_bars + 1
    expected = by_talib(name, *walk)
    known &= ~np.isnan(expected)  # TA-Lib begins all lines of one function together.
    assert known.sum() > BARS - 201
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_feature_begins_with_its_warm_up(name, walk):
    found = FORMULAS[name](Series(*walk), np.arange(BARS))
    assert np.flatnonzero(~np.isnan(found))[0] == FEATURES[name].warm_up_bars - 1


@pytest.mark.parametrize("bars", [1, 2, 13, 14, 26])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_short_series_has_one_value_a_bar(name, bars, walk):
    with np.errstate(invalid="ignore"):
        found = FORMULAS[name](Series(*(each[:bars] for each in walk)), np.arange(bars))
    assert len(found) == bars


@pytest.mark.parametrize("length", [7, 24, 30])
def test_volatility_is_the_sample_deviation_of_returns(length, walk):
    close = walk[2]
    (found,) = FORMULAS[f"volatility_{length}"](Series(*walk), np.array([BARS - 1]))
    returns = np.diff(close) / close[:-1]
    mean = returns[-length:].sum() / length
    squares = ((returns[-length:] - mean) ** 2).sum()
    assert found == pytest.approx((squares / (length - 1)) ** 0.5, rel=1e-12)


def audited(walk, change=lambda _number, _vector: None):
    """Audit the vectors of a walk, some of them changed."""
    check = Check("features", "I15")
    audit, schema = VectorAudit(check), FEATURE_SCHEMAS["fs34"]
    own = {name: FORMULAS[name](Series(*walk), np.arange(BARS)) for name in FORMULAS}
    for number, (high, low, close, volume) in enumerate(zip(*walk, strict=True)):
        close_ns = number * MINUTE_NS
        place = {"venue": "v", "symbol": "s", "timeframe": "1m", "provenance": Provenance.RECORDED}
        audit.see_bar(
            BarClosed(
                **place, id=bar_id("v", "s", "1m", close_ns), cause="", open_time_ns=0,
                close_time_ns=close_ns, open=close, high=high, low=low, close=close, volume=volume,
                buy_volume=None, trades=1, spread_bps_mean=None, gap_bars=0, duplicates=0,
                partition=0, first_offset=0, first_line=0, last_offset=0, last_line=0,
            )
        )  # fmt: skip
        values = [float(own[name][number]) if name in own else 1.0 for name in schema.names]
        vector = [None if np.isnan(value) else value for value in values]
        change(number, vector)
        message = FeaturesComputed(
            **place, id=features_id("v", "s", "1m", close_ns), cause="", close_time_ns=close_ns,
            schema_name=schema.name, schema_hash=schema.schema_hash, vector=vector,
            missing_mask=sum(1 << i for i, value in enumerate(vector) if value is None),
            partition=0, first_offset=0, last_offset=0,
        )  # fmt: skip
        audit.see_vector(Place("market.features", 0, number), message)
    audit.compare()
    return check.result()


def test_the_sample_holds_the_first_vectors_and_some_of_the_others(walk):
    whole = audited(walk)
    assert not whole.violations
    sampled = int(whole.skipped.split()[0])
    beyond = BARS - FIRST_OF_SERIES
    assert 0 < sampled - FIRST_OF_SERIES < 3 * beyond / SAMPLED_ONE_IN
    assert audited(walk).skipped == whole.skipped


@pytest.mark.parametrize("name", ["rsi_14", "atr_14", "ema_50", "sma_30", "volume_ratio"])
def test_a_value_off_by_a_little_names_its_row(name, walk):
    place = FEATURE_SCHEMAS["fs34"].names.index(name)

    def spoil(number, vector):
        if number == 120:
            vector[place] *= 1 + 1e-7

    (found,) = audited(walk, spoil).first
    assert found.rule == f"{name} follows from the bars"
    assert (found.topic, found.offset) == ("market.features", 120)
    assert found.key == features_id("v", "s", "1m", 120 * MINUTE_NS)


def test_a_wrong_recursion_is_found_beyond_the_first_vectors(walk):
    """Whoever starts an average anew in the middle cannot hit a gap between sampled rows."""
    place = FEATURE_SCHEMAS["fs34"].names.index("rsi_14")

    def spoil(number, vector):
        if number >= FIRST_OF_SERIES:
            vector[place] += 0.001

    found = audited(walk, spoil)
    assert found.violations > 5
    assert found.first[0].offset >= FIRST_OF_SERIES
