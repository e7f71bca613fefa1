"""Confirmation, records, restarts and cuts of the regime machine."""

import itertools
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.bar_columns import BarColumns
from operators.features import FeatureMachine
from operators.regime import (
    INDICATORS,
    NO_CALL,
    WARM_UP_BARS,
    Hysteresis,
    RegimeMachine,
    RegimeRule,
    RuleNumbers,
    call_by_lift,
)
from schemas.features import FEATURE_SCHEMAS
from schemas.regime import REGIMES, RG11, Regime
from tests.operators.recorded_bars import hourly_bars
from tests.operators.regime.bars import HOUR_NS, RATIO_AND_SLOPE, START_NS, bars_calling, calling

DAY_BARS = 24
RUNS = st.lists(
    st.tuples(st.sampled_from([*REGIMES, None]), st.integers(1, 5)), min_size=1, max_size=20
)


def confirmed_by(machine):
    """Return the confirmed regime of the one series."""
    (known,) = machine.state.series.values()
    return Regime.UNKNOWN if known.confirmed == NO_CALL else REGIMES[known.confirmed]


def history(calls, machine=None):
    """Return the confirmed regime after each call."""
    machine = machine or RegimeMachine(RegimeRule())
    found = []
    for row in bars_calling(calls).iter_slices(1):
        machine.on_features(row)
        found.append(confirmed_by(machine))
    return found


@pytest.mark.acceptance("S-149", criterion="no flip within 3 confirmations")
def test_no_regime_changes_without_three_equal_calls_in_a_row(measured):
    changes = 0

    @settings(max_examples=200)
    @given(runs=RUNS)
    def check(runs):
        nonlocal changes
        calls = [call for call, count in runs for _ in range(count)]
        confirmed = [Regime.UNKNOWN, *history(calls)]
        flips = [i for i in range(1, len(confirmed)) if confirmed[i] != confirmed[i - 1]]
        for i in flips:
            assert calls[max(0, i - 3) : i] == [confirmed[i]] * 3
        assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(flips))
        for i in range(3, len(calls) + 1):
            if calls[i - 3] is not None and len(set(calls[i - 3 : i])) == 1:
                assert confirmed[i] == calls[i - 1]
        changes += len(flips)

    check()
    assert changes > 50
    measured(f"{changes} changes in 200 random call sequences, none early")


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ("bb", "--"),
        ("bbb", "--b"),
        ("bbbssbss", "--bbbbbb"),
        ("bbbsss", "--bbbs"),
        ("bbbss-s", "--bbbbb"),
        ("bbbsc-sss", "--bbbbbbs"),
        ("bbbchchch", "--bbbbbbb"),
    ],
)
def test_a_row_of_calls_is_broken_by_another_call_or_none(calls, expected):
    assert history(calling(calls)) == [one or Regime.UNKNOWN for one in calling(expected)]


@pytest.mark.acceptance("S-148", criterion="all five regimes reachable by the rule, confirmed")
def test_all_five_regimes_are_reached(measured):
    reached = set(history(calling("bbbssshhhlllccc"))) - {Regime.UNKNOWN}
    assert reached == set(REGIMES)
    measured(", ".join(sorted(reached)))


@pytest.mark.parametrize(
    ("ratio", "slope_pct_per_day", "expected"),
    [
        (2.0001, 9.0, Regime.CRISIS),
        (2.0, 9.0, Regime.HIGH_VOL_CHOPPY),
        (1.5, 9.0, Regime.LOW_VOL_RANGE),
        (1.2, 9.0, Regime.LOW_VOL_RANGE),
        (1.1999, 0.51, Regime.BULL_TRENDING),
        (1.1999, 0.49, Regime.LOW_VOL_RANGE),
        (1.1999, -0.51, Regime.BEAR_TRENDING),
        (0.5, 0.51, Regime.BULL_TRENDING),
        (0.5, 0.0, Regime.LOW_VOL_RANGE),
        (np.nan, 0.0, None),
        (1.0, np.nan, None),
    ],
)
def test_the_rule_at_its_thresholds(ratio, slope_pct_per_day, expected):
    inputs = np.zeros((1, len(RG11)))
    inputs[0, RG11.names.index("true_range_ratio")] = ratio
    inputs[0, RG11.names.index("sma_50_slope")] = slope_pct_per_day / 100 / 24
    code = int(RegimeRule().call(inputs).codes[0])
    assert (None if code < 0 else REGIMES[code]) == expected


