import pytest

from tests.operators.strategies.golden_rows import assert_case, build, judge, load_cases

CASES = load_cases("rsi_mean_reversion")


@pytest.mark.acceptance("S-157", criterion="Golden tests 35/65, 2.0/3.0 x ATR")
def test_golden_rows_cover_entry_no_entry_exit_and_stop(measured):
    strategy = build("rsi_mean_reversion")
    for case in CASES:
        assert_case(strategy, case)
    entries = [case for case in CASES if case["entry"]]
    exits = [case for case in CASES if case["exit"]]
    neither = [case for case in CASES if not (case["entry"] or case["exit"] or case["unknown"])]
    assert all("stop_price" in case for case in entries)
    assert entries
    assert exits
    assert neither
    measured(f"{len(entries)} entries, {len(exits)} exits, {len(CASES)} golden rows")


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_golden_row(case):
    assert_case(build("rsi_mean_reversion"), case)


def test_crypto_profile_is_a_matter_of_parameters():
    strategy = build("rsi_mean_reversion", rsi_entry_max=25, rsi_exit_min=75)
    row = CASES[0]["row"]
    assert not judge(strategy, row | {"rsi_14": 25.0})["entry"]
    assert judge(strategy, row | {"rsi_14": 24.99})["entry"]
    assert not judge(strategy, row | {"rsi_14": 75.0})["exit"]
    assert judge(strategy, row | {"rsi_14": 75.01})["exit"]


def test_levels_that_cross_are_refused():
    with pytest.raises(ValueError, match="rsi_entry_max must lie below"):
        build("rsi_mean_reversion", rsi_entry_max=65)
