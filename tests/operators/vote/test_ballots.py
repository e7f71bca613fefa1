import numpy as np
import pytest

from operators.vote.ballots import (
    BALLOTS_MAX,
    DECIDED,
    POOLED,
    ActionMix,
    Ballots,
    count_mix,
    find_biased_stage,
)
from tests.operators.vote.markets import (
    build_panel,
    constant,
    ignorant,
    inverted,
    knowing,
    make_market,
    run,
)


def mix(stage, sell, hold, buy):
    return ActionMix(stage=stage, sell=sell, hold=hold, buy=buy, abstained=0)


def test_a_mix_counts_each_action():
    found = count_mix("a", np.array([0, 1, 1, 2, -1, 0, 0]))
    assert (found.sell, found.hold, found.buy, found.abstained) == (3, 2, 1, 1)
    assert found.hold_share == pytest.approx(2 / 6)
    assert found.direction_share == pytest.approx(3 / 4)
    assert found.sell_share == pytest.approx(3 / 4)


def test_a_voter_that_said_nothing_has_no_shares():
    found = count_mix("a", np.array([-1, -1]))
    assert (found.hold_share, found.direction_share, found.sell_share) == (None, None, None)


def test_only_the_last_thousand_are_kept():
    ballots = Ballots.none(1)
    for _ in range(30):
        ballots.add(np.zeros((50, 1), int), np.ones(50, int), np.ones(50, int))
    ballots.add(np.full((BALLOTS_MAX - 10, 1), 2), *[np.full(BALLOTS_MAX - 10, 2)] * 2)
    (voter, pooled, decided) = ballots.mixes(["a"])
    assert (voter.sell, voter.buy) == (10, BALLOTS_MAX - 10)
    assert (pooled.stage, pooled.hold, pooled.buy) == (POOLED, 10, BALLOTS_MAX - 10)
    assert decided.stage == DECIDED


def test_more_than_a_thousand_at_once_leaves_the_last():
    ballots = Ballots.none(1)
    stances = np.r_[np.zeros(500, int), np.full(BALLOTS_MAX, 2)]
    ballots.add(stances[:, None], stances, stances)
    assert ballots.mixes(["a"])[0].buy == BALLOTS_MAX


@pytest.mark.parametrize(
    ("mixes", "labels", "expected"),
    [
        ([mix("a", 50, 0, 50), mix(POOLED, 60, 0, 40)], {}, None),
        ([mix("a", 50, 0, 50), mix("b", 71, 0, 29)], {}, "b: 71% of its 100 calls are SELL"),
        (
            [mix("a", 60, 0, 40), mix(POOLED, 20, 0, 80)],
            {},
            "pooled: 80% of its 100 calls are BUY",
        ),
        (
            [mix("a", 60, 0, 40), mix(POOLED, 55, 0, 45), mix(DECIDED, 36, 0, 4)],
            {},
            "after threshold: 90% of its 40 calls are SELL",
        ),
        ([mix("a", 29, 0, 0), mix(POOLED, 0, 70, 30)], {}, "pooled: 100% of its 30 calls are BUY"),
        ([mix("a", 75, 0, 25)], {"sell": 80, "buy": 20}, None),
        ([mix("a", 0, 9, 0)], {}, None),
    ],
)
def test_the_first_stage_that_adds_bias_is_named(mixes, labels, expected):
    assert find_biased_stage(mixes, labels) == expected


@pytest.mark.acceptance(
    "S-035", criterion="Per-model, per-stage action mix of the last 1000 names the biased stage"
)
def test_a_voter_that_always_sells_is_named_among_voters_that_do_not(measured):
    market = make_market(120, 10, seed=21)
    names = ["good", "seller", "other"]
    said = np.stack(
        [knowing(market), constant(market, (0.8, 0.1, 0.1)), knowing(market, seed=5)], axis=1
    )
    panel = build_panel(names, trusted=names)
    run(panel, market, said)
    mixes = panel.ballots.mixes(names)
    assert [one.stage for one in mixes] == [*names, POOLED, DECIDED]
    assert all(one.sell + one.hold + one.buy + one.abstained == 1000 for one in mixes)
    found = find_biased_stage(mixes, {})
    measured(found)
    assert found == "seller: 100% of its 1000 calls are SELL"


@pytest.mark.acceptance(
    "S-036", criterion="Balanced market: no direction above 70% of the calls at any stage"
)
@pytest.mark.acceptance("S-122", criterion="Balanced market: HOLD below 90% at every stage")
def test_on_a_balanced_market_no_stage_adds_bias(measured):
    market = make_market(400, 10, seed=22)
    names = ["good", "better", "noise"]
    said = np.stack(
        [knowing(market), knowing(market, seed=5, noise=0.1), ignorant(market, noise=0.5)], axis=1
    )
    panel = build_panel(names, trusted=names)
    run(panel, market, said)
    mixes = panel.ballots.mixes(names)
    shares = {one.stage: one.direction_share for one in mixes}
    holds = {one.stage: one.hold_share for one in mixes}
    measured(f"direction {shares}; hold {holds}")
    assert find_biased_stage(mixes, {}) is None
    assert all(share < 0.9 for share in holds.values())
    # The same voters with one of them turned to sell: the pool leans, and it is the voter's doing.
    leaning = np.column_stack([said[:, 0, 0] + 1.0, said[:, 0, 1], said[:, 0, 2]])
    said[:, 0] = leaning / leaning.sum(axis=1, keepdims=True)
    other = build_panel(names, trusted=names)
    run(other, market, said)
    assert find_biased_stage(other.ballots.mixes(names), {}).startswith("good: ")


def test_inverted_voters_are_no_bias():
    market = make_market(150, 10, seed=23)
    panel = build_panel(["a"], trusted=["a"])
    run(panel, market, inverted(knowing(market))[:, None])
    assert find_biased_stage(panel.ballots.mixes(["a"]), {}) is None
