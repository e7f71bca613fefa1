import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.vote import CLASSES, PanelRule, build_event
from operators.vote.panel import Opinion
from schemas.models import ModelEventKind
from tests.operators.vote.markets import (
    HOUR_NS,
    START_NS,
    build_panel,
    constant,
    ignorant,
    inverted,
    knowing,
    make_market,
    run,
    silent,
)

SYMBOLS, CLOSES = 5, 60
NAMES = ["good", "ignorant", "inverted", "constant", "silent"]


def everything():
    market = make_market(CLOSES, SYMBOLS, seed=12)
    good = knowing(market)
    said = np.stack(
        [good, ignorant(market), inverted(good), constant(market), silent(market)], axis=1
    )
    # Abstentions here and there, and something that is no distribution.
    said[7::13, 1] = np.nan
    said[5::17, 0] = 0.9
    market.volatilities[3::29] = np.nan
    return market, said


def panel():
    return build_panel(NAMES, trusted=NAMES[:3])


def as_bytes(opinion: Opinion) -> dict[str, bytes]:
    return {name: getattr(opinion, name).tobytes() for name in Opinion.__struct_fields__}


def state_bytes(one):
    return pickle.dumps(pickle.loads(pickle.dumps(one.state)))


@pytest.mark.acceptance("S-109", criterion="Weights are persisted and replayable, on any cut")
@settings(max_examples=30)
@given(st.lists(st.integers(0, SYMBOLS * CLOSES), max_size=10), st.booleans())
def test_any_cut_and_any_restart_gives_the_same_bits(cuts, restart):
    market, said = everything()
    whole = panel()
    expected, expected_facts = run(whole, market, said), whole.take_facts()
    one, parts, facts = panel(), [], []
    for start, end in pairwise([0, *sorted(cuts), SYMBOLS * CLOSES]):
        parts.append(run(one, market, said, start, end))
        facts += one.take_facts()
        if restart:
            remembered = pickle.loads(pickle.dumps(one.state))
            one = panel()
            one.state = remembered
    for name, array in as_bytes(expected).items():
        assert b"".join(getattr(part, name).tobytes() for part in parts) == array, name
    assert facts == expected_facts
    assert one.governor.state.weights.tobytes() == whole.governor.state.weights.tobytes()


def test_symbols_of_one_close_may_come_in_any_order():
    market, said = everything()
    order = np.concatenate(
        [np.random.default_rng(i).permutation(SYMBOLS) + i * SYMBOLS for i in range(CLOSES)]
    )
    first, second = panel(), panel()
    expected = run(first, market, said)
    found = second.advance(
        [market.keys[i] for i in order],
        market.times_ns,
        market.closes[order],
        market.volatilities[order],
        said[order],
    )
    assert found.probabilities.tobytes() == expected.probabilities[order].tobytes()
    for name in ("slow", "fast", "merit"):
        records = [getattr(one.governor.state.records, name).tobytes() for one in (first, second)]
        assert records[0] == records[1]


def test_bars_of_one_close_share_weights_that_no_label_of_theirs_has_touched():
    market, said = everything()
    opinion = run(panel(), market, said)
    changed = said.copy()
    shifted = make_market(CLOSES, SYMBOLS, seed=12)
    shifted.volatilities[:] = market.volatilities
    close = 30
    rows = slice(close * SYMBOLS, (close + 1) * SYMBOLS)
    shifted.closes[rows] *= 1.5
    other = run(panel(), shifted, changed)
    until = (close + 1) * SYMBOLS
    assert other.weights[:until].tobytes() == opinion.weights[:until].tobytes()
    assert other.multipliers[:until].tobytes() == opinion.multipliers[:until].tobytes()
    present = opinion.present
    for at in range(CLOSES):
        own = slice(at * SYMBOLS, (at + 1) * SYMBOLS)
        full = opinion.weights[own][present[own][:, :2].all(axis=1)]
        assert len(np.unique(full, axis=0)) <= 1


def test_weights_of_those_present_sum_to_one():
    market, said = everything()
    opinion = run(panel(), market, said)
    assert opinion.weights.sum(axis=1) == pytest.approx(np.ones(len(said)), abs=1e-9)
    assert (opinion.weights[~opinion.present] == 0).all()
    assert not opinion.present[:, 4].any()
    assert not opinion.present[5::17, 0].any()


def test_all_abstaining_is_no_opinion():
    market = make_market(3, SYMBOLS)
    said = np.full((len(market.keys), 2, 3), np.nan)
    opinion = run(build_panel(["a", "b"]), market, said)
    assert np.isnan(opinion.probabilities).all()
    assert (opinion.scores == 0).all()
    assert (opinion.stances == -1).all()
    assert (opinion.agreements == -1).all()
    assert (opinion.agreeing == 0).all()
    assert not (opinion.edges_bps > -1e9).any()


