import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.vote.agreement import (
    CLASSES,
    MULTIPLIER_MAX,
    MULTIPLIER_MIN,
    Multipliers,
    classify,
    count_agreeing,
    find_confidence,
    find_directions,
    find_leans,
    find_stances,
    scale_scores,
)
from operators.vote.pooling import pool_opinions


def agreement(leans, weights, direction=1):
    code = classify(np.array([leans]), np.array([weights], dtype=float), np.array([direction]))[0]
    return None if code < 0 else CLASSES[code].value


@pytest.mark.parametrize(
    ("leans", "weights", "expected"),
    [
        ([1, 1, 1, 1], [0.25] * 4, "unanimous"),
        ([1, 1, 1, -1], [0.25] * 4, "strong"),
        ([1, 1, 1, 0], [0.3, 0.3, 0.14, 0.26], "split"),
        ([1, 1, -1, -1], [0.25] * 4, "split"),
        ([1, 0, 0, 0], [0.25] * 4, "weak"),
        ([1, 1, -1, -1], [0.25, 0.24, 0.26, 0.25], "weak"),
        ([1, 1, -1], [0.5, 0.5, 0.0], "unanimous"),
    ],
)
def test_classes_are_shares_of_the_weight(leans, weights, expected):
    assert agreement(leans, weights) == expected


def test_without_a_direction_there_is_no_agreement():
    assert agreement([0, 0], [0.5, 0.5], direction=0) is None


DIRECTIONLESS = st.floats(0.05, 0.98).map(lambda hold: [(1 - hold) / 2, hold, (1 - hold) / 2])
BUYERS = st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.5)).map(
    lambda p: [p[0], 1 - p[0] - (p[0] + p[1]), p[0] + p[1]]
)


@given(st.lists(DIRECTIONLESS, min_size=1, max_size=6), BUYERS, st.floats(0.05, 0.6))
def test_holders_dilute_a_buyer_and_never_outvote_it(holders, buyer, share):
    # The predecessors' vote counted heads: three HOLD beat any BUY.
    if min(buyer) <= 0:
        return
    weights = np.array([[share, *[(1 - share) / len(holders)] * len(holders)]])
    pooled = pool_opinions(np.array([[buyer, *holders]]), weights)
    assert find_directions(pooled)[0] == 1
    assert pooled[0, 2] > pooled[0, 0]


def test_three_holders_leave_the_buyer_its_direction_and_no_agreement():
    said = np.array([[[0.05, 0.9, 0.05]] * 3 + [[0.1, 0.2, 0.7]]])
    pooled = pool_opinions(said, np.full((1, 4), 0.25))
    leans = find_leans(said, 0.02)
    assert leans.tolist() == [[0, 0, 0, 1]]
    assert CLASSES[classify(leans, np.full((1, 4), 0.25), find_directions(pooled))[0]] == "weak"
    counted = np.ones((1, 4), dtype=bool)
    assert count_agreeing(leans, counted, find_directions(pooled)).tolist() == [1]


def test_a_voter_on_the_floor_is_not_counted_as_agreeing():
    leans, directions = np.array([[1, 1, -1]]), np.array([1])
    counted = np.array([[False, True, True]])
    assert count_agreeing(leans, counted, directions).tolist() == [1]
    assert count_agreeing(leans, counted, np.array([0])).tolist() == [0]


def test_an_abstention_leans_nowhere_and_has_no_stance():
    said = np.full((1, 1, 3), np.nan)
    assert find_leans(said, 0.02)[0, 0] == 0
    assert find_stances(said, np.full(3, 1 / 3))[0, 0] == -1
    assert find_directions(said[0])[0] == 0


@pytest.mark.parametrize(
    ("said", "stance"),
    [
        ([0.20, 0.55, 0.25], 2),
        ([0.25, 0.55, 0.20], 0),
        ([0.18, 0.64, 0.18], 1),
        ([0.30, 0.40, 0.30], 1),
        ([0.20, 0.60, 0.20], 1),
    ],
)
def test_a_stance_is_what_is_lifted_most_above_the_base_rate(said, stance):
    prior = np.array([0.2, 0.6, 0.2])
    assert find_stances(np.array(said), prior) == stance


def learn(multipliers, right, claim=0.6, code=0, count=1):
    labels = np.array([2 if one else 0 for one in right] * count)
    rows = len(labels)
    multipliers.learn(np.full(rows, code), np.ones(rows, dtype=int), np.full(rows, claim), labels)


def test_one_close_moves_a_multiplier_by_at_most_a_step():
    multipliers = Multipliers.fresh()
    learn(multipliers, [True] * 25, claim=0.6)
    assert multipliers.values == pytest.approx([1 + 0.02 * 0.4, 1, 1, 1])
    learn(multipliers, [False] * 25, claim=0.6, code=3)
    assert multipliers.values[3] == pytest.approx(1 - 0.02 * 0.6)


@pytest.mark.parametrize(("rate", "claim"), [(0.75, 0.6), (0.5, 0.6), (0.6, 0.6)])
def test_a_multiplier_comes_to_rest_where_claims_come_true(rate, claim):
    generator = np.random.default_rng(11)
    multipliers, values = Multipliers.fresh(), []
    for _ in range(4000):
        learn(multipliers, generator.random(20) < rate, claim=claim)
        values.append(multipliers.values[0])
    assert np.mean(values[2000:]) == pytest.approx(rate / claim, abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0.5, 1.0)), max_size=300))
def test_multipliers_stay_within_their_bounds(events):
    multipliers = Multipliers.fresh()
    for code, right, claim in events:
        learn(multipliers, [right], claim=claim, code=code, count=3)
    assert (multipliers.values >= MULTIPLIER_MIN).all()
    assert (multipliers.values <= MULTIPLIER_MAX).all()


def test_labels_of_hold_and_rows_without_a_class_teach_nothing():
    multipliers = Multipliers.fresh()
    codes, labels = np.array([0, -1, 0]), np.array([1, 2, -1])
    multipliers.learn(codes, np.array([1, 0, 1]), np.array([0.6, 0.6, 0.6]), labels)
    assert multipliers.values.tolist() == [1, 1, 1, 1]
    assert multipliers.settled.tolist() == [0, 0, 0, 0]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 1.5))
def test_a_score_never_exceeds_the_cap(first, second, multiplier):
    total = first + second + 1
    pooled = np.array([[first / total, 1 / total, second / total]])
    score = scale_scores(pooled, np.array([multiplier]))[0]
    assert abs(score) <= 0.95
    assert score * (second - first) >= 0


def test_no_opinion_scores_zero():
    pooled = np.full((1, 3), np.nan)
    assert scale_scores(pooled, np.ones(1)).tolist() == [0.0]
    assert np.isnan(find_confidence(pooled)[0])