def recorded_features(bars):
    added = FeatureMachine(FEATURE_SCHEMAS["fs34"], INDICATORS).extend(BarColumns.of(bars))
    names = [*FEATURE_SCHEMAS["fs34"].names, *(one.name for one in INDICATORS)]
    columns = {name: added.floats(name) for name in dict.fromkeys(names)}
    return bars.with_columns(pl.Series(name, column) for name, column in columns.items())


@pytest.mark.acceptance(
    "S-147", criterion="the predecessor's threshold never trends, its unit shown"
)
def test_half_a_percent_is_a_trend_per_day_and_none_per_bar(measured):
    features = recorded_features(hourly_bars())
    shares = {}
    for unit, bars_per_day in (("per day", 24.0), ("per hourly bar", 1.0)):
        rule = RegimeRule(RuleNumbers(bars_per_day=bars_per_day))
        slope = (features["sma_50"] / features["sma_50_lag_10"] - 1).to_numpy() / 10
        ratio = (features["true_range_mean_20"] / features["true_range_mean_100"]).to_numpy()
        inputs = np.zeros((len(slope), len(RG11)))
        inputs[:, RG11.names.index("sma_50_slope")] = slope
        inputs[:, RG11.names.index("true_range_ratio")] = ratio
        codes = rule.call(inputs).codes
        codes = codes[codes >= 0]
        shares[unit] = float(np.isin(codes, [0, 1]).mean())
    assert shares["per day"] > 0.3
    assert shares["per hourly bar"] < 0.01
    measured(", ".join(f"0.5 % {unit}: {share:.1%} trending" for unit, share in shares.items()))


FRAME = recorded_features(hourly_bars()[:4000])


def run(cuts, *, restart=False):
    machine, found = RegimeMachine(RegimeRule()), []
    for first, last in itertools.pairwise(cuts):
        found += machine.on_features(FRAME[first:last])
        if restart:
            state = pickle.loads(pickle.dumps(machine.state))
            machine = RegimeMachine(RegimeRule())
            machine.state = state
    return found, machine.state


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, FRAME.height), max_size=10), restart=st.booleans())
def test_no_cut_and_no_restart_changes_a_record(cuts, restart):
    found, state = run([0, *sorted(cuts), FRAME.height], restart=restart)
    whole, last = run([0, FRAME.height])
    assert sorted(found, key=lambda one: (one.event_time_ns, one.venue, one.symbol)) == whole
    assert state == last


def test_a_regime_is_unknown_until_warmed_up_and_says_what_is_missing():
    records, _ = run([0, FRAME.height])
    series = [one for one in records if one.symbol == "BTCUSDT"]
    first = next(i for i, one in enumerate(series) if one.regime is not Regime.UNKNOWN)
    warm = series[0].event_time_ns + (WARM_UP_BARS - 1) * HOUR_NS
    # The rule needs two of the inputs only, which warm up earlier.
    assert series[0].event_time_ns < series[first].event_time_ns < warm
    assert all("missing inputs: sma_20_slope" in one.reason for one in series[:2])
    assert {one.regime_since_ns for one in series[:first]} == {series[0].event_time_ns}


