import numpy as np
import pytest

from operators.strategies import required_indicators
from operators.strategies.base import VOTE_COLUMNS
from tests.operators.strategies.golden_rows import assert_case, build, judge, load_cases

CASES = load_cases("ensemble")


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_golden_row(case):
    assert_case(build("ensemble"), case)


def test_no_kernel_is_asked_for_what_the_vote_adds():
    strategy = build("ensemble")
    assert set(VOTE_COLUMNS) <= set(strategy.inputs)
    assert required_indicators([strategy]) == ()


@pytest.mark.parametrize("agreeing", [0.0, 1.0])
def test_a_single_voter_never_trades_whatever_its_edge(agreeing):
    row = CASES[0]["row"] | {"ensemble_edge_bps": 1e6, "ensemble_agreeing": agreeing}
    assert not judge(build("ensemble"), row)["entry"]


def test_target_is_the_deviation_of_the_horizon():
    strategy = build("ensemble", horizon_bars=9, target_deviations=1.0)
    row = {name: np.array([value]) for name, value in CASES[0]["row"].items()}
    assert strategy.target_price(row)[0] == pytest.approx(100.0 * (1 + 0.005 * 3))
