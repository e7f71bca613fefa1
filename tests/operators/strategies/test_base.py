import polars as pl
import pytest

from operators import strategies
from operators.signals import SignalMachine
from operators.strategies import build_strategies, discover_strategies, required_indicators
from operators.strategies.base import number
from schemas.settings import StrategySettings, default_strategies
from tests.operators.recorded_bars import hourly_bars, with_features
from tests.operators.strategies.golden_rows import build, judge, load_cases

NAMES = sorted(default_strategies())

FIFTH = '''
"""Buy a rising close, sell a falling one."""

from operators.strategies.base import Strategy, StrategyParameters


class RisingClose(Strategy[StrategyParameters]):
    name = "rising_close"
    version = "1"
    default_timeframe = "1h"
    parameters_type = StrategyParameters

    def entry(self, bars):
        return bars["close"] > bars["prior_close"]

    def exit(self, bars):
        return bars["close"] < bars["prior_close"]

    def stop_price(self, bars):
        return bars["low"] * 0.99

    def reason_entry(self, row):
        return f"close {row['close']} above {row['prior_close']}"

    def reason_exit(self, row):
        return f"close {row['close']} below {row['prior_close']}"
'''


@pytest.fixture
def fifth(tmp_path, monkeypatch):
    """A module that lies in a folder of the package's path."""
    (tmp_path / "rising_close.py").write_text(FIFTH)
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    yield
    import sys

    sys.modules.pop("operators.strategies.rising_close", None)


def test_the_strategies_are_found_by_their_modules_alone():
    assert list(discover_strategies()) == sorted({*NAMES, "ensemble"})


@pytest.mark.acceptance("S-161", criterion="New strategy added by one file + config, no core edit")
def test_a_fifth_strategy_is_one_file_and_one_setting(fifth, measured):
    built = build_strategies({**default_strategies(), "rising_close": StrategySettings()})
    assert [strategy.name for strategy in built] == sorted([*NAMES, "rising_close"])
    assert "prior_close" in required_indicators(built)
    bars = hourly_bars().head(60)
    frame = with_features(bars).with_columns(
        prior_close=pl.col("close").shift(1).over("symbol").cast(pl.Float64)
    )
    found = SignalMachine(built).on_features(frame)
    signals = [signal for signal in found if signal.strategy == "rising_close"]
    assert {signal.action for signal in signals} == {"enter", "exit"}
    assert all(len(signal.votes) == 6 for signal in signals)
    measured(f"{len(signals)} signals of a strategy that is one file")


def test_a_name_used_twice_is_refused(fifth, tmp_path):
    (tmp_path / "same_again.py").write_text(FIFTH)
    with pytest.raises(ValueError, match="name must belong to one class; found 'rising_close'"):
        discover_strategies()


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="found 'ma_crosover'; did you mean 'ma_crossover'"):
        build_strategies({"ma_crosover": StrategySettings(enabled=False)})


def test_an_unknown_parameter_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="found 'stop_art'; did you mean 'stop_atr'"):
        build("rsi_mean_reversion", stop_art=2)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "two", None])
def test_a_parameter_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="parameter 'stop_atr' of strategy 'ma_crossover'"):
        build("ma_crossover", stop_atr=value)


def test_a_disabled_strategy_is_not_built():
    chosen = {name: StrategySettings(enabled=name == NAMES[0]) for name in NAMES}
    assert [one.name for one in build_strategies(chosen)] == NAMES[:1]


def test_declared_timeframes_can_be_overridden():
    declared = {one.name: one.timeframe for one in build_strategies(default_strategies())}
    assert declared == {
        "bollinger_bounce": "1h",
        "breakout_momentum": "1d",
        "ensemble": "1h",
        "ma_crossover": "1h",
        "rsi_mean_reversion": "1h",
    }
    overridden = build_strategies({"breakout_momentum": StrategySettings(timeframe="5m")})
    assert overridden[0].timeframe == "5m"


def test_content_hash_tells_parameters_and_timeframe_apart():
    chosen = [
        StrategySettings(),
        StrategySettings(parameters={"stop_atr": 2.5}),
        StrategySettings(timeframe="5m"),
    ]
    hashes = [build_strategies({"rsi_mean_reversion": one})[0].content_hash for one in chosen]
    assert len(set(hashes)) == 3
    assert hashes[0] == build("rsi_mean_reversion", stop_atr=2.0).content_hash


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), float("-inf")])
def test_any_missing_input_of_an_entry_makes_it_false_and_the_stance_unknown(name, missing):
    strategy = build(name)
    row = next(case["row"] for case in load_cases(name) if case["entry"])
    assert judge(strategy, row)["entry"]
    for column in strategy.entry_inputs:
        found = judge(strategy, row | {column: missing})
        if found["exit"]:
            continue
        assert (found["entry"], found["unknown"]) == (False, True), column


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), float("-inf")])
def test_any_missing_input_of_an_exit_makes_it_false_and_the_stance_unknown(name, missing):
    strategy = build(name)
    row = next(case["row"] for case in load_cases(name) if case["exit"])
    for column in strategy.exit_inputs:
        found = judge(strategy, row | {column: missing})
        assert found == {"entry": False, "exit": False, "unknown": True}, column


def test_numbers_in_reasons_keep_small_and_large_prices_readable():
    found = [number(value) for value in (34.999, 61828.01, 0.12345678, 97.5, 2.0)]
    assert found == ["34.999", "61828.01", "0.12345678", "97.5", "2"]
