"""The summary of a session on a terminal; every title says PAPER."""

from collections.abc import Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.report.words import amount, number, percent

Summary = dict[str, Any]


def print_summary(console: Console, summary: Summary) -> None:
    """Print what `infra.report.summary.summarise` found, for a person."""
    _print_session(console, summary)
    _print_strategies(console, summary)
    _print_denials(console, summary)
    _print_voters(console, summary)
    _print_models(console, summary)
    _print_live_scores(console, summary)
    _print_latency(console, summary)
    for statement in summary["provenance"]["statements"]:
        console.print(Text(statement, style="dim"))


def _table(title: str, columns: Sequence[str], *, left: int = 1, folded: str = "") -> Table:
    """Return a table whose first `left` columns are words; only `folded` may break its lines."""
    table = Table(
        title=f"PAPER · {title}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if place < left else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column != folded)
    return table


def _signed(value: str) -> Text:
    style = "red" if value.startswith("-") else "green" if value.startswith("+") else "dim"
    return Text(value, style=style)


def _print_session(console: Console, summary: Summary) -> None:
    period, counts, costs = summary["period"], summary["counts"], summary["costs"]
    table = _table("session", ("", "what"), left=2, folded="what")
    table.show_header = False
    span = "no bars"
    if period["first"] is not None:
        span = f"{period['first']} to {period['last']} ({number(period['days'], 1)} days)"
    stages = ("ticks", "bars", "features", "signals", "decisions", "orders", "fills", "legs_closed")
    flow = ", ".join(
        f"{counts[name]:,} {name.replace('_', ' ')}" for name in stages if counts[name] is not None
    )
    table.add_row("session", f"{summary['session']} ({summary['source']})")
    table.add_row("period", span)
    table.add_row("symbols", ", ".join(summary["symbols"]) or "none")
    table.add_row("records", flow)
    table.add_row(
        "costs",
        f"fees {amount(costs['fees_usd'])} USD, spread {amount(costs['spread_usd'])} USD, "
        f"slippage {number(costs['slippage_bps_mean'])} bps a fill",
    )
    console.print(table)


def _print_strategies(console: Console, summary: Summary) -> None:
    columns = ("", "signals", "entries", "exits", "won", "fees", "net USD", "return")
    table = _table("P&L by strategy, beside buy-and-hold", columns)
    for row in summary["strategies"]:
        table.add_row(
            row["strategy"],
            f"{row['signals']:,}",
            f"{row['entries']:,}",
            f"{row['exits']:,}",
            percent(row["win_rate_pct"], 0, signed=False),
            amount(row["fees_usd"]),
            _signed(amount(row["net_pnl_usd"], signed=True)),
            _signed(percent(row["return_pct"])),
        )
    account, held = summary["performance"], summary["buy_and_hold"]
    table.add_section()
    blank = [""] * 5
    open_pnl = amount(account["net_pnl_open_usd"], signed=True)
    table.add_row(f"open legs ({account['legs_open']})", *blank, _signed(open_pnl), "")
    table.add_row("account", *blank, "", _signed(percent(account["return_pct"])), style="bold")
    table.add_row("buy and hold", *blank, "", _signed(percent(held["return_pct"])))
    console.print(table)
    sharpe = summary["sharpe"]
    ratio = sharpe["why_null"].get("value") or f"{sharpe['value']:.2f} ({sharpe['n']} returns)"
    console.print(
        f"equity {amount(account['equity_start_usd'])} → {amount(account['equity_end_usd'])} USD, "
        f"deepest drawdown {percent(account['drawdown_max_pct'], signed=False)}, "
        f"mean exposure {percent(account['exposure_mean_pct'], signed=False)}, "
        f"Sharpe (hourly marks) {ratio}"
    )
    console.print(Text(f"Buy and hold: {held['statement']}", style="dim"))


def _print_denials(console: Console, summary: Summary) -> None:
    funnel = summary["funnel"]
    way = " → ".join(f"{stage['records']:,} {stage['stage']}" for stage in funnel["stages"])
    console.print(f"\nFrom signal to leg: {way}")
    if not summary["not_traded"]:
        console.print("No signal was denied")
        return
    columns = ("reason", "in words", "enter", "exit", "share")
    table = _table("why signals were not traded", columns, left=2, folded="in words")
    for row in summary["not_traded"]:
        share = percent(row["share_pct"], signed=False)
        entries, exits = (f"{row['by_action'][action]:,}" for action in ("enter", "exit"))
        table.add_row(row["reason"], row["meaning"], entries, exits, share)
    console.print(table)


def _print_voters(console: Console, summary: Summary) -> None:
    if not summary["voters"]:
        return
    columns = ("voter", "votes", "buy", "hold", "sell", "abstained", "Brier", "prior", "right")
    table = _table("voters on direction (Brier score: lower is better)", columns)
    for row in summary["voters"]:
        share, score = row["stance_share_pct"], row["score"]
        table.add_row(
            row["voter"],
            f"{row['votes']:,}",
            *(
                percent(share[stance], 0, signed=False)
                for stance in ("buy", "hold", "sell", "abstain")
            ),
            number(score["brier"], 3),
            number(score["brier_prior"], 3),
            percent(score["right_pct"], 0, signed=False),
        )
    console.print(table)
    for row in summary["voters"]:
        if row["kind"] != "rule":
            console.print(Text(f"{row['voter']}: {row['sample']}", style="dim"))


def _print_models(console: Console, summary: Summary) -> None:
    found = summary["models"]
    if not found["models"]:
        return
    columns = ("model", "scored", "log-loss", "weight", "drift alarms")
    table = _table("models, each prediction before its label (log-loss: lower is better)", columns)
    for row in found["models"]:
        table.add_row(
            row["model"],
            f"{row['scored']:,}",
            number(row["log_loss"], 4),
            number(row["weight_mean"], 3),
            f"{row['drift_alarms']:,}",
        )
    console.print(table)
    stages = "; ".join(f"{row['stage']} {row['records']:,}" for row in summary["opinions"])
    console.print(Text(f"Opinions: {stages}", style="dim"))


def _print_live_scores(console: Console, summary: Summary) -> None:
    rows = [row for row in summary["live_scores"]["models"] if row["band"] is not None]
    if not rows:
        return
    columns = ("model", "version", "log-loss", "band of its card", "standing")
    table = _table("live log-loss beside the card (lower is better)", columns)
    for row in rows:
        band = f"{row['band']['low']:.4f} to {row['band']['high']:.4f}"
        table.add_row(
            row["model"], row["version"], number(row["log_loss"], 4), band, row["standing"]
        )
    console.print(table)


def _print_latency(console: Console, summary: Summary) -> None:
    latency = summary["latency"]
    if latency["hops"] is None:
        return
    table = _table("latency by hop", ("record", "records", "p50 ms", "p99 ms"))
    for hop in latency["hops"]:
        table.add_row(
            hop["topic"], f"{hop['records']:,}", f"{hop['p50_ms']:,.2f}", f"{hop['p99_ms']:,.2f}"
        )
    console.print(table)
    console.print(Text(f"Latency: {latency['definition']}", style="dim"))
