"""A lane: what one partition of `market.ticks` goes through, from ticks to signals.

A lane is cut in two steps so that a snapshot stays small: `BarsStep` is touched by every fetch and
remembers little; `SignalsStep` remembers feature and learner state and is touched only when a bar
closed. Items without a bar overtake it, so every item carries the lane's sequence number and
`dataflows.accounts` restores the order.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import polars as pl
from msgspec import Struct

from dataflows.log_sources import BarsRead, SignalsRead
from operators.bar_columns import BarColumns
from operators.bars import BarMachine, BarState
from operators.features import FeatureMachine, vector_matrix
from operators.screen import ScreenState, TickScreen
from operators.signals import SignalMachine, SignalState
from schemas.batches import AccountInput, Outgoing, TickBatch
from schemas.features import FeatureSchema
from schemas.frames import polars_schema
from schemas.ids import features_id
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, FeaturesComputed, TickLate
from schemas.operations import DeadLetterRecorded
from schemas.signals import SignalEmitted

STATE_VERSION = 2


class LaneItem(Struct, kw_only=True):
    """What a lane hands on: the account's input and the records to write."""

    partition: int
    sequence: int
    input: AccountInput
    bars: BarColumns | None
    """Bars that closed and that some voter wants; None once their signals are in `input`."""
    outgoing: list[Outgoing]


class Lane(Struct, kw_only=True):
    """How to build the machines of a lane."""

    book: InstrumentBook
    build_screen: Callable[[int, ScreenState | None], TickScreen]
    build_bars: Callable[[int, BarState | None], BarMachine]
    build_features: Callable[[], FeatureMachine]
    build_signals: Callable[[], SignalMachine]
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


class SignalsStep:
    """Closed bars of one partition in, features and signals out."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._lane = lane
        self._features = lane.build_features()
        self._signals = lane.build_signals()
        if state is not None:
            version, features, signals = cast("tuple[int, FeatureMachine, SignalState]", state)
            check_version("signals", version)
            self._features = check_columns(features, self._features)
            self._signals.state = signals

    def snapshot(self) -> object:
        """Return the state of features and of the voters that learn."""
        return STATE_VERSION, self._features, self._signals.state

    def on_batch(self, values: list[LaneItem]) -> list[LaneItem]:
        """Return the same items, their bars replaced by features and signals."""
        for item in values:
            assert item.bars is not None
            joined, signals = self.on_bars(item.bars)
            item.input.signals = signals
            origin = item.input
            item.outgoing = [
                *signal_records(item.partition, signals, origin),
                *feature_records(self._lane.published_schema, item.partition, joined, origin),
                *item.outgoing,
            ]
            item.bars = None
        return values

    def settle(self) -> list[LaneItem]:
        """Let the learners work through what they put off; nothing comes out."""
        self._signals.settle()
        return []

    def on_bars(self, bars: BarColumns) -> tuple[BarColumns, list[SignalEmitted]]:
        """Return `bars` (sorted by close time) with their features beside them, and the signals."""
        joined = self._features.extend(bars)
        signals = self._signals.on_features(joined)
        self._lane.observe("signals", len(signals))
        return joined, signals


class FeaturesStep:
    """Closed bars of one partition in, features out: the half of `SignalsStep` without opinions."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._lane = lane
        self._features = lane.build_features()
        if state is not None:
            version, features = cast("tuple[int, FeatureMachine]", state)
            check_version("features", version)
            self._features = check_columns(features, self._features)

    def snapshot(self) -> object:
        """Return the state of the features."""
        return STATE_VERSION, self._features

    def on_batch(self, values: list[LaneItem]) -> list[LaneItem]:
        """Return the same items with their features among the records."""
        for item in values:
            assert item.bars is not None
            joined = self._features.extend(item.bars)
            schema = self._lane.published_schema
            item.outgoing += feature_records(schema, item.partition, joined, item.input)
            item.bars = None
        return values