def test_without_a_volatility_nothing_is_worth_its_cost():
    market = make_market(3, SYMBOLS)
    market.volatilities[:] = np.nan
    opinion = run(build_panel(["a"], trusted=["a"]), market, constant(market)[:, None])
    assert (opinion.stances == 1).all()
    assert np.isnan(opinion.edges_bps).all()


def test_no_bars_are_no_opinions():
    market = make_market(1, SYMBOLS)
    one = build_panel(["a", "b"])
    opinion = run(one, market, np.zeros((SYMBOLS, 2, 3)), 0, 0)
    assert opinion.weights.shape == (0, 2)
    assert opinion.edges_bps.shape == (0, 2)


def test_closes_that_fall_back_are_refused():
    market, said = everything()
    one = panel()
    run(one, market, said, 50, 60)
    with pytest.raises(AssertionError):
        run(one, market, said, 10, 20)


def test_an_edge_is_the_pooled_difference_times_the_move_less_costs():
    market = make_market(1, 1)
    said = np.array([[[0.2, 0.4, 0.4]]])
    rule = PanelRule()
    opinion = run(build_panel(["a"], trusted=["a"]), market, said)
    band = 22e-4 + 0.5 * 0.006 * 2
    move = (band + 0.5826 * 0.006) * 1e4
    assert opinion.edges_bps[0] == pytest.approx([-0.2 * move - 22, 0.2 * move - 22])
    assert rule.costs.round_trip_bps == 22.0
    assert opinion.stances[0] == 1
    assert CLASSES[opinion.agreements[0]] == "unanimous"
    assert opinion.scores[0] == pytest.approx(0.2)


def test_multipliers_are_learnt_from_what_became_of_the_direction():
    market = make_market(300, SYMBOLS, seed=5)
    one = build_panel(["good", "other"], trusted=["good", "other"])
    good = knowing(market, gain=0.3)
    run(one, market, np.stack([good, good], axis=1))
    # A timid voter that is right more often than it says is worth more than it says.
    assert one.state.multipliers.values[0] > 1.1
    other = build_panel(["bad", "worse"], trusted=["bad", "worse"])
    run(other, market, np.stack([inverted(good), inverted(good)], axis=1))
    assert other.state.multipliers.values[0] < 0.9


def test_drift_of_a_voter_is_told_once_it_is_more_than_chance():
    market = make_market(400, SYMBOLS, seed=14)
    good = knowing(market)
    turned = good.copy()
    turned[200 * SYMBOLS :] = inverted(good)[200 * SYMBOLS :]
    one = build_panel(["steady", "turned"], trusted=["steady", "turned"])
    run(one, market, np.stack([knowing(market, seed=77), turned], axis=1))
    drifts = [fact for fact in one.take_facts() if fact.kind is ModelEventKind.DRIFT]
    assert {fact.model for fact in drifts} == {"turned"}
    found = {fact.reason.split(":")[0] for fact in drifts}
    assert found == {"ADWIN", "Page-Hinkley"}
    assert all(fact.effective_from_ns > START_NS + 200 * HOUR_NS for fact in drifts)
    first = {
        name: min(f.effective_from_ns for f in drifts if f.reason.startswith(name))
        for name in found
    }
    assert first["Page-Hinkley"] < START_NS + 225 * HOUR_NS
    assert first["ADWIN"] < START_NS + 300 * HOUR_NS


def test_a_fact_becomes_a_record_with_an_id_of_its_own():
    market, said = everything()
    one = panel()
    run(one, market, said)
    facts = one.take_facts()
    records = [build_event(fact, 3, "v1", "ab") for fact in facts]
    assert len({record.id for record in records}) == len(records)
    weights = [record for record in records if record.kind is ModelEventKind.WEIGHTS]
    assert sum(one.weight_effective for one in weights[:5]) == pytest.approx(1.0, abs=1e-9)
    assert {record.partition for record in records} == {3}
    assert one.take_facts() == []


def test_two_versions_that_change_at_one_close_leave_one_record_of_each_weight():
    market, said = everything()
    one = panel()
    run(one, market, said)
    one.take_facts()
    time_ns = START_NS + 10_000 * HOUR_NS
    for voter in one.voters[:2]:
        one.begin_anew(voter, trusted=True, time_ns=time_ns)
    facts = one.take_facts()
    assert sorted(fact.model for fact in facts) == sorted(one.voters)
    assert sum(fact.weight_effective for fact in facts) == pytest.approx(1.0, abs=1e-9)


def test_state_of_a_hundred_symbols_and_seven_voters_is_small():
    market = make_market(10, 100)
    said = np.stack([knowing(market, seed=i) for i in range(7)], axis=1)
    one = build_panel([f"v{i}" for i in range(7)])
    run(one, market, said)
    assert len(pickle.dumps(one.state)) < 250_000
