"""The one bridge between our pure machines and Bytewax's stateful steps."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import bytewax.operators as op
from bytewax.operators import KeyedStream, StatefulBatchLogic

In = TypeVar("In")
"""What a machine eats, item by item."""
Out = TypeVar("Out")
"""What it causes."""


class Machine(Protocol[In, Out]):
    """A deterministic state machine that eats batches."""

    def on_batch(self, values: list[In]) -> list[Out]:
        """Return what `values` cause, in order."""

    def snapshot(self) -> object:
        """Return all that must survive a crash; Bytewax pickles it at once."""


class _MachineLogic(StatefulBatchLogic, Generic[In, Out]):
    """Feed a machine; a key is never discarded, its memory is bounded by its own rules."""

    def __init__(self, machine: Machine[In, Out]) -> None:
        self._machine = machine

    def on_batch(self, values: list[In]) -> tuple[list[Out], bool]:
        return self._machine.on_batch(values), StatefulBatchLogic.RETAIN

    def snapshot(self) -> object:
        return self._machine.snapshot()


def run_machine(
    step_id: str,
    up: KeyedStream[Any],
    build: Callable[[object | None], Machine[Any, Any]],
) -> KeyedStream[Any]:
    """Run one machine per key; `build(state)` resumes it from its snapshot.

    The step id is the recovery key: a renamed step forgets its state, so a rename needs a CHANGELOG entry.
    """
    return op.stateful_batch(step_id, up, lambda state: _MachineLogic(build(state)))
