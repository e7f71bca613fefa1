"""What was earned and what it cost: per strategy, for the account, and for just holding.

Amounts of money are exact decimal text; shares and rates are floats. What cannot be said is null,
and the `why_null` beside it says why.
"""

from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from infra.report.session import BARS, SERIES, SessionTables
from schemas.fields import Action
from schemas.trading import DenialReason, OrderFilled, OrderPurpose, OutcomeClosed, PositionChanged

HOUR_NS = 3_600_000_000_000
BPS = 10_000
HOURS_PER_YEAR = 8_760
SHARPE_RETURNS_MIN = 100

SHARPE_DEFINITION = (
    "mean over sample standard deviation of the returns between successive hourly equity marks, "
    "times the square root of 8,760; no risk-free rate"
)

FILLS = OrderFilled.topic
MARKET_PURPOSES = (OrderPurpose.ENTRY.value, OrderPurpose.EXIT.value)
"""Purposes whose fills take the price of the tick; stops and targets have a level of their own."""


def text(amount: Decimal) -> str:
    """Return `amount` as plain decimal text without padding zeros."""
    return format(amount.normalize(), "f") if amount else "0"


def total(column: pl.Series) -> Decimal:
    """Return the exact sum of a column of decimals; 0 if it is empty."""
    return sum(column.to_list(), Decimal(0))


def known(**values: tuple[Any, str]) -> dict[str, Any]:
    """Return the values, and under `why_null` the reason of each that is None."""
    found: dict[str, Any] = {name: value for name, (value, _) in values.items()}
    return found | {
        "why_null": {name: why for name, (value, why) in values.items() if value is None}
    }


def summarise_strategies(session: SessionTables, starting_cash: Decimal) -> list[dict[str, Any]]:
    """Return the figures of every strategy that gave a signal or traded, by name.

    Profit and loss come from closed legs alone (`trade.outcomes`), entries and exits from fills.
    """
    names = {
        name
        for topic in ("trade.signals", "trade.decisions", FILLS, OutcomeClosed.topic)
        for name in session[topic]["strategy"].unique()
    }
    return [_summarise_strategy(session, name, starting_cash) for name in sorted(names)]


def _summarise_strategy(
    session: SessionTables, name: str, starting_cash: Decimal
) -> dict[str, Any]:
    mine = pl.col("strategy") == name
    signals, fills = session["trade.signals"].filter(mine), session[FILLS].filter(mine)
    legs = session[OutcomeClosed.topic].filter(mine)
    entries = fills.filter(pl.col("purpose") == OrderPurpose.ENTRY.value)
    exits = fills.filter(pl.col("purpose") != OrderPurpose.ENTRY.value)
    net = legs["net_pnl"].to_list()
    won = sum((amount for amount in net if amount > 0), Decimal(0))
    lost = -sum((amount for amount in net if amount < 0), Decimal(0))
    no_leg = "no leg was closed"
    net_total = total(legs["net_pnl"])
    closed = bool(net)
    reasons = legs["exit_reason"].value_counts(sort=True).rows()
    return {
        "strategy": name,
        "signals": signals.height,
        "signals_enter": signals.filter(pl.col("action") == Action.ENTER.value).height,
        "signals_exit": signals.filter(pl.col("action") == Action.EXIT.value).height,
        "entries": entries["order_id"].n_unique(),
        "exits": exits["order_id"].n_unique(),
        "legs_closed": len(net),
        "exit_reasons": dict(sorted(reasons)),
        "gross_pnl_usd": text(total(legs["gross_pnl"])),
        "fees_usd": text(total(legs["fees"])),
        "net_pnl_usd": text(net_total),
        "return_pct": float(net_total * 100 / starting_cash),
    } | known(
        win_rate_pct=(
            100 * sum(amount > 0 for amount in net) / len(net) if closed else None,
            no_leg,
        ),
        profit_factor=(
            float(won / lost) if lost else None,
            "no leg lost, so there is nothing to divide by" if closed else no_leg,
        ),
        best_leg_usd=(text(max(net)) if closed else None, no_leg),
        worst_leg_usd=(text(min(net)) if closed else None, no_leg),
        return_mean_pct=(_mean(legs["return_pct"]), no_leg),
        holding_hours_mean=(_mean(legs["holding_ns"] / HOUR_NS), no_leg),
    )


def _mean(column: pl.Series) -> float | None:
    found = column.mean()
    return None if found is None else float(found)  # type: ignore[arg-type]


