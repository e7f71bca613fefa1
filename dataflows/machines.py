"""The one bridge between our pure machines and Bytewax's stateful steps."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import bytewax.operators as op
from bytewax.operators import KeyedStream, StatefulBatchLogic

In = TypeVar("In")
"""What a machine eats, item by item."""
Out = TypeVar("Out")
"""What it causes."""

SETTLE_AFTER = timedelta(milliseconds=20)
"""By then the records of a step have been sent; the wall clock decides when, never what."""


class Machine(Protocol[In, Out]):
    """A deterministic state machine that eats batches."""

    def on_batch(self, values: list[In]) -> list[Out]:
        """Return what `values` cause, in order."""

    def snapshot(self) -> object:
        """Return all that must survive a crash; Bytewax pickles it at once."""


@runtime_checkable
class Settling(Protocol):
    """A machine that puts work off until what is urgent is on the way."""

    def settle(self) -> list[Any]:
        """Do that work and return what it puts out; when it is done changes nothing in it."""


class _MachineLogic(StatefulBatchLogic, Generic[In, Out]):
    """Feed a machine; a key is never discarded, its memory is bounded by its own rules."""

    def __init__(self, machine: Machine[In, Out]) -> None:
        self._machine = machine
        # One that is resumed may have put off work when its snapshot was taken.
        self._settle_at = self._soon()

    def on_batch(self, values: list[In]) -> tuple[list[Out], bool]:
        # Not later with every batch: a feed without a pause would put the work off for ever.
        if self._settle_at is None:
            self._settle_at = self._soon()
        return self._machine.on_batch(values), StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[list[Out], bool]:
        return self._settle(), StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[Out], bool]:
        return self._settle(), StatefulBatchLogic.RETAIN

    def _soon(self) -> datetime | None:
        return datetime.now(UTC) + SETTLE_AFTER if isinstance(self._machine, Settling) else None

    def _settle(self) -> list[Out]:
        self._settle_at = None
        return self._machine.settle() if isinstance(self._machine, Settling) else []

    def notify_at(self) -> datetime | None:
        return self._settle_at

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
