"""What a voter says always is taken off, and nothing else."""

import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operators.vote import PanelRule
from operators.vote.pooling import find_present
from operators.vote.tilt import NEUTRAL_OPINIONS, Tilts, take_off
from tests.operators.vote.markets import build_panel, knowing, make_market, run, softmax

PROBABILITIES = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(
    lambda raw: np.array(raw) / sum(raw)
)


def log_odds(said):
    return np.log(said[2]) - np.log(said[0])


@given(PROBABILITIES, st.floats(-2.0, 2.0))
def test_only_the_odds_of_the_direction_move_and_by_exactly_the_tilt(said, tilt):
    found = take_off(said, np.array(tilt))
    assert found[1] == said[1]
    assert found.sum() == pytest.approx(1.0)
    assert log_odds(found) == pytest.approx(log_odds(said) - tilt, abs=1e-9)


@given(st.floats(0.0, 1.0), st.floats(-2.0, 2.0))
def test_an_impossible_direction_stays_impossible(other, tilt):
    up, down = np.array([0.0, 1.0 - other, other]), np.array([other, 1.0 - other, 0.0])
    for said in (up, down):
        found = take_off(said, np.array(tilt))
        assert (found >= 0.0).all()
        assert found == pytest.approx(said, abs=1e-15)


TINY = st.sampled_from([0.0, 5e-324, 1e-9, 3e-8, 1e-4])


@given(st.lists(st.floats(-30.0, 30.0), min_size=3, max_size=3), TINY, st.floats(-3.0, 3.0))
@example([0.0, -17.0, 17.4], 3e-8, -2.0)
def test_whoever_gave_a_distribution_still_gives_one(logits, tiny, tilt):
    served = softmax(np.array([logits])).astype(np.float32)[0].astype(np.float64)
    for said in (served, np.array([tiny, 1e-9, 1.0]), np.array([1.0, 1e-9, tiny])):
        assert find_present(said)
        assert find_present(take_off(said, np.array(tilt)))


def test_without_a_tilt_every_bit_stays_and_who_said_nothing_says_nothing():
    said = np.array([[0.1, 0.7, 0.2], [np.nan] * 3])
    np.testing.assert_array_equal(take_off(said, np.zeros(2)), said)
    assert np.isnan(take_off(said, np.full(2, 0.5))[1, [0, 2]]).all()


@pytest.mark.parametrize("sure", [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
def test_who_is_certain_stays_certain(sure):
    np.testing.assert_array_equal(take_off(np.array(sure), np.array(0.7)), sure)


def log_odds_of_mean(rises, count):
    share = (rises + NEUTRAL_OPINIONS / 2) / (count + NEUTRAL_OPINIONS)
    return pytest.approx(np.log(share / (1 - share)))


def test_the_mean_is_discounted_by_close_and_begins_at_a_half():
    tilts, names = Tilts.none(1), [("v", "a"), ("v", "b")]
    said = np.array([[[0.2, 0.5, 0.3]], [[0.1, 0.5, 0.4]]])
    tilts.remember(np.array([0, 1]), said)
    assert tilts.in_nats.tolist() == [0.0]
    tilts.close(names, 1.0)
    assert tilts.in_nats[0] == log_odds_of_mean(0.6 + 0.8, 2)
    tilts.remember(np.array([1]), said[:1])
    tilts.close(names, 1.0)
    assert tilts.in_nats[0] == log_odds_of_mean(1.4 * 0.5 + 0.6, 2)
    tilts.forget(0)
    assert tilts.in_nats.tolist() == [0.0]


def test_a_few_sure_opinions_do_not_tilt_the_others():
    tilts, names = Tilts.none(1), [("v", "a")]
    for number in range(500):
        said = [0.0, 0.0, 1.0] if number % 50 == 0 else [0.27, 0.48, 0.25]
        tilts.remember(np.array([0]), np.array([[said]]))
        tilts.close(names, 1e9)
    assert abs(tilts.in_nats[0]) < 0.07


def tilted(market, by):
    said = knowing(market)
    logits = np.log(said)
    logits[:, 2] += by
    return softmax(logits)


@pytest.mark.acceptance("S-036", criterion="A lean of a nat is taken off within a week of hours")
def test_a_voter_that_leans_is_heard_as_if_it_did_not(measured):
    market = make_market(400, 4, seed=5)
    leaning = tilted(market, 1.0)
    opinion = run(build_panel(["a"], trusted=["a"]), market, leaning[:, None])
    late = slice(4 * 168, None)
    share = (opinion.directions[late] > 0).mean()
    raw = (leaning[late, 2] > leaning[late, 0]).mean()
    measured(f"calls BUY: {raw:.1%} as said, {share:.1%} as counted")
    assert raw > 0.70
    assert abs(share - 0.5) < 0.1


def test_a_setting_leaves_everything_as_it_was_said():
    market = make_market(60, 3, seed=6)
    said = tilted(market, 1.0)[:, None]
    opinion = run(build_panel(["a"], rule=PanelRule(tilt_half_life_closes=0.0)), market, said)
    np.testing.assert_array_equal(opinion.counted, said)
    assert not opinion.tilts.any()


@pytest.mark.parametrize("parts", [1, 7, 50])
def test_bars_of_one_close_share_a_tilt_however_they_come_and_after_a_restart(parts):
    market = make_market(80, 5, seed=7)
    said = np.stack([tilted(market, 0.5), knowing(market)], axis=1)
    whole = run(build_panel(["a", "b"]), market, said)
    assert (whole.tilts.reshape(80, 5, 2) == whole.tilts.reshape(80, 5, 2)[:, :1]).all()
    panel, found = build_panel(["a", "b"]), []
    for start in range(0, len(market.keys), 400 // parts):
        found.append(run(panel, market, said, start, min(start + 400 // parts, 400)))
        again = build_panel(["a", "b"])
        again.state = pickle.loads(pickle.dumps(panel.state))
        panel = again
    np.testing.assert_array_equal(np.concatenate([one.tilts for one in found]), whole.tilts)
    np.testing.assert_array_equal(np.concatenate([one.counted for one in found]), whole.counted)


def test_symbols_of_a_close_in_another_order_give_the_same_bits():
    market = make_market(60, 5, seed=8)
    said = np.stack([tilted(market, 0.5), knowing(market)], axis=1)
    order = np.arange(300).reshape(60, 5)[:, [3, 1, 4, 0, 2]].ravel()
    columns = (market.times_ns, market.closes, market.volatilities)
    panel = build_panel(["a", "b"])
    found = panel.advance(
        [market.keys[i] for i in order], *(one[order] for one in columns), said[order]
    )
    whole = run(build_panel(["a", "b"]), market, said)
    np.testing.assert_array_equal(found.tilts, whole.tilts[order])


def test_another_version_begins_without_a_tilt():
    market = make_market(40, 4, seed=9)
    said = np.stack([tilted(market, 1.0), tilted(market, 1.0)], axis=1)
    panel = build_panel(["a", "b"])
    run(panel, market, said, 0, 120)
    panel.begin_anew("a", trusted=False, time_ns=int(market.times_ns[120]))
    opinion = run(panel, market, said, 120, 124)
    assert opinion.tilts[0, 0] == 0.0
    assert opinion.tilts[0, 1] > 0.1
