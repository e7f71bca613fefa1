"""The verb `why`: from a fill, order, decision or signal (or a moment) back to its ticks."""

from typing import Annotated, Any

import typer
from msgspec import to_builtins
from rich.tree import Tree

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import JsonFlag, console, print_json, reporting
from infra.clickhouse.why import Explanation
from schemas.times import format_time_ns, parse_time_ns

FEATURES_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(why)


def why(
    record_id: Annotated[
        str | None, typer.Argument(help="Id of a fill, order, decision, signal or outcome.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Symbol of a moment; with --at.")] = None,
    at: Annotated[str | None, typer.Option(help="Time of the moment (ISO); with --symbol.")] = None,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Walk from an id, or from a moment without a trade, to everything that caused it."""
    with reporting(as_json=as_json):
        from dataflows.archive_client import open_archive  # noqa: PLC0415
        from infra.clickhouse.why import explain, explain_at  # noqa: PLC0415

        if (record_id is None) == (symbol is None or at is None):
            msg = "why must be asked for one ID, or for --symbol and --at together"
            raise ValueError(msg)
        client = open_archive(settings_for(environment))
        found = (
            explain(client, record_id)
            if record_id is not None
            else explain_at(client, symbol or "", parse_time_ns(at or ""))
        )
        if as_json:
            print_json(to_builtins(found))
        else:
            print_explanation(found)


def print_explanation(found: Explanation) -> None:
    """Print the chain as a tree, from the ticks to the outcome."""
    tree = Tree(f"[bold]{found.subject} {found.record_id}[/] (PAPER): {found.summary}")
    if found.ticks is not None:
        tree.add(f"ticks {found.ticks.first} … {found.ticks.last} ({found.ticks.stored:,} kept)")
    if found.bar is not None:
        bar = found.bar
        tree.add(
            f"bar {bar.symbol} {bar.timeframe} closed {format_time_ns(bar.close_time_ns)}: "
            f"open {bar.open} high {bar.high} low {bar.low} close {bar.close} volume {bar.volume} "
            f"({bar.trades} trades, {bar.provenance})"
        )
    _add_regime(tree, found)
    _add_features(tree, found)
    _add_opinion(tree, found)
    _add_signal(tree, found)
    _add_decision(tree, found)
    for order in found.orders:
        tree.add(
            f"order {order.purpose} {order.side} {order.quantity} {order.status} "
            f"at {format_time_ns(order.event_time_ns)} {order.reason} [dim]{order.order_id}[/]"
        )
    for fill in found.fills:
        tree.add(
            f"fill {fill.side} {fill.quantity} at {fill.price} fee {fill.fee} {fill.fee_currency} "
            f"slippage {fill.slippage_bps:.2f} bps at {format_time_ns(fill.event_time_ns)} [dim]{fill.id}[/]"
        )
    if found.outcome is not None:
        done = found.outcome
        tree.add(
            f"outcome {done.exit_reason}: gross {done.gross_pnl} fees {done.fees} "
            f"net {done.net_pnl} ({done.return_pct:.2f} %)"
        )
    tree.add(f"settings {found.config_hash}, writer epoch {found.epoch}")
    for link in found.missing:
        tree.add(f"[red]not in the archive: {link}[/]")
    for other in found.also:
        tree.add(f"also at this moment: {other}")
    console.print(tree)


def _add_regime(tree: Tree, found: Explanation) -> None:
    regime = found.regime
    if regime is None:
        return
    sure = "" if regime.confidence is None else f", probability {regime.confidence:.2f}"
    tree.add(
        f"regime {regime.regime} since {format_time_ns(regime.regime_since_ns)} by {regime.source} "
        f"{regime.version}{sure}: {regime.reason} [dim]{regime.id}[/]"
    )


def _add_features(tree: Tree, found: Explanation) -> None:
    if not found.features:
        return
    branch = tree.add(f"features {found.feature_schema}")
    for feature in found.features[:FEATURES_SHOWN]:
        value = "missing" if feature.value is None else f"{feature.value:.6g}"
        branch.add(f"{feature.name} = {value} {feature.unit}")
    hidden = len(found.features) - FEATURES_SHOWN
    if hidden > 0:
        branch.add(f"… and {hidden} more (--json shows all)")


def _add_signal(tree: Tree, found: Explanation) -> None:
    signal = found.signal
    if signal is None:
        return
    branch = tree.add(
        f"signal {signal.strategy} {signal.action} {signal.stance}, score {signal.score:+.3f}: "
        f"{signal.reason} [dim]{signal.id}[/]"
    )
    for vote in signal.votes:
        chances = _chances(vote.probability_sell, vote.probability_hold, vote.probability_buy)
        branch.add(
            f"{vote.voter} ({vote.kind} {vote.version}, {vote.content_hash[:12]}): {vote.stance} "
            f"{chances} weight {vote.weight:g}; {vote.reason}"
        )
    pooled = _chances(signal.probability_sell, signal.probability_hold, signal.probability_buy)
    if pooled:
        edges = _edges(signal.expected_edge_bps, signal.edge_threshold_bps)
        branch.add(f"pooled {pooled}, {signal.agreement or 'no direction'}; {edges}")


def _add_opinion(tree: Tree, found: Explanation) -> None:
    one = found.opinion
    if one is None:
        return
    edges = _edges(one.edge_bps, one.threshold_bps)
    branch = tree.add(
        f"models on the {one.timeframe} bar closed {format_time_ns(one.event_time_ns)}: "
        f"{one.decided_stance}; {edges}; below, what each lifts most above its base rate "
        f"[dim]{one.id}[/]"
    )
    tilts = one.tilts or [None] * len(one.voters)
    rows = zip(one.voters, one.stances, one.sell, one.buy, one.weights, tilts, strict=True)
    for voter, stance, sell, buy, weight, tilt in rows:
        off = f", tilt {tilt:+.4f} taken off" if tilt else ""
        branch.add(f"{voter}: {stance} {_outer_chances(sell, buy)} weight {weight:g}{off}")
    pooled = _outer_chances(one.pooled_sell, one.pooled_buy)
    branch.add(f"pooled: {one.pooled_stance} {pooled}, {one.agreement or 'no direction'}")


def _outer_chances(sell: float | None, buy: float | None) -> str:
    return "" if sell is None or buy is None else _chances(sell, max(1.0 - sell - buy, 0.0), buy)


def _edges(edge_bps: float | None, threshold_bps: float | None) -> str:
    edge = "unknown" if edge_bps is None else f"{edge_bps:+.2f} bps"
    return f"expected edge {edge}" + (
        "" if threshold_bps is None else f", needs {threshold_bps:g} bps"
    )


def _chances(*probabilities: float | None) -> str:
    if any(one is None for one in probabilities):
        return ""
    return "sell/hold/buy " + "/".join(f"{one:.3f}" for one in probabilities)


def _add_decision(tree: Tree, found: Explanation) -> None:
    decision = found.decision
    if decision is None:
        return
    branch = tree.add(
        f"decision {decision.verdict} {decision.denial} quantity {decision.quantity} at "
        f"{format_time_ns(decision.event_time_ns)}: {decision.justification} [dim]{decision.id}[/]"
    )
    for check in decision.checks:
        mark: dict[str, Any] = {"passed": "green", "resized": "yellow", "denied": "red"}
        colour = mark[check.verdict]
        branch.add(
            f"[{colour}]{check.verdict}[/] {check.check}: measured {check.measured}, limit {check.limit}"
        )
