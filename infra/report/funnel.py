"""From signal to fill: how many records passed each stage, and why the others did not."""

from typing import Any

import polars as pl

from infra.report.session import SessionTables
from schemas.fields import Action
from schemas.trading import DenialReason, OrderPurpose, OrderStatus, Verdict

MEANINGS: dict[DenialReason, str] = {
    DenialReason.SIGNAL_SCHEMA: "the signal broke its contract",
    DenialReason.PROVENANCE: "this kind of market data may not open a position",
    DenialReason.WARMING_UP: "trading had not begun yet",
    DenialReason.HALTED: "an operator had halted entries",
    DenialReason.STALE: "the symbol's newest tick was too old",
    DenialReason.POSITION_OPEN: "the strategy already held the symbol",
    DenialReason.NO_POSITION: "there was nothing to exit",
    DenialReason.VOTE_AGAINST: "the models' vote was below the least score, or all were silent",
    DenialReason.STOP_MISSING: "the signal proposed no usable protective stop",
    DenialReason.ORDER_RATE: "too many orders within a minute",
    DenialReason.DAILY_LOSS: "the day's loss limit was reached",
    DenialReason.DRAWDOWN: "the drawdown limit was reached",
    DenialReason.POSITION_COUNT: "the account held as many positions as it may",
    DenialReason.POSITION_NOTIONAL: "the cap on one position left nothing to buy",
    DenialReason.GROSS_NOTIONAL: "the cap on all positions left nothing to buy",
    DenialReason.CASH: "the cash paid for nothing",
    DenialReason.LOT_SIZE: "the size came to less than one lot",
    DenialReason.TICK_SIZE: "a price did not lie on the instrument's grid",
    DenialReason.NOTIONAL_MIN: "the order was below the venue's least notional",
}

ENDED = (OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED)


DECIDED = (OrderPurpose.ENTRY.value, OrderPurpose.EXIT.value)
"""Purposes of the orders that a decision asks for; stops and targets protect what was filled."""

_LEAN = (
    pl.when(pl.col("probability_buy").is_null())
    .then(pl.lit("no model voted"))
    .when(pl.col("score") > 0)
    .then(pl.lit("models for buying"))
    .when(pl.col("score") < 0)
    .then(pl.lit("models for selling"))
    .otherwise(pl.lit("models undecided"))
)
"""What the models said on the bar of a signal, in the words of the view `funnel`."""


def latest_orders(session: SessionTables) -> pl.DataFrame:
    """Return the last update of every order."""
    return (
        session["trade.orders"]
        .sort("sequence", maintain_order=True)
        .unique("order_id", keep="last", maintain_order=True)
    )


def summarise_funnel(session: SessionTables) -> dict[str, Any]:
    """Return the counts of every stage by strategy, and whether the stages add up.

    An order counts with its last status, and as filled from its first fill on.
    """
    signals, decisions = session["trade.signals"], session["trade.decisions"]
    orders, fills = latest_orders(session), session["trade.fills"]
    verdicts = dict(decisions["verdict"].value_counts().rows())
    decided = orders.filter(pl.col("purpose").is_in(DECIDED))
    filled = fills.filter(pl.col("purpose").is_in(DECIDED))["order_id"].n_unique()
    approved = verdicts.get(Verdict.APPROVED, 0) + verdicts.get(Verdict.RESIZED, 0)
    undecided = signals.join(decisions, left_on="id", right_on="cause", how="anti").height
    unknown_orders = fills.join(orders, on="order_id", how="anti").height
    return {
        "stages": [
            {"stage": "signals", "records": signals.height},
            {"stage": "approved decisions", "records": approved},
            {"stage": "their orders", "records": decided.height},
            {"stage": "of these filled", "records": filled},
            {"stage": "legs closed", "records": session["trade.outcomes"].height},
        ],
        "protective_orders": orders.height - decided.height,
        "signals": _count(signals, "strategy", "action"),
        "votes": _count(signals.with_columns(lean=_LEAN), "action", "lean", "agreement"),
        "decisions": _count(decisions, "strategy", "verdict", "denial"),
        "orders": _count(orders, "strategy", "purpose", "status"),
        "fills": _count(fills, "strategy", "purpose"),
        "signals_undecided": undecided,
        "fills_without_order": unknown_orders,
        "orders_open": orders.filter(~pl.col("status").is_in([end.value for end in ENDED])).height,
        "reconciles": undecided == 0 and unknown_orders == 0 and decisions.height == signals.height,
    }


def _count(frame: pl.DataFrame, *keys: str) -> list[dict[str, Any]]:
    return frame.group_by(keys).agg(records=pl.len().cast(pl.Int64)).sort(keys).to_dicts()


def count_denials(session: SessionTables) -> list[dict[str, Any]]:
    """Return why signals were not traded: reason, meaning and count, the most frequent first."""
    denied = session["trade.decisions"].filter(pl.col("verdict") == Verdict.DENIED.value)
    counted = denied.group_by("denial").agg(
        records=pl.len(), strategies=pl.col("strategy"), actions=pl.col("action")
    )
    total = denied.height
    rows = [
        {
            "reason": row["denial"],
            "meaning": meaning_of(row["denial"]),
            "records": row["records"],
            "share_pct": 100 * row["records"] / total,
            "by_action": {action.value: row["actions"].count(action.value) for action in Action},
            "by_strategy": {
                name: row["strategies"].count(name) for name in sorted(set(row["strategies"]))
            },
        }
        for row in counted.to_dicts()
    ]
    return sorted(rows, key=lambda row: (-int(row["records"]), str(row["reason"])))


def meaning_of(reason: str) -> str:
    """Return a denial in words; an unknown reason is said to be one."""
    known = set(DenialReason)
    return MEANINGS[DenialReason(reason)] if reason in known else "unknown to this version"
