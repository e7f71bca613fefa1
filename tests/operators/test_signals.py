import math
import pickle
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.signals import SignalMachine
from operators.strategies import build_strategies
from schemas.codec import encode
from schemas.fields import Action, Stance
from schemas.ids import features_id
from schemas.settings import StrategySettings, default_strategies
from schemas.signals import SignalEmitted
from tests.operators.councils import MODELS, build_council
from tests.operators.recorded_bars import recorded_frame

HOUR_NS = 3_600_000_000_000


def build_machine(strategies=None, models=None, **changes) -> SignalMachine:
    chosen = default_strategies() if strategies is None else strategies
    council = None if models == {} else build_council(models, **changes)
    return SignalMachine(build_strategies(chosen), council)


@cache
def excerpt() -> pl.DataFrame:
    """Return 12 days of three symbols, hourly and daily, after everything has warmed up."""
    symbols = ["BTCUSDT", "DOGEUSDT", "LINKUSDT"]
    times = recorded_frame()["close_time_ns"]
    start = times.min() + 25 * 24 * HOUR_NS
    within = pl.col("close_time_ns").is_between(start, start + 12 * 24 * HOUR_NS)
    return recorded_frame().filter(within & pl.col("symbol").is_in(symbols))


@cache
def uncut() -> tuple[list[SignalEmitted], bytes]:
    machine = build_machine()
    return machine.on_features(excerpt()), pickle.dumps(machine.state)


def make_bars(closes, **columns):
    """Return hand-made hourly bars of one symbol on which every input is known and quiet."""
    count = len(closes)
    frame = excerpt().filter(pl.col("timeframe") == "1h", pl.col("symbol") == "BTCUSDT").head(count)
    assert frame.height == count
    given_columns = {name: pl.Series(name, values) for name, values in columns.items()}
    quiet = {"rsi_14": pl.lit(50.0), "atr_14": pl.lit(1.0)}
    close = pl.Series("close", closes, dtype=pl.Float64)
    return frame.with_columns(close, **(quiet | given_columns))


def only_rsi(**models):
    return build_machine({"rsi_mean_reversion": StrategySettings()}, models)


def restarted(machine, **changes):
    state = pickle.loads(pickle.dumps(machine.state))
    again = build_machine(state=state.council, **changes)
    again.state = state
    return again


def actions(signals):
    return [(signal.event_time_ns, signal.action) for signal in signals]


def test_excerpt_makes_every_voter_speak():
    signals, _ = uncut()
    votes = [vote for one in signals for vote in one.votes]
    assert {vote.voter for vote in votes if vote.weight > 0} == set(MODELS)
    spoken = {vote.voter for vote in votes if vote.stance is not Stance.ABSTAIN}
    assert spoken == {*default_strategies(), *MODELS}
    assert {one.strategy for one in signals} == set(default_strategies())
    assert len(signals) > 50


@settings(max_examples=10)
@given(st.lists(st.floats(0.0, 1.0), max_size=12), st.booleans())
def test_any_cut_and_any_pickle_in_between_changes_nothing(cuts, restart):
    expected, state = uncut()
    machine, found = build_machine(), []
    height = excerpt().height
    for start, end in pairwise([0, *sorted(int(cut * height) for cut in cuts), height]):
        found += machine.on_features(excerpt()[start:end])
        if restart:
            machine = restarted(machine)
    found.sort(key=lambda one: (one.event_time_ns, one.venue, one.symbol, one.strategy, one.action))
    assert [encode(one) for one in found] == [encode(one) for one in expected]
    again = build_machine()
    again.state = pickle.loads(state)
    assert {key: value.tolist() for key, value in machine.state.holds.items()} == {
        key: value.tolist() for key, value in again.state.holds.items()
    }


def test_one_bar_at_a_time_equals_all_at_once():
    machine, found = build_machine(), []
    for _, bars in excerpt().group_by("close_time_ns", maintain_order=True):
        found += machine.on_features(bars)
    assert [encode(one) for one in found] == [encode(one) for one in uncut()[0]]


@pytest.mark.parametrize("restart", [False, True])
def test_a_cut_between_an_hourly_and_the_daily_bar_of_one_close_changes_nothing(restart):
    expected = [encode(one) for one in uncut()[0]]
    daily = (excerpt()["timeframe"] == "1d").arg_true().to_list()
    firsts = [row for row in daily if row - 1 not in daily]
    assert all(
        excerpt()["close_time_ns"][row - 1] == excerpt()["close_time_ns"][row] for row in firsts
    )
    machine, found = build_machine(), []
    for start, end in pairwise([0, *daily, excerpt().height]):
        found += machine.on_features(excerpt()[start:end])
        if restart:
            machine = restarted(machine)
    found.sort(key=lambda one: (one.event_time_ns, one.venue, one.symbol, one.strategy, one.action))
    assert [encode(one) for one in found] == expected


