import json
from decimal import Decimal
from itertools import pairwise

import pytest
from msgspec.structs import replace

from infra.report.session import build_session
from infra.report.summary import summarise
from tests.infra.report.ledger_of_two import (
    BTC,
    CASH,
    CROSSOVER,
    HOUR_NS,
    RSI,
    START_NS,
    mark,
    session_records,
    signal,
)


def strategy(summary, name):
    return next(row for row in summary["strategies"] if row["strategy"] == name)


def test_profit_of_a_strategy_is_the_sum_of_its_closed_legs(summary):
    found = strategy(summary, RSI)
    assert found["gross_pnl_usd"] == "15"
    assert found["fees_usd"] == "1.5"
    assert found["net_pnl_usd"] == "13.5"
    assert found["return_pct"] == pytest.approx(1.35)
    assert found["win_rate_pct"] == 50.0
    assert found["profit_factor"] == pytest.approx(19 / 5.5)
    assert (found["best_leg_usd"], found["worst_leg_usd"]) == ("19", "-5.5")
    assert found["holding_hours_mean"] == 2.0
    assert found["exit_reasons"] == {"exit": 1, "protective_stop": 1}


def test_entries_and_exits_are_filled_orders(summary):
    found = strategy(summary, RSI)
    assert (found["entries"], found["exits"], found["legs_closed"]) == (2, 2, 2)
    assert (found["signals"], found["signals_enter"], found["signals_exit"]) == (3, 2, 1)


def test_strategy_without_a_loss_has_no_profit_factor_and_says_why(summary):
    found = strategy(summary, CROSSOVER)
    assert found["profit_factor"] is None
    assert "no leg lost" in found["why_null"]["profit_factor"]


def test_closed_and_open_profit_add_up_to_the_change_of_equity(summary):
    account = summary["performance"]
    closed, still_open = (
        Decimal(account["net_pnl_closed_usd"]),
        Decimal(account["net_pnl_open_usd"]),
    )
    assert closed == Decimal(33)
    assert CASH + closed + still_open == Decimal(account["equity_end_usd"]) == Decimal(1033)
    assert account["return_pct"] == pytest.approx(3.3)


def test_drawdown_and_exposure_come_from_the_marks(summary):
    account = summary["performance"]
    assert account["drawdown_max_pct"] == 4.67
    assert account["exposure_mean_pct"] == pytest.approx((100 / 1019 + 495 / 990) / 5 * 100)
    assert account["time_in_market_pct"] == 40.0


def test_buy_and_hold_starts_when_trading_may_and_charges_costs_once(session):
    held = summarise(session, CASH, trade_start_ns=START_NS + 2 * HOUR_NS)["buy_and_hold"]
    growth = (120 / 110 + 15 / 10) / 2
    paid = 100 * 2 + 110 * 2 + 100 * 1 + 10 * 10
    costs = (Decimal("1.35") + Decimal("1.5")) / paid
    assert held["return_before_costs_pct"] == pytest.approx(100 * (growth - 1))
    assert held["costs_bps"] == pytest.approx(float(costs) * 1e4)
    assert held["return_pct"] == pytest.approx(100 * (growth * (1 - float(costs)) - 1))
    assert held["symbols"] == ["binance_spot:BTCUSDT", "binance_spot:ETHUSDT"]


def test_buy_and_hold_uses_configured_rates_where_the_session_holds_them(session):
    settings = {"paper": {"half_spread_bps": "1.0"}, "portfolio": {"trade_from": ""}}
    records = [*session_records(), *instruments()]
    found = build_session("rates", records)
    found = type(found)(**(found.__dict__ | {"settings": settings}))
    assert summarise(found, CASH)["buy_and_hold"]["costs_bps"] == 11.0
    assert "as configured" in summarise(found, CASH)["buy_and_hold"]["statement"]


def instruments():
    from schemas.market import InstrumentListed
    from tests.contracts.samples import samples

    return [replace(row, symbol=BTC) for row in samples() if isinstance(row, InstrumentListed)]


def test_trading_starts_at_the_setting_then_after_the_last_warming_up(session):
    assert summarise(session, CASH)["period"]["trade_start_ns"] == START_NS + HOUR_NS
    settings = {"portfolio": {"trade_from": "2024-08-08T03:00:00+00:00"}}
    told = type(session)(**(session.__dict__ | {"settings": settings}))
    assert summarise(told, CASH)["period"]["trade_start"] == "2024-08-08T03:00:00Z"


def test_costs_count_every_fee_and_the_spread_of_market_fills_only(summary):
    costs = summary["costs"]
    assert costs["fees_usd"] == "2"
    # 2 x 0.5 at the first entry and 2 x 0.25 at its exit; stop and target do not count.
    assert costs["spread_usd"] == "1.5"
    assert costs["turnover_usd"] == str(200 + 220 + 100 + 95 + 100 + 120)
    assert costs["slippage_bps_mean"] == pytest.approx((3 * 2.0 - 3 * 1.0) / 6)


def test_sharpe_of_few_hours_is_not_given(summary):
    assert summary["sharpe"]["value"] is None
    assert "4 hourly returns, fewer than 100" in summary["sharpe"]["why_null"]["value"]


def test_sharpe_of_hourly_marks_has_the_stated_definition():
    equities = [1000 * (1.001 if hour % 2 else 1.0) for hour in range(101)]
    records = [mark(hour, f"{equity:.6f}") for hour, equity in enumerate(equities)]
    found = summarise(build_session("hours", records), CASH)["sharpe"]
    returns = [after / before - 1 for before, after in pairwise(equities)]
    mean = sum(returns) / 100
    deviation = (sum((one - mean) ** 2 for one in returns) / 99) ** 0.5
    assert found["n"] == 100
    assert found["value"] == pytest.approx(mean / deviation * 8760**0.5, rel=1e-6)


def test_empty_session_has_no_figure_that_pretends(empty):
    found = summarise(empty, CASH)
    for section in ("performance", "buy_and_hold", "sharpe", "costs", "period"):
        nulls = {name for name, value in found[section].items() if value is None}
        assert nulls == set(found[section]["why_null"]), section
    assert found["performance"]["return_pct"] is None
    assert found["buy_and_hold"]["return_pct"] is None
    assert found["strategies"] == []


def test_summary_survives_json_unchanged(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_session_of_two_accounts_is_refused():
    records = session_records()
    second = [replace(row, account="OTHER") for row in records if hasattr(row, "verdict")]
    with pytest.raises(ValueError, match="one account; found"):
        summarise(build_session("two", [*records, *second]), CASH)


def test_reconstructed_bars_are_said_to_trade_on_paper_only(summary):
    assert summary["provenance"]["fills"] == {"reconstructed": 6}
    assert any("never live" in words for words in summary["provenance"]["statements"])
    assert signal(RSI, BTC, 1).provenance == "recorded"
