"""A lane: what one partition of `market.ticks` goes through, from ticks to signals.

A lane is cut in two steps so that a snapshot stays small: `BarsStep` is touched by every fetch and
remembers little; `SignalsStep` remembers feature and learner state and is touched only when a bar
closed. Items without a bar overtake it, so every item carries the lane's sequence number and
`dataflows.accounts` restores the order.
"""

from collections.abc import Callable
from typing import cast

import polars as pl
from msgspec import Struct

from dataflows.log_sources import SignalsRead
from operators.bar_columns import BarColumns
from operators.bars import BarMachine, BarState
from operators.features import FeatureMachine
from operators.regime import RegimeMachine, RegimeState
from operators.screen import ScreenState, TickScreen
from operators.signals import SignalMachine, SignalState
from schemas.batches import AccountInput, Outgoing, TickBatch
from schemas.features import FeatureSchema
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, TickLate
from schemas.models import ModelEventRecorded
from schemas.operations import AlertRaised, ControlCommanded, DeadLetterRecorded

STATE_VERSION = 5


class LaneItem(Struct, kw_only=True):
    """What a lane hands on: the account's input and the records to write."""

    partition: int
    sequence: int
    input: AccountInput
    bars: BarColumns | None
    """Bars that closed and that some voter wants; None once their signals are in `input`."""
    outgoing: list[Outgoing]


class LaneCommands(Struct, kw_only=True):
    """Verified commands about models, for one lane."""

    partition: int
    commands: list[ControlCommanded]


class OpenedSignals(Struct, kw_only=True):
    """The signal machine of a lane, and what must be written before anything that it finds."""

    machine: SignalMachine
    records: list[ModelEventRecorded | AlertRaised]


class Lane(Struct, kw_only=True):
    """How to build the machines of a lane."""

    book: InstrumentBook
    build_screen: Callable[[int, ScreenState | None], TickScreen]
    build_bars: Callable[[int, BarState | None], BarMachine]
    build_features: Callable[[], FeatureMachine]
    build_signals: Callable[[int, SignalState | None], OpenedSignals]
    build_regimes: Callable[[RegimeState | None], RegimeMachine]
    published_schema: FeatureSchema
    feature_timeframes: tuple[str, ...]
    """Timeframes that some voter declares; bars of the others need no features."""
    marks_progress: bool = False
    """Whether a following flow reads `market.bars` and needs to know how far they are complete."""
    observe: Callable[[str, int], None]
    """Counts what happened, by name, for the metrics."""


