from math import exp, log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from operators.vote.pooling import (
    find_present,
    pool_opinions,
    project_weights,
    spread_weights,
)

RAW = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=9)
VOTES = st.lists(
    st.tuples(*[st.floats(0.01, 1.0)] * 3).map(lambda p: np.array(p) / sum(p)),
    min_size=1,
    max_size=8,
)


def equal_pool(*votes):
    probabilities = np.array([votes])
    weights = np.full((1, len(votes)), 1 / len(votes))
    return pool_opinions(probabilities, weights)[0]


@given(RAW, st.floats(0, 0.5), st.floats(0.05, 1))
def test_weights_lie_on_the_bounded_simplex(raw, floor, cap):
    assume(floor <= cap)
    weights = project_weights(np.array(raw), floor, cap)
    equal = 1 / len(raw)
    assert abs(weights.sum() - 1) <= 1e-9
    assert weights.min() >= min(floor, equal) - 1e-12
    assert weights.max() <= max(cap, equal) + 1e-12


@given(RAW, st.floats(0, 0.5), st.floats(0.05, 1))
def test_weights_keep_the_order_of_what_they_come_from(raw, floor, cap):
    assume(floor <= cap)
    weights = project_weights(np.array(raw), floor, cap)
    order = np.argsort(raw, kind="stable")
    assert (np.diff(weights[order]) >= -1e-12).all()


@pytest.mark.parametrize("seed", range(8))
def test_weights_are_the_nearest_that_a_general_optimiser_finds(seed):
    generator = np.random.default_rng(seed)
    raw = generator.exponential(size=6) ** 3
    raw /= raw.sum()
    floor, cap = 0.05, 0.4

    def divergence(w):
        return float((w * np.log(w / raw)).sum())

    found = minimize(
        divergence,
        np.full(6, 1 / 6),
        method="SLSQP",
        bounds=[(floor, cap)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    weights = project_weights(raw, floor, cap)
    assert divergence(weights) <= divergence(found.x) + 1e-9
    np.testing.assert_allclose(weights, found.x, atol=2e-5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([1, 1, 1, 1], [0.25] * 4),
        ([0, 0, 0], [1 / 3] * 3),
        ([5], [1.0]),
        ([9, 1], [0.6, 0.4]),
        ([1, 0, 0, 0], [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3]),
        ([6, 3, 1, 0], [0.57, 0.285, 0.095, 0.05]),
    ],
)
def test_weights_known_by_hand(raw, expected):
    found = project_weights(np.array(raw, dtype=float), 0.05, 0.6)
    assert found == pytest.approx(expected, abs=1e-9)


def test_with_more_voters_than_the_floor_leaves_room_for_all_are_equal():
    raw = np.arange(1.0, 31.0)
    assert project_weights(raw, 0.05, 0.6) == pytest.approx([1 / 30] * 30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_raw_weight_that_is_none_is_refused(bad):
    with pytest.raises(AssertionError):
        project_weights(np.array([1.0, bad]), 0.05, 0.6)


def test_those_present_share_the_weight_and_the_rest_has_none():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    present = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    spread = spread_weights(weights, present, 0.05, 0.6)
    assert spread[0] == pytest.approx(weights)
    assert spread[1] == pytest.approx([0, 0.6, 0.4, 0])
    assert spread[2] == pytest.approx([0, 0, 0, 0])
    assert spread[3] == pytest.approx([0, 0, 0, 1])


def test_pool_of_two_by_hand():
    first, second = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.3, 0.6])
    weights = np.array([[0.25, 0.75]])
    lifted = [exp(0.25 * log(a) + 0.75 * log(b)) for a, b in zip(first, second, strict=True)]
    expected = np.array(lifted) / sum(lifted)
    found = pool_opinions(np.array([[first, second]]), weights)[0]
    assert found == pytest.approx(expected, abs=1e-12)
    odds = 0.25 * log(0.3 / 0.2) + 0.75 * log(0.6 / 0.1)
    assert log(found[2] / found[0]) == pytest.approx(odds, abs=1e-12)


def test_what_all_say_the_pool_says():
    said = np.array([0.2, 0.3, 0.5])
    assert equal_pool(said, said, said) == pytest.approx(said, abs=1e-12)


@given(VOTES)
def test_a_pool_is_a_distribution(votes):
    found = equal_pool(*votes)
    assert abs(found.sum() - 1) <= 1e-9
    assert (found > 0).all()


@given(VOTES, st.randoms())
def test_the_order_of_the_voters_does_not_matter(votes, random):
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert equal_pool(*votes) == pytest.approx(equal_pool(*shuffled), abs=1e-12)


def test_all_abstaining_is_no_opinion_and_not_a_hold():
    found = pool_opinions(np.full((1, 3, 3), np.nan), np.zeros((1, 3)))
    assert np.isnan(found).all()


def test_one_abstaining_changes_nothing_for_the_rest():
    said = np.array([0.2, 0.3, 0.5])
    both = pool_opinions(np.array([[said, [np.nan] * 3]]), np.array([[1.0, 0.0]]))
    assert both[0] == pytest.approx(said, abs=1e-12)


def test_a_voter_that_is_certain_does_not_silence_the_others():
    found = equal_pool(np.array([1.0, 0.0, 0.0]), *[np.array([0.1, 0.2, 0.7])] * 6)
    assert found[2] > found[0]


@pytest.mark.parametrize(
    "said",
    [
        [np.nan, 0.5, 0.5],
        [np.inf, 0.0, 0.0],
        [-0.1, 0.6, 0.5],
        [0.3, 0.3, 0.3],
        [0.4, 0.4, 0.4],
        [0.0, 0.0, 0.0],
    ],
)
def test_what_is_no_distribution_is_an_abstention(said):
    assert not find_present(np.array([[said]]))[0, 0]
    assert find_present(np.array([[[0.2, 0.3, 0.5]]]))[0, 0]


def test_a_row_is_pooled_alike_alone_and_among_others():
    generator = np.random.default_rng(5)
    said = generator.dirichlet(np.ones(3), size=(50, 7))
    weights = np.tile(project_weights(generator.random(7), 0.05, 0.6), (50, 1))
    together = pool_opinions(said, weights)
    alone = np.concatenate([pool_opinions(said[i : i + 1], weights[i : i + 1]) for i in range(50)])
    assert together.tobytes() == alone.tobytes()