def summarise_account(session: SessionTables, starting_cash: Decimal) -> dict[str, Any]:
    """Return equity, drawdown and exposure from the recorded positions and marks."""
    positions = session[PositionChanged.topic]
    marks = hourly_marks(session)
    none = "the session recorded no position and no mark"
    no_mark = "the session recorded no hourly mark"
    end = positions["equity"][-1] if positions.height else None
    closed = total(session[OutcomeClosed.topic]["net_pnl"])
    drawdown = positions["drawdown_pct"].max()
    exposures = marks.select(
        pl.col("exposure").cast(pl.Float64) / pl.col("equity").cast(pl.Float64) * 100
    ).to_series()
    latest = positions.filter(pl.col("strategy") != "").group_by("strategy", *SERIES).last()
    return {
        "equity_start_usd": text(starting_cash),
        "net_pnl_closed_usd": text(closed),
        "legs_open": latest.filter(pl.col("quantity") != 0).height,
    } | known(
        equity_end_usd=(None if end is None else text(end), none),
        net_pnl_open_usd=(None if end is None else text(end - starting_cash - closed), none),
        return_pct=(
            None if end is None else float((end - starting_cash) * 100 / starting_cash),
            none,
        ),
        drawdown_max_pct=(None if drawdown is None else float(drawdown), none),  # type: ignore[arg-type]
        exposure_mean_pct=(_mean(exposures), no_mark),
        exposure_max_pct=(_maximum(exposures), no_mark),
        time_in_market_pct=(_mean((marks["exposure"] != 0).cast(pl.Float64) * 100), no_mark),
    )


def _maximum(column: pl.Series) -> float | None:
    found = column.max()
    return None if found is None else float(found)  # type: ignore[arg-type]


def hourly_marks(session: SessionTables) -> pl.DataFrame:
    """Return the marks of the whole account: positions without a strategy."""
    return session[PositionChanged.topic].filter(pl.col("strategy") == "")


def measure_sharpe(session: SessionTables) -> dict[str, Any]:
    """Return the annualised Sharpe ratio of the hourly marks, or null below 100 returns."""
    equity = hourly_marks(session)["equity"].cast(pl.Float64).to_numpy()
    returns = np.diff(equity) / equity[:-1] if equity.size > 1 else np.empty(0)
    value, why = None, ""
    if returns.size < SHARPE_RETURNS_MIN:
        why = f"n/a: {returns.size} hourly returns, fewer than {SHARPE_RETURNS_MIN}"
    elif (deviation := float(returns.std(ddof=1))) == 0.0:
        why = "n/a: equity did not move"
    else:
        value = float(returns.mean()) / deviation * HOURS_PER_YEAR**0.5
    return {"n": int(returns.size), "definition": SHARPE_DEFINITION} | known(value=(value, why))


def find_trade_start(session: SessionTables) -> int | None:
    """Return the event time from which entries were allowed; None if nothing tells.

    It is the setting `portfolio.trade_from`, else the last denial for warming up, else the first
    bar of the drawn series.
    """
    given = session.settings.get("portfolio", {}).get("trade_from", "")
    if given:
        parsed = pl.Series([given]).str.to_datetime(time_unit="ns", time_zone="UTC", strict=False)
        if parsed[0] is not None:
            return int(parsed.dt.epoch("ns")[0])
    decisions = session["trade.decisions"]
    warming = decisions.filter(pl.col("denial") == DenialReason.WARMING_UP.value)
    if warming.height:
        return int(warming["event_time_ns"][-1])
    first = session[BARS]["close_time_ns"].min()
    return None if first is None else int(first)  # type: ignore[arg-type]


def measure_holding(
    session: SessionTables, starting_cash: Decimal, trade_start_ns: int | None = None
) -> dict[str, Any]:
    """Return what equal parts of every traded symbol, bought once and held, would have come to.

    Bought at the first bar close at or after `trade_start_ns` (found if not given) and valued at
    the last one; fee and half spread are charged once, at the purchase.
    """
    start_ns = find_trade_start(session) if trade_start_ns is None else trade_start_ns
    curve = holding_curve(session, start_ns)
    costs_bps, words = _purchase_costs(session)
    bars, symbols = session[BARS], session.traded or session.symbols
    chosen = "the traded symbols" if session.traded else "all symbols, as none was traded"
    statement = (
        f"Equal parts of {chosen} ({len(symbols)}), bought at the first close and valued at the last "
        f"of the {bars['timeframe'][0] if bars.height else '?'} bars; {words}."
    )
    if curve.is_empty():
        why = "the session has no bar at or after the start of trading"
        return {"symbols": _names(symbols), "statement": statement} | known(
            start_ns=(None, why), end_ns=(None, why), equity_end_usd=(None, why),
            return_pct=(None, why), return_before_costs_pct=(None, why), costs_bps=(None, why),
            drawdown_max_pct=(None, why),
        )  # fmt: skip
    growth = curve["growth"].to_numpy()
    kept = 1.0 if costs_bps is None else 1.0 - costs_bps / BPS
    worth = np.maximum.accumulate(np.concatenate([[1.0], growth * kept]))[1:]
    return {
        "symbols": _names(symbols),
        "statement": statement,
    } | known(
        start_ns=(int(curve["time_ns"][0]), ""),
        end_ns=(int(curve["time_ns"][-1]), ""),
        equity_end_usd=(f"{float(starting_cash) * growth[-1] * kept:.2f}", ""),
        return_pct=(100 * float(growth[-1] * kept - 1), ""),
        return_before_costs_pct=(100 * float(growth[-1] - 1), ""),
        costs_bps=(costs_bps, words),
        drawdown_max_pct=(100 * float((1 - growth * kept / worth).max()), ""),
    )


