"""Everything that a flow reads, as one input: with two, one would wait for the other's epochs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.operators import KeyedStream

from infra.kafka.joined_source import JoinedSource, Tagged

Sources = Mapping[str, FixedPartitionedSource[tuple[str, Any], Any]]
"""What a flow reads, by name."""

STEP = "log"
"""Step id of the one input of every flow."""


def read_together(flow: Dataflow, sources: Sources) -> dict[str, KeyedStream[Any]]:
    """Return one stream per source of `sources`, by the same names."""
    read = op.input(STEP, flow, JoinedSource(sources))
    return {name: op.filter_map(name, read, partial(_pick, name)) for name in sources}


def _pick(name: str, tagged: Tagged) -> tuple[str, Any] | None:
    return tagged[1] if tagged[0] == name else None
