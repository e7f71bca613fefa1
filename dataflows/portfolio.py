"""The split `portfolio` flow: signals, ticks and commands in, everything of the account out.

An account has one engine, so this flow reads every partition and cannot be split further.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.accounts import AccountStep, on_account
from dataflows.inputs import read_together
from dataflows.known_commands import read_known_commands
from dataflows.lanes import ScreenStep, signals_item
from dataflows.log_flow import LogFlow, open_whole_flow
from dataflows.log_sources import control_source, signal_source, tick_source
from dataflows.machines import run_machine
from dataflows.parts import adopt_settings, build_lane, build_portfolio

NAME = "portfolio"


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow of the account."""
    flow, settings = Dataflow(NAME), log.settings
    lane = build_lane(settings, log.book, log.workload.observe)
    known = read_known_commands(settings)
    read = read_together(
        flow,
        {
            "ticks": tick_source(settings, log.partitions, NAME, log.book, log.watch),
            "signals": signal_source(settings, log.partitions, NAME, log.watch),
            "controls": control_source(settings, NAME, log.watch, known),
        },
    )
    accepted = run_machine("screen", read["ticks"], lambda state: ScreenStep(lane, state))
    signalled = op.map_value("signal_items", read["signals"], signals_item)
    inputs = op.merge(
        "inputs",
        on_account("commands", read["controls"], settings.account),
        on_account("signalled", signalled, settings.account),
        on_account("accepted", accepted, settings.account),
    )
    records = run_machine(
        "account",
        inputs,
        lambda state: AccountStep(
            lambda: build_portfolio(settings, log.partitions),
            lambda portfolio: adopt_settings(settings, portfolio),
            log.book,
            lane.observe,
            known.received,
            state,
        ),
    )
    op.output("records", records, log.sink())
    return flow


def flow() -> Dataflow:
    """Return the flow for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