class BarsStep:
    """Ticks of one partition in, accepted ticks and closed bars out."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._lane = lane
        self._machines: tuple[TickScreen, BarMachine] | None = None
        self._sequence = 0
        self._watermark_ns = -1
        if state is not None:
            version, partition, screen, bars, sequence, watermark_ns = cast(
                "tuple[int, int, ScreenState, BarState, int, int]", state
            )
            check_version("bars", version)
            self._machines = (
                lane.build_screen(partition, screen),
                lane.build_bars(partition, bars),
            )
            self._sequence, self._watermark_ns = sequence, watermark_ns

    def snapshot(self) -> object:
        """Return the state of the screen and the bars, and how far the lane came."""
        assert self._machines is not None
        screen, bars = self._machines
        return (
            STATE_VERSION,
            screen.partition,
            screen.snapshot(),
            bars.snapshot(),
            self._sequence,
            self._watermark_ns,
        )

    def on_batch(self, values: list[TickBatch]) -> list[LaneItem]:
        """Return one item per fetch."""
        return [self._on_fetch(batch) for batch in values]

    def _on_fetch(self, batch: TickBatch) -> LaneItem:
        if self._machines is None:
            self._machines = (
                self._lane.build_screen(batch.partition, None),
                self._lane.build_bars(batch.partition, None),
            )
        screen, machine = self._machines
        book = self._lane.book
        screened = screen.on_ticks(batch.ticks, book)
        watermark_ns = screened.watermark_ns
        bars = machine.advance(screened.accepted, screened.duplicates, watermark_ns, book)
        self._sequence += 1
        advanced = watermark_ns > self._watermark_ns and self._lane.marks_progress
        self._watermark_ns = watermark_ns
        self._count(batch, screened.accepted, screened.late, screened.duplicates, bars)
        return LaneItem(
            partition=batch.partition,
            sequence=self._sequence,
            input=AccountInput(
                partition=batch.partition,
                ticks=screened.accepted if screened.accepted.height else None,
                tick_watermark_ns=watermark_ns,
                signal_watermark_ns=watermark_ns,
                ingest_time_ns=batch.ingest_time_ns,
            ),
            bars=self._bars_with_voters(bars),
            outgoing=_market_records(
                batch, screened.late, bars, watermark_ns if advanced else None
            ),
        )

    def _bars_with_voters(self, bars: BarColumns) -> BarColumns | None:
        if not bars.height:
            return None
        wanted = bars.select(set(self._lane.feature_timeframes))
        return wanted if wanted.height else None

    def _count(
        self,
        batch: TickBatch,
        accepted: pl.DataFrame,
        late: pl.DataFrame,
        duplicates: pl.DataFrame,
        bars: BarColumns,
    ) -> None:
        observe = self._lane.observe
        observe("ticks", accepted.height)
        observe("late_ticks", late.height)
        observe("duplicate_ticks", duplicates.height)
        observe("dead_letters", len(batch.dead_letters))
        observe("bars", bars.height)
        observe("event_time_ns", self._watermark_ns)


class ScreenStep:
    """Ticks of one partition in, accepted ticks out, for an account that reads its signals elsewhere."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._lane = lane
        self._screen: TickScreen | None = None
        if state is not None:
            version, partition, screen = cast("tuple[int, int, ScreenState]", state)
            check_version("screen", version)
            self._screen = lane.build_screen(partition, screen)

    def snapshot(self) -> object:
        """Return the state of the screen."""
        assert self._screen is not None
        return STATE_VERSION, self._screen.partition, self._screen.snapshot()

    def on_batch(self, values: list[TickBatch]) -> list[LaneItem]:
        """Return one item per fetch; the `features` flow records late ticks and dead letters."""
        return [self._on_fetch(batch) for batch in values]

    def _on_fetch(self, batch: TickBatch) -> LaneItem:
        if self._screen is None:
            self._screen = self._lane.build_screen(batch.partition, None)
        screened = self._screen.on_ticks(batch.ticks, self._lane.book)
        self._lane.observe("ticks", screened.accepted.height)
        self._lane.observe("event_time_ns", screened.watermark_ns)
        return LaneItem(
            partition=batch.partition,
            sequence=0,
            input=AccountInput(
                partition=batch.partition,
                ticks=screened.accepted if screened.accepted.height else None,
                tick_watermark_ns=screened.watermark_ns,
                ingest_time_ns=batch.ingest_time_ns,
            ),
            bars=None,
            outgoing=[],
        )


def signals_item(read: SignalsRead) -> LaneItem:
    """Return what a fetch of signals tells the account."""
    return LaneItem(
        partition=read.partition,
        sequence=0,
        input=AccountInput(
            partition=read.partition,
            signals=read.signals,
            signal_watermark_ns=read.complete_through_ns,
            ingest_time_ns=read.ingest_time_ns,
        ),
        bars=None,
        outgoing=[],
    )


def check_version(step: str, version: int) -> None:
    """Raise ValueError if a snapshot was written by another version of this step."""
    if version != STATE_VERSION:
        msg = (
            f"recovery state of step {step!r} must have version {STATE_VERSION}; found {version}; "
            f"remove the recovery folder to rebuild it from the log"
        )
        raise ValueError(msg)


def _market_records(
    batch: TickBatch, late: pl.DataFrame, bars: BarColumns, progress_ns: int | None
) -> list[Outgoing]:
    partition, ingest_ns = batch.partition, batch.ingest_time_ns
    outgoing = [
        Outgoing(
            topic=BarClosed.topic,
            rows=bars if bars.height else None,
            partition=partition,
            progress_ns=progress_ns,
            ingest_time_ns=ingest_ns,
        )
    ]
    if late.height:
        outgoing.append(
            Outgoing(topic=TickLate.topic, rows=late, partition=partition, ingest_time_ns=ingest_ns)
        )
    if batch.dead_letters:
        outgoing.append(
            Outgoing(
                topic=DeadLetterRecorded.topic,
                messages=list(batch.dead_letters),
                ingest_time_ns=ingest_ns,
            )
        )
    return outgoing
