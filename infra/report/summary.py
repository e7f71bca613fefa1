"""A session in numbers: one dictionary for the screen, `summary.json` and the report."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from infra.report.funnel import count_denials, summarise_funnel
from infra.report.live_scores import Bands, summarise_live_scores
from infra.report.models import summarise_models, summarise_opinions
from infra.report.performance import (
    find_trade_start,
    known,
    measure_holding,
    measure_sharpe,
    summarise_account,
    summarise_costs,
    summarise_strategies,
)
from infra.report.session import BARS, FEATURES, SessionTables
from infra.report.voters import Periods, summarise_voters
from schemas.fields import Provenance
from schemas.settings import TIMEFRAME_NS
from schemas.trading import DecisionMade

DAY_NS = 86_400_000_000_000

STATEMENTS: dict[str, str] = {
    Provenance.RECORDED: "Recorded market data, replayed as it happened.",
    Provenance.LIVE: "Market data as it arrived.",
    Provenance.RECONSTRUCTED: (
        "Trades rebuilt from recorded bars: open, high, low, close and volume are real, the order of "
        "prices within a bar is an assumption. They trade on paper and in backtests, never live."
    ),
    Provenance.SYNTHETIC: "Synthetic data: nothing here says anything about a market.",
}


def time_text(time_ns: int) -> str:
    """Return an instant as ISO text in UTC, to the second."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def summarise(
    session: SessionTables,
    starting_cash: Decimal,
    *,
    trade_start_ns: int | None = None,
    ticks: int | None = None,
    training_periods: Periods | None = None,
    score_bands: Bands | None = None,
) -> dict[str, Any]:
    """Return the figures of `session` as a dictionary that JSON can hold.

    Amounts of money are exact decimal text, shares are percentages, times are nanoseconds with
    their text beside them. A figure without data behind it is null, and the `why_null` of its
    section says why. `ticks` is the number of ticks read where the session does not hold them.

    Raises:
        ValueError: The session holds more than one account.
    """
    accounts = sorted(session[DecisionMade.topic]["account"].unique())
    if len(accounts) > 1:
        msg = f"session must hold one account; found {accounts!r}; name the account to report on"
        raise ValueError(msg)
    start_ns = find_trade_start(session) if trade_start_ns is None else trade_start_ns
    return {
        "paper": True,
        "session": session.name,
        "source": session.source,
        "account": accounts[0] if accounts else None,
        "settings_hashes": list(session.config_hashes),
        "period": _summarise_period(session, start_ns),
        "symbols": [f"{venue}:{symbol}" for venue, symbol in session.symbols],
        "symbols_traded": [f"{venue}:{symbol}" for venue, symbol in session.traded],
        "counts": _summarise_counts(session, ticks),
        "performance": summarise_account(session, starting_cash),
        "sharpe": measure_sharpe(session),
        "buy_and_hold": measure_holding(session, starting_cash, start_ns),
        "strategies": summarise_strategies(session, starting_cash),
        "costs": summarise_costs(session),
        "funnel": summarise_funnel(session),
        "not_traded": count_denials(session),
        "voters": summarise_voters(session, training_periods),
        "opinions": summarise_opinions(session),
        "models": summarise_models(session),
        "live_scores": summarise_live_scores(session, score_bands),
        "latency": _summarise_latency(session),
        "provenance": _summarise_provenance(session),
    }


def _summarise_period(session: SessionTables, start_ns: int | None) -> dict[str, Any]:
    covered = session.coverage
    none = "the session has no bar"
    first_ns = covered["first_open_ns"].min()
    last_ns = covered["last_close_ns"].max()
    if first_ns is None or last_ns is None:
        return known(
            first_ns=(None, none), last_ns=(None, none), first=(None, none), last=(None, none),
            days=(None, none), trade_start_ns=(start_ns, none), trade_start=(None, none),
        )  # fmt: skip
    first, last = int(first_ns), int(last_ns)  # type: ignore[arg-type]
    return known(
        first_ns=(first, ""),
        last_ns=(last, ""),
        first=(time_text(first), ""),
        last=(time_text(last), ""),
        days=((last - first) / DAY_NS, ""),
        trade_start_ns=(start_ns, none),
        trade_start=(None if start_ns is None else time_text(start_ns), none),
    )


def _summarise_counts(session: SessionTables, ticks: int | None) -> dict[str, Any]:
    counts = session.counts
    bars = session.coverage.group_by("timeframe").agg(pl.col("bars").sum(), pl.col("trades").sum())
    rows = sorted(bars.rows(), key=lambda row: TIMEFRAME_NS[row[0]])
    stored = counts.get("market.ticks")
    return {
        "bars": counts.get(BARS, 0),
        "bars_by_timeframe": {row[0]: row[1] for row in rows},
        "features": counts.get(FEATURES, 0),
        "signals": session["trade.signals"].height,
        "decisions": session["trade.decisions"].height,
        "order_updates": session["trade.orders"].height,
        "orders": session["trade.orders"]["order_id"].n_unique(),
        "fills": session["trade.fills"].height,
        "legs_closed": session["trade.outcomes"].height,
    } | known(
        ticks=(stored if ticks is None else ticks, "a folder holds no ticks"),
        trades_in_bars=(int(rows[0][2]) if rows else None, "the session has no bar"),
        dead_letters=(counts.get("ops.dead_letters"), "a folder holds no dead letters"),
        late_ticks=(counts.get("market.late"), "a folder holds no late ticks"),
    )


def _summarise_latency(session: SessionTables) -> dict[str, Any]:
    definition = (
        "from reading the newest ticks behind a record to handing the record to the log; in a replay "
        "at full speed it includes the wait in the batch"
    )
    if session.latency is None:
        hops, why = None, "records of a folder carry no stamps, as they crossed no log"
    elif session.latency.is_empty():
        hops, why = None, "no record of the environment carries both stamps"
    else:
        hops, why = session.latency.to_dicts(), ""
    return {"definition": definition} | known(hops=(hops, why))


def _summarise_provenance(session: SessionTables) -> dict[str, Any]:
    bars = dict(
        session.coverage.group_by("provenance").agg(pl.col("bars").sum()).sort("provenance").rows()
    )
    fills = dict(sorted(session["trade.fills"]["provenance"].value_counts().rows()))
    seen = [kind for kind in Provenance if kind.value in bars or kind.value in fills]
    return {
        "bars": bars,
        "fills": fills,
        "statements": [
            "Every order and fill is PAPER: simulated, no money moved.",
            *(STATEMENTS[kind] for kind in seen),
            "One period says little about the next: these are the figures of this session only.",
        ],
    }
