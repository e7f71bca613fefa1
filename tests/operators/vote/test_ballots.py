import numpy as np
import pytest

from operators.vote.ballots import (
    DECIDED,
    POOLED,
    ActionMix,
    count_mix,
    find_biased_stage,
)
from tests.operators.vote.markets import (
    build_panel,
    constant,
    count_mixes,
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


@pytest.mark.parametrize(
    ("mixes", "expected"),
    [
        ([mix("a", 50, 0, 50), mix(POOLED, 60, 0, 40)], None),
        ([mix("a", 50, 0, 50), mix("b", 71, 0, 29)], "b: 71% of its 100 calls are SELL"),
        (
            [mix("a", 60, 0, 40), mix(POOLED, 20, 0, 80)],
            "pooled: 80% of its 100 calls are BUY",
        ),
        (
            [mix("a", 60, 0, 40), mix(POOLED, 55, 0, 45), mix(DECIDED, 36, 0, 4)],
            "after threshold: 90% of its 40 calls are SELL",
        ),
        ([mix("a", 29, 0, 0), mix(POOLED, 0, 70, 30)], "pooled: 100% of its 30 calls are BUY"),
        ([mix("a", 0, 9, 0)], None),
    ],
)
def test_the_first_stage_that_adds_bias_is_named(mixes, expected):
    assert find_biased_stage(mixes) == expected


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
    mixes = count_mixes(names, said, run(panel, market, said))
    assert [one.stage for one in mixes] == [*names, POOLED, DECIDED]
    assert all(one.sell + one.hold + one.buy + one.abstained == 1000 for one in mixes)
    found = find_biased_stage(mixes)
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
    mixes = count_mixes(names, said, run(panel, market, said))
    shares = {one.stage: one.direction_share for one in mixes}
    holds = {one.stage: one.hold_share for one in mixes}
    measured(f"direction {shares}; hold {holds}")
    assert find_biased_stage(mixes) is None
    assert all(share < 0.9 for share in holds.values())
    # The same voters with one of them turned to sell: the pool leans, and it is the voter's doing.
    leaning = np.column_stack([said[:, 0, 0] + 1.0, said[:, 0, 1], said[:, 0, 2]])
    said[:, 0] = leaning / leaning.sum(axis=1, keepdims=True)
    other = build_panel(names, trusted=names)
    leaned = count_mixes(names, said, run(other, market, said))
    assert find_biased_stage(leaned).startswith("good: ")


def test_inverted_voters_are_no_bias():
    market = make_market(150, 10, seed=23)
    panel = build_panel(["a"], trusted=["a"])
    said = inverted(knowing(market))[:, None]
    assert find_biased_stage(count_mixes(["a"], said, run(panel, market, said))) is None