def test_a_signal_comes_at_the_rising_edge_only():
    bars = make_bars([100.0] * 7, rsi_14=[50.0, 34.0, 33.0, 36.0, 34.0, 70.0, 70.0])
    times = bars["close_time_ns"].to_list()
    assert actions(only_rsi().on_features(bars)) == [
        (times[1], Action.ENTER),
        (times[4], Action.ENTER),
        (times[5], Action.EXIT),
    ]


def test_a_missing_input_ends_a_condition():
    bars = make_bars([100.0] * 3, rsi_14=[34.0, None, 34.0])
    assert len(only_rsi().on_features(bars)) == 2


def test_a_condition_of_one_symbol_says_nothing_about_another():
    own = make_bars([100.0] * 2, rsi_14=[34.0, 34.0])
    other = own.with_columns(symbol=pl.lit("ETHUSDT"))
    both = pl.concat([own, other]).sort("close_time_ns", "symbol")
    found = only_rsi().on_features(both)
    assert [(one.symbol, one.event_time_ns) for one in found] == [
        ("BTCUSDT", own["close_time_ns"][0]),
        ("ETHUSDT", own["close_time_ns"][0]),
    ]


def test_an_exit_wins_over_an_entry_on_the_same_bar():
    strategies = {"bollinger_bounce": StrategySettings()}
    bars = make_bars([100.0], low=[90.0], high=[110.0], bb_lower=[95.0], bb_upper=[105.0])
    found = build_machine(strategies, {}).on_features(bars.with_columns(rsi_14=pl.lit(40.0)))
    assert [one.action for one in found] == [Action.EXIT]


def test_an_entry_carries_stop_target_and_reason_with_its_numbers():
    bars = make_bars([100.0], rsi_14=[34.2], atr_14=[1.25])
    (signal,) = only_rsi().on_features(bars)
    assert (signal.action, signal.stance) == (Action.ENTER, Stance.BUY)
    assert (signal.stop_price, signal.target_price, signal.trail_distance) == (97.5, 103.75, None)
    assert signal.reason.startswith("RSI 34.2 below 35; stop 2 x ATR 1.25 = 97.5")
    bar = bars.row(0, named=True)
    assert signal.bar_id == bar["id"]
    assert signal.cause == features_id("binance_spot", "BTCUSDT", "1h", bar["close_time_ns"])
    assert signal.provenance == "reconstructed"


def test_an_exit_proposes_no_prices():
    (signal,) = only_rsi().on_features(make_bars([100.0], rsi_14=[66.0]))
    assert (signal.action, signal.stance) == (Action.EXIT, Stance.SELL)
    assert (signal.stop_price, signal.target_price, signal.trail_distance) == (None, None, None)


def test_the_score_follows_from_the_votes_that_are_recorded_with_it():
    pooled = [one for one in uncut()[0] if one.probability_buy is not None]
    assert len(pooled) > 50
    for signal in pooled:
        cast = [vote for vote in signal.votes if vote.weight > 0.0]
        assert sum(vote.weight for vote in cast) == pytest.approx(1.0, abs=1e-9)
        sell, hold, buy = (
            math.exp(sum(vote.weight * math.log(getattr(vote, name)) for vote in cast))
            for name in ("probability_sell", "probability_hold", "probability_buy")
        )
        lean = (buy - sell) / (sell + hold + buy) * signal.multiplier
        assert signal.score == pytest.approx(max(-0.95, min(0.95, lean)), abs=1e-12)
        assert signal.confidence == max(
            signal.probability_sell, signal.probability_hold, signal.probability_buy
        )
        assert signal.agreement in {"unanimous", "strong", "split", "weak", ""}


def test_the_vote_of_a_rule_weighs_nothing():
    rules = [v for one in uncut()[0] for v in one.votes if v.kind == "rule"]
    assert {vote.weight for vote in rules} == {0.0}


def test_configured_weights_are_recorded_beside_those_in_effect():
    models = [v for one in uncut()[0] for v in one.votes if v.kind != "rule"]
    assert {vote.weight_configured for vote in models} == {1.0 / 3.0}


def test_a_vote_without_its_inputs_abstains_and_never_holds():
    signals = only_others_missing()
    (vote,) = [vote for vote in signals[0].votes if vote.voter == "bollinger_bounce"]
    assert vote.stance is Stance.ABSTAIN
    assert vote.weight == 0.0
    assert vote.probability_hold is None
    assert vote.reason == "missing inputs: bb_lower"


def only_others_missing():
    strategies = {"rsi_mean_reversion": StrategySettings(), "bollinger_bounce": StrategySettings()}
    bars = make_bars([100.0], rsi_14=[34.0], bb_lower=[None], bb_upper=[1e9])
    return build_machine(strategies, {}).on_features(
        bars.with_columns(pl.col("bb_lower").cast(pl.Float64))
    )


def test_without_models_the_score_is_zero():
    signal = only_others_missing()[0]
    assert (signal.score, signal.probability_buy, signal.agreement) == (0.0, None, "")


