"""The split `signals` flow: bars in, votes and signals out; one lane per partition.

It computes the features again from the bars by the same operator instead of reading `market.features`:
rules look at more columns than the published schema has, and a recursion carried from the bars cannot
disagree with the one in `features`.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.inputs import read_together
from dataflows.lanes import BarsReadStep
from dataflows.log_flow import LogFlow, open_whole_flow
from dataflows.log_sources import bar_source
from dataflows.machines import run_machine
from dataflows.parts import build_lane

NAME = "signals"


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow of `log.partitions`."""
    flow = Dataflow(NAME)
    lane = build_lane(log.settings, log.book, log.workload.observe)
    read = read_together(flow, {"bars": bar_source(log.settings, log.partitions, NAME, log.watch)})
    records = run_machine("signals", read["bars"], lambda state: BarsReadStep(lane, state))
    op.output("records", records, log.sink())
    return flow


def flow() -> Dataflow:
    """Return the flow of every partition, for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
