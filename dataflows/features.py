"""The split `features` flow: ticks in, bars and features out; one lane per partition.

`python -m bytewax.run dataflows.features:flow` runs all partitions of the environment in one flow.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.inputs import read_together
from dataflows.lanes import BarsStep
from dataflows.log_flow import LogFlow, open_whole_flow
from dataflows.log_sources import tick_source
from dataflows.machines import run_machine
from dataflows.parts import build_lane
from dataflows.signal_steps import FeaturesStep

NAME = "features"


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow of `log.partitions`."""
    flow = Dataflow(NAME)
    lane = build_lane(log.settings, log.book, log.workload.observe, marks_progress=True)
    read = read_together(
        flow, {"ticks": tick_source(log.settings, log.partitions, NAME, log.book, log.watch)}
    )
    items = run_machine("bars", read["ticks"], lambda state: BarsStep(lane, state))
    closing = op.branch("closing", items, lambda keyed: keyed[1].bars is not None)
    computed = run_machine("features", closing.trues, lambda state: FeaturesStep(lane, state))
    merged = op.merge("items", closing.falses, computed)
    records = op.map_value("records_of", merged, lambda item: item.outgoing)
    op.output("records", records, log.sink())
    return flow


def flow() -> Dataflow:
    """Return the flow of every partition, for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