def _names(symbols: list[tuple[str, str]]) -> list[str]:
    return [f"{venue}:{symbol}" for venue, symbol in symbols]


def holding_curve(session: SessionTables, start_ns: int | None) -> pl.DataFrame:
    """Return `time_ns` and `growth` of an equal-weight holding, 1 at the purchase, before costs.

    A symbol counts with its last known close; one that lists later is bought at its first close
    and waits in cash until then.
    """
    if start_ns is None:
        return pl.DataFrame(schema={"time_ns": pl.Int64(), "growth": pl.Float64()})
    relative = (
        session[BARS]
        .filter(pl.col("close_time_ns") >= start_ns)
        .sort("close_time_ns", maintain_order=True)
        .select(
            time_ns="close_time_ns",
            series=pl.concat_str(SERIES, separator=":"),
            growth=(pl.col("close") / pl.col("close").first()).over(SERIES),
        )
    )
    if relative.is_empty():
        return pl.DataFrame(schema={"time_ns": pl.Int64(), "growth": pl.Float64()})
    wide = relative.pivot(on="series", index="time_ns", values="growth").sort("time_ns")
    filled = wide.select("time_ns", pl.exclude("time_ns").forward_fill().fill_null(1.0))
    return filled.select("time_ns", growth=pl.mean_horizontal(pl.exclude("time_ns")))


def _purchase_costs(session: SessionTables) -> tuple[float | None, str]:
    """Return fee plus half spread of one purchase in bps and the sentence that says where from."""
    instruments, fills = session["market.instruments"], session[FILLS]
    taken = fills.filter(pl.col("purpose").is_in(MARKET_PURPOSES), pl.col("liquidity") == "taker")
    half_spread = session.settings.get("paper", {}).get("half_spread_bps")
    if instruments.height and half_spread is not None:
        traded = set(session.traded or session.symbols)
        rates = instruments.filter(
            pl.struct(SERIES).is_in([dict(zip(SERIES, key, strict=True)) for key in traded])
        )["taker_fee_bps"]
        fee = _mean(rates)
        if fee is not None:
            half = float(half_spread)
            words = (
                f"taker fee {fee:g} bps and half spread {half:g} bps charged once, as configured"
            )
            return fee + half, words
    if taken.is_empty():
        return None, "no cost is charged, as the session holds neither rates nor a market fill"
    notional = sum(map(_notional, taken.to_dicts()), Decimal(0))
    fee_bps = float(total(taken["fee"]) * BPS / notional)
    half_bps = float(_spread_paid(taken) * BPS / notional)
    words = (
        f"fee {fee_bps:.2f} bps and half spread {half_bps:.2f} bps charged once, "
        "as the session's market fills paid them"
    )
    return fee_bps + half_bps, words


def _notional(fill: dict[str, Any]) -> Decimal:
    amount: Decimal = fill["quantity"] * fill["price"]
    return amount


def _spread_paid(fills: pl.DataFrame) -> Decimal:
    return sum(
        (abs(fill["price"] - fill["tick_price"]) * fill["quantity"] for fill in fills.to_dicts()),
        Decimal(0),
    )


def summarise_costs(session: SessionTables) -> dict[str, Any]:
    """Return fees, spread and slippage over all fills.

    Spread is |price - tick price| x quantity of market fills; a stop or a target fills at a level
    of its own, from which spread cannot be told apart.
    """
    fills = session[FILLS].select(
        "purpose", "quantity", "price", "tick_price", "fee", "slippage_bps"
    )
    turnover = sum(map(_notional, fills.to_dicts()), Decimal(0))
    fees = total(fills["fee"])
    market = fills.filter(pl.col("purpose").is_in(MARKET_PURPOSES))
    # One by one: threads that share a mean add up its floats in an order of their own.
    by_purpose = {
        purpose: _mean(fills.filter(pl.col("purpose") == purpose)["slippage_bps"])
        for purpose in sorted(fills["purpose"].unique())
    }
    none = "nothing was filled"
    return {
        "turnover_usd": text(turnover),
        "fees_usd": text(fees),
        "spread_usd": text(_spread_paid(market)),
        "spread_definition": (
            "|price - tick price| x quantity of entries and exits at market; a stop or a target "
            "fills at a level of its own, so its spread cannot be told apart"
        ),
        "slippage_bps_mean_by_purpose": by_purpose,
    } | known(
        fees_bps_of_turnover=(float(fees * BPS / turnover) if turnover else None, none),
        slippage_bps_mean=(_mean(fills["slippage_bps"]), none),
    )
