import pytest

from tests.operators.strategies.golden_rows import assert_case, build, load_cases

CASES = load_cases("breakout_momentum")


@pytest.mark.acceptance(
    "S-158", criterion="Golden tests 20-day high, 1.5 x volume, trail 1.5 x ATR, 10-day low, 3:1"
)
def test_golden_rows_cover_entry_no_entry_exit_and_stop(measured):
    strategy = build("breakout_momentum")
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
    assert_case(build("breakout_momentum"), case)