def test_one_record_per_change_and_one_per_day_otherwise():
    records, _ = run([0, FRAME.height])
    for symbol in {one.symbol for one in records}:
        series = [one for one in records if one.symbol == symbol]
        changes = [one for one in series if one.event_time_ns == one.regime_since_ns]
        quiet = [one for one in series if one not in changes]
        days = [one.event_time_ns // (DAY_BARS * HOUR_NS) for one in quiet]
        assert len(set(days)) == len(days)
        assert len(changes) > 5
        counts = [one.transitions for one in series]
        assert counts == sorted(counts)
        # The first regime after unknown is no transition, the record of the first bar no change.
        assert counts[-1] == len(changes) - 2
        assert {one.confidence for one in series} == {None}


def test_time_in_regime_counts_from_the_confirming_bar():
    machine = RegimeMachine(RegimeRule())
    records = machine.on_features(bars_calling(calling("bbb" + "b" * 40)))
    since = START_NS + 3 * HOUR_NS
    assert [one.regime_since_ns for one in records] == [START_NS + HOUR_NS, since, since]
    assert records[1].reason.startswith("3 calls in a row, before unknown; sma_50_slope 0.0005,")
    assert records[2].reason.startswith("first bar of the day; it calls bull_trending")


def test_other_timeframes_are_left_out():
    assert RegimeMachine(RegimeRule()).on_features(bars_calling([None], timeframe="5m")) == []


class Softmax:
    """A source whose probabilities follow the ratio of ranges and the slope."""

    name, version, content_hash = "regime_1h", "1.0", "f" * 64

    def __init__(self, sharpness):
        self._sharpness = sharpness

    def call(self, inputs):
        return call_by_lift(self.score(inputs), USUAL)

    def score(self, inputs):
        places = [RG11.names.index(name) for name in ("true_range_ratio", "sma_50_slope")]
        pairs = np.array([RATIO_AND_SLOPE[one] for one in REGIMES])
        distance = np.abs((inputs[:, None, places] - pairs) * (1.0, 1000.0)).sum(axis=2)
        powers = np.exp(-self._sharpness * distance)
        return powers / powers.sum(axis=1, keepdims=True)


USUAL = (0.13, 0.10, 0.16, 0.53, 0.08)


def model(sharpness=20.0):
    return Softmax(sharpness)


def test_weak_calls_confirm_nothing():
    assert set(history(calling("bbbccc"), RegimeMachine(model(0.05)))) == {Regime.UNKNOWN}
    lenient = RegimeMachine(model(0.05), hysteresis=Hysteresis(strength_min=0.0))
    assert set(history(calling("bbbccc"), lenient)) > {Regime.UNKNOWN}
    assert history(calling("bbb"), RegimeMachine(model()))[-1] == Regime.BULL_TRENDING


def test_records_of_a_model_carry_its_probability_of_the_confirmed_regime():
    records = RegimeMachine(model(3.0)).on_features(bars_calling(calling("cccb" + "l" * 30)))
    expected = Softmax(3.0).score(model_inputs("c"))[0, REGIMES.index(Regime.CRISIS)]
    assert records[1].regime is Regime.CRISIS
    assert records[1].confidence == pytest.approx(expected, rel=1e-6)
    assert (records[1].source, records[1].version) == ("regime_1h", "1.0")


def model_inputs(letter):
    inputs = np.zeros((1, len(RG11)), dtype=np.float32)
    ratio, slope = RATIO_AND_SLOPE[calling(letter)[0]]
    inputs[0, RG11.names.index("true_range_ratio")] = ratio
    inputs[0, RG11.names.index("sma_50_slope")] = slope
    return inputs


def test_a_rare_regime_is_called_where_it_is_much_likelier_than_usual():
    probabilities = np.array([[0.10, 0.10, 0.15, 0.45, 0.20]])

    calls = call_by_lift(probabilities, USUAL)
    assert probabilities.argmax() == REGIMES.index(Regime.LOW_VOL_RANGE)
    assert REGIMES[int(calls.codes[0])] is Regime.CRISIS


def test_a_row_without_a_distribution_is_no_call():
    calls = call_by_lift(np.array([[np.nan] * 5, [0.1, 0.1, 0.15, 0.45, 0.2]]), USUAL)
    assert calls.codes.tolist() == [NO_CALL, REGIMES.index(Regime.CRISIS)]
    assert np.isnan(calls.strengths[0])


def test_another_source_needs_its_own_three_calls():
    ruled = RegimeMachine(RegimeRule())
    history(calling("bbbss"), ruled)
    machine = RegimeMachine(model())
    machine.state = pickle.loads(pickle.dumps(ruled.state))
    rest = bars_calling(calling("sss"), start_ns=START_NS + 5 * HOUR_NS)
    found = []
    for row in rest.iter_slices(1):
        machine.on_features(row)
        found.append(confirmed_by(machine))
    assert found == calling("bbs")
