"""What travels between the steps of a dataflow: columnar batches, never one object per tick."""

from typing import ClassVar, Protocol

import polars as pl
from msgspec import Struct

from schemas.fields import Identity, Name, TimeNs
from schemas.operations import ControlCommanded, DeadLetterRecorded
from schemas.signals import SignalEmitted

NO_PARTITION = -1
"""Partition of an input that brings commands and nothing of the market."""


class TickBatch(Struct, kw_only=True):
    """One decoded fetch of one partition of `market.ticks`."""

    partition: int
    ticks: pl.DataFrame
    """`schemas.ticks.TICK_FRAME`, in log order."""
    dead_letters: list[DeadLetterRecorded]
    next_offset: int
    ingest_time_ns: int
    """Wall clock at which the fetch was read; goes into headers only."""


class ProgressMarked(Struct, frozen=True, kw_only=True):
    """A heartbeat of a derived topic: every record up to this event time has been written."""

    topic: ClassVar[str] = "progress"

    partition: int
    complete_through_ns: TimeNs


class ControlReceived(Struct, frozen=True, kw_only=True):
    """A verified command with the event time at which the log says it took effect, if it has."""

    command: ControlCommanded
    effective_ns: TimeNs | None
    not_before_ns: TimeNs = -1
    """A command that has not taken effect yet never does before this event time."""


class AccountInput(Struct, kw_only=True):
    """Everything that one partition tells the account in one step."""

    partition: int
    ticks: pl.DataFrame | None = None
    """Accepted ticks (`TICK_FRAME`), in log order."""
    signals: list[SignalEmitted] = []
    tick_watermark_ns: TimeNs | None = None
    """No accepted tick of this partition will have an earlier event time."""
    signal_watermark_ns: TimeNs | None = None
    """Every signal of this partition with an event time up to and including this one was given."""
    controls: list[ControlReceived] = []
    ingest_time_ns: int = 0


class Rows(Protocol):
    """Rows that become a frame when they are written: making it must not delay a decision."""

    @property
    def height(self) -> int:
        """How many there are."""

    def build(self) -> pl.DataFrame:
        """Return the rows, of the message's schema."""


class Outgoing(Struct, kw_only=True):
    """Records for one topic: either messages or rows of the message's schema."""

    topic: Name
    messages: list[Struct] = []
    rows: pl.DataFrame | Rows | None = None
    partition: int | None = None
    """Kafka partition of partitioned topics; None for the others."""
    progress_ns: TimeNs | None = None
    """Also write a `ProgressMarked` behind the records."""
    flush: bool = False
    """Wait until these records are durable before anything later is sent."""
    ingest_time_ns: int = 0
    origin_id: Identity = ""

    @property
    def height(self) -> int:
        """How many records these are, a mark of progress not counted."""
        return len(self.messages) + (0 if self.rows is None else self.rows.height)

    def frame(self) -> pl.DataFrame | None:
        """Return the rows as a frame, made now if that was put off."""
        rows = self.rows
        return rows if rows is None or isinstance(rows, pl.DataFrame) else rows.build()
