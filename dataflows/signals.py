"""The split `signals` flow: bars in, votes and signals out; one lane per partition.

It computes the features again from the bars by the same operator instead of reading `market.features`:
rules look at more columns than the published schema has, and a recursion carried from the bars cannot
disagree with the one in `features`.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.inputs import read_together
from dataflows.known_commands import read_known_commands
from dataflows.known_models import read_known_models
from dataflows.log_flow import LogFlow, learners_folder, open_whole_flow
from dataflows.log_sources import bar_source, control_source
from dataflows.machines import run_machine
from dataflows.parts import build_lane
from dataflows.signal_steps import BarsReadStep, to_lanes

NAME = "signals"


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow of `log.partitions`."""
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
    read = read_together(
        flow,
        {
            "bars": bar_source(settings, log.partitions, NAME, log.watch),
            "controls": control_source(settings, NAME, log.watch, known),
        },
    )
    commands = to_lanes("model_commands", read["controls"], log.partitions)
    inputs = op.merge("inputs", commands, read["bars"])
    records = run_machine("signals", inputs, lambda state: BarsReadStep(lane, state))
    op.output("records", records, log.sink())
    return flow


def flow() -> Dataflow:
    """Return the flow of every partition, for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
