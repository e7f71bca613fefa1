"""The fused flow: ticks in, explained fills out, in one process; the default on one machine.

`python -m bytewax.run dataflows.trading:flow` runs it on the settings of the environment.
"""

from collections.abc import Sequence

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from dataflows.accounts import AccountStep, on_account
from dataflows.inputs import Sources, read_together
from dataflows.known_commands import read_known_commands
from dataflows.known_models import read_known_models
from dataflows.lanes import BarsStep, Lane
from dataflows.log_flow import LogFlow, learners_folder, open_whole_flow
from dataflows.log_sources import control_source, tick_source
from dataflows.machines import run_machine
from dataflows.parts import adopt_settings, build_lane, build_portfolio
from dataflows.signal_steps import SignalsStep, to_lanes
from infra.settings import Settings
from schemas.batches import ControlReceived

NAME = "trading"


def wire_trading(
    flow: Dataflow,
    settings: Settings,
    lane: Lane,
    sources: Sources,
    partitions: list[int],
    known: Sequence[ControlReceived] = (),
) -> KeyedStream[list[object]]:
    """Join sources, lanes and the account; return the stream of records to write.

    `sources` are `ticks` and, if anybody may command, `controls`; `known` are the commands that the
    log holds already.
    """
    read = read_together(flow, sources)
    items = run_machine("bars", read["ticks"], lambda state: BarsStep(lane, state))
    closing = op.branch("closing", items, lambda keyed: keyed[1].bars is not None)
    voting = closing.trues
    if "controls" in read:
        voting = op.merge(
            "voting", to_lanes("model_commands", read["controls"], partitions), voting
        )
    signalled = run_machine("signals", voting, lambda state: SignalsStep(lane, state))
    inputs = op.merge("inputs", closing.falses, signalled)
    account = on_account("to_account", inputs, settings.account)
    if "controls" in read:
        commands = on_account("commands", read["controls"], settings.account)
        account = op.merge("with_controls", commands, account)
    return run_machine(
        "account",
        account,
        lambda state: AccountStep(
            lambda: build_portfolio(settings, partitions),
            lambda portfolio: adopt_settings(settings, portfolio),
            lane.book,
            lane.observe,
            known,
            state,
        ),
    )


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow over the log; `log` holds the lease, the book and the sink."""
    flow = Dataflow(NAME)
    settings = log.settings
    known = read_known_commands(settings)
    lane = build_lane(
        settings,
        log.book,
        log.workload.observe,
        known={one: read_known_models(settings, one, known) for one in log.partitions},
        learners=learners_folder(log),
    )
    records = wire_trading(
        flow,
        settings,
        lane,
        {
            "ticks": tick_source(settings, log.partitions, NAME, log.book, log.watch),
            "controls": control_source(settings, NAME, log.watch, known),
        },
        log.partitions,
        known.received,
    )
    op.output("records", records, log.sink())
    return flow


def flow() -> Dataflow:
    """Return the flow for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