def test_a_bar_of_another_timeframe_takes_the_newest_opinion_and_says_how_old_it_is():
    hourly = excerpt().filter(pl.col("timeframe") == "1h")
    slow = {"bollinger_bounce": StrategySettings(timeframe="5m")}
    bars = excerpt().filter(pl.col("timeframe") == "1h").with_columns(timeframe=pl.lit("5m"))
    late = bars.with_columns(close_time_ns=pl.col("close_time_ns") + 300_000_000_000)
    both = pl.concat([hourly, late]).sort("close_time_ns", "symbol", "timeframe")
    found = build_machine(slow).on_features(both)
    assert len(found) > 20
    opinions = {
        (one.event_time_ns, one.symbol): one
        for one in build_machine({"rsi_mean_reversion": always()}).on_features(hourly)
    }
    compared = 0
    for signal in found:
        (model,) = [vote for vote in signal.votes if vote.voter == "lightgbm"]
        assert model.reason.endswith("; on the 1h bar closed 300 s before")
        own = opinions.get((signal.event_time_ns - 300_000_000_000, signal.symbol))
        if own is not None:
            compared += 1
            assert signal.score == own.score
    assert compared


def always():
    return StrategySettings(parameters={"rsi_entry_max": 60.0, "rsi_exit_min": 61.0})


def test_an_opinion_older_than_a_bar_says_nothing():
    slow = {"breakout_momentum": StrategySettings()}
    hourly = excerpt().filter(pl.col("timeframe") == "1h")
    machine = build_machine(slow)
    machine.on_features(hourly.head(60))
    daily = recorded_frame().filter(pl.col("timeframe") == "1d", pl.col("symbol") == "BTCUSDT")
    signals = machine.on_features(daily.tail(80))
    assert signals
    for signal in signals:
        models = [vote for vote in signal.votes if vote.kind != "rule"]
        assert {vote.stance for vote in models} == {Stance.ABSTAIN}
        assert {vote.reason for vote in models} == {"no 1h bar closed within one bar before"}
        assert signal.score == 0.0


def test_a_rule_of_another_timeframe_abstains_and_says_so():
    daily = next(one for one in uncut()[0] if one.timeframe == "1d")
    reasons = {v.voter: v.reason for v in daily.votes if v.kind == "rule" and v.stance == "abstain"}
    assert reasons.keys() == set(default_strategies()) - {"breakout_momentum"}
    assert set(reasons.values()) == {"votes on 1h bars; this bar is 1d"}


def test_a_rule_that_neither_enters_nor_exits_holds_and_counts():
    held = [v for s in uncut()[0] for v in s.votes if v.kind == "rule" and v.stance == "hold"]
    assert held
    assert {(vote.probability_buy, vote.probability_hold) for vote in held} == {(0.0, 1.0)}
    assert all("neither entry nor exit; " in vote.reason for vote in held)


def test_ids_are_unique_and_do_not_depend_on_which_strategies_are_on():
    ids = {one.id for one in uncut()[0]}
    assert len(ids) == len(uncut()[0])
    alone = build_machine({"rsi_mean_reversion": StrategySettings()}).on_features(excerpt())
    assert {one.id for one in alone} <= ids


def test_signals_are_sorted():
    keys = [
        (one.event_time_ns, one.venue, one.symbol, one.strategy, one.action) for one in uncut()[0]
    ]
    assert keys == sorted(keys)


def test_a_strategy_with_new_numbers_forgets_what_the_old_one_remembered():
    bars = make_bars([100.0] * 2, rsi_14=[24.0, 24.0])
    old, new = (
        only_rsi(),
        build_machine(
            {"rsi_mean_reversion": StrategySettings(parameters={"rsi_entry_max": 25})}, {}
        ),
    )
    assert len(old.on_features(bars[:1])) == 1
    new.state = old.state
    assert len(new.on_features(bars[1:])) == 1
    same = only_rsi()
    same.state = old.state
    assert same.on_features(bars[1:]) == []


def test_prefix_of_the_bars_gives_the_prefix_of_the_signals():
    half = excerpt()["close_time_ns"].sort()[excerpt().height // 2]
    early = build_machine().on_features(excerpt().filter(pl.col("close_time_ns") <= half))
    expected = [one for one in uncut()[0] if one.event_time_ns <= half]
    assert [encode(one) for one in early] == [encode(one) for one in expected]


def test_bars_of_a_timeframe_that_nobody_asked_for_are_ignored():
    machine = build_machine()
    assert machine.on_features(excerpt().with_columns(timeframe=pl.lit("5m"))) == []
    assert machine.state.series == []


def test_every_number_of_a_signal_is_finite():
    for signal in uncut()[0]:
        numbers = [signal.score, signal.close, *(vote.weight for vote in signal.votes)]
        numbers += [one for one in (signal.stop_price, signal.target_price) if one is not None]
        assert np.isfinite(numbers).all()
