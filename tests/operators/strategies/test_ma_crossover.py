import pytest

from tests.operators.strategies.golden_rows import assert_case, build, judge, load_cases

CASES = load_cases("ma_crossover")


@pytest.mark.acceptance("S-160", criterion="Golden tests of crossover and filters")
def test_golden_rows_cover_entry_no_entry_exit_and_stop(measured):
    strategy = build("ma_crossover")
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
    assert_case(build("ma_crossover"), case)


def test_periods_name_the_indicators():
    strategy = build("ma_crossover", fast_bars=5, slow_bars=20, trend_bars=60)
    assert {"sma_5", "prior_sma_5", "prior_sma_20", "sma_60"} <= set(strategy.indicators)
    assert "sma_20" not in strategy.indicators, "a feature already"


def test_fast_average_must_be_the_shorter_one():
    with pytest.raises(ValueError, match="fast_bars must be less than slow_bars 50"):
        build("ma_crossover", fast_bars=50)


def test_gap_of_exactly_one_percent_is_enough():
    strategy = build("ma_crossover")
    row = CASES[0]["row"] | {"close": 99.0, "high": 99.0}
    assert judge(strategy, row | {"resistance_50": 100.0})["entry"]
    assert not judge(strategy, row | {"resistance_50": 99.99})["entry"]