class BarsReadStep:
    """Bars read from the log in, signals out: `SignalsStep` of the split flow."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._wanted = set(lane.feature_timeframes)
        self._step = SignalsStep(lane, state)

    def snapshot(self) -> object:
        """Return the state of features and of the voters that learn."""
        return self._step.snapshot()

    def settle(self) -> list[list[Outgoing]]:
        """Let the learners work through what they put off; nothing comes out."""
        self._step.settle()
        return []

    def on_batch(self, values: list[BarsRead]) -> list[list[Outgoing]]:
        """Return the signals of each fetch and how far they are complete."""
        return [self._on_fetch(read) for read in values]

    def _on_fetch(self, read: BarsRead) -> list[Outgoing]:
        signals: list[SignalEmitted] = []
        if read.bars is not None:
            wanted = BarColumns.of(read.bars).select(self._wanted)
            if wanted.height:
                _, signals = self._step.on_bars(wanted)
        origin = AccountInput(
            partition=read.partition,
            signal_watermark_ns=read.complete_through_ns,
            ingest_time_ns=read.ingest_time_ns,
        )
        return signal_records(read.partition, signals, origin)


def join_features(machine: FeatureMachine, bars: pl.DataFrame) -> pl.DataFrame:
    """Return `bars` with one column per feature and indicator, and the missing mask."""
    computed = machine.update(bars)
    return pl.concat([bars, computed.drop(bars.columns, strict=False)], how="horizontal")


def check_version(step: str, version: int) -> None:
    """Raise ValueError if a snapshot was written by another version of this step."""
    if version != STATE_VERSION:
        msg = (
            f"recovery state of step {step!r} must have version {STATE_VERSION}; found {version}; "
            f"remove the recovery folder to rebuild it from the log"
        )
        raise ValueError(msg)


def check_columns(resumed: FeatureMachine, wanted: FeatureMachine) -> FeatureMachine:
    """Return `resumed`; raise ValueError if the settings ask for other features than it carries."""
    if (resumed.schema, resumed.columns) != (wanted.schema, wanted.columns):
        missing = sorted(set(wanted.columns) ^ set(resumed.columns))
        msg = (
            f"recovery state must carry the features that the settings ask for; found a difference "
            f"in {missing or resumed.schema.name!r}; remove the recovery folder to rebuild it from the log"
        )
        raise ValueError(msg)
    return resumed


def vector_columns(schema: FeatureSchema, joined: pl.DataFrame) -> list[pl.Expr]:
    """Return one expression per feature of `schema`: null where missing or without a source yet."""
    return [
        pl.col(name).fill_nan(None)
        if name in joined.columns
        else pl.lit(None, pl.Float64()).alias(name)
        for name in schema.names
    ]


class FeatureRows(Struct, frozen=True, kw_only=True):
    """The `FeaturesComputed` records of bars with their features; a frame once they are written."""

    schema: FeatureSchema
    bars: BarColumns

    @property
    def height(self) -> int:
        """How many there are: one per bar."""
        return self.bars.height

    def build(self) -> pl.DataFrame:
        """Return one row per bar."""
        bars, schema = self.bars, self.schema
        count, times = bars.height, bars.integers("close_time_ns")
        # One flat series with nulls, cut into lists: many times faster than an expression per feature.
        values = pl.Series("vector", vector_matrix(bars, schema).reshape(-1)).fill_nan(None)
        built: dict[str, Any] = {
            "id": [
                features_id(*series, time_ns)
                for series, time_ns in zip(bars.keys(), times.tolist(), strict=True)
            ],
            "cause": bars.texts("id"),
            "schema_name": [schema.name] * count,
            "schema_hash": [schema.schema_hash] * count,
            "vector": values.reshape((count, len(schema))).cast(pl.List(pl.Float64())),
        }
        return pl.DataFrame(
            [
                pl.Series(name, built[name] if name in built else bars.column(name), dtype)
                for name, dtype in polars_schema(FeaturesComputed).items()
            ]
        )


def feature_records(
    schema: FeatureSchema, partition: int, joined: BarColumns, origin: AccountInput
) -> list[Outgoing]:
    """Return the `FeaturesComputed` records of bars with their features beside them."""
    return [
        Outgoing(
            topic=FeaturesComputed.topic,
            rows=FeatureRows(schema=schema, bars=joined),
            partition=partition,
            ingest_time_ns=origin.ingest_time_ns,
        )
    ]


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


def signal_records(
    partition: int, signals: Iterable[SignalEmitted], origin: AccountInput
) -> list[Outgoing]:
    """Return the records of a signals step, and behind them how far they are complete."""
    return [
        Outgoing(
            topic=SignalEmitted.topic,
            messages=list(signals),
            partition=partition,
            progress_ns=origin.signal_watermark_ns,
            ingest_time_ns=origin.ingest_time_ns,
        )
    ]
