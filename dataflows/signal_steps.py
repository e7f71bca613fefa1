"""The second half of a lane: closed bars in; features, votes and signals out, also read from the log."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import bytewax.operators as op
import polars as pl
from bytewax.operators import KeyedStream
from msgspec import Struct

from dataflows.context_steps import ContextObserver
from dataflows.lanes import STATE_VERSION, Lane, LaneCommands, LaneItem, check_version
from dataflows.log_sources import BarsRead, ControlsRead
from operators.bar_columns import BarColumns
from operators.features import FeatureMachine, vector_matrix
from operators.signals import SignalMachine, SignalState
from schemas.batches import AccountInput, Outgoing
from schemas.features import FeatureSchema
from schemas.frames import polars_schema
from schemas.ids import features_id
from schemas.market import FeaturesComputed
from schemas.models import ModelEventRecorded
from schemas.operations import ACCOUNT_COMMANDS, AlertRaised
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted

if TYPE_CHECKING:
    from operators.regime import RegimeState


class SignalsStep:
    """Closed bars of one partition and commands about models in, features and signals out."""

    def __init__(self, lane: Lane, state: object | None) -> None:
        self._lane = lane
        self._features = lane.build_features()
        self._opened: tuple[int, SignalMachine] | None = None
        self._first: list[Outgoing] = []
        if state is None:
            self._context = ContextObserver(lane, None)
        else:
            check_version("signals", cast("tuple[int, ...]", state)[0])
            _, partition, features, signals, regimes = cast(
                "tuple[int, int | None, FeatureMachine, SignalState | None, RegimeState]", state
            )
            self._context = ContextObserver(lane, regimes)
            self._features = check_columns(features, self._features)
            if partition is not None:
                self._open(partition, signals)

    def _open(self, partition: int, state: SignalState | None) -> None:
        opened = self._lane.build_signals(partition, state)
        self._opened = (partition, opened.machine)
        self._first = model_records(partition, opened.records)

    def _machine(self, partition: int) -> SignalMachine:
        # A partition without bars has no models to speak of: nothing is said to serve there.
        if self._opened is None:
            self._open(partition, None)
        assert self._opened is not None
        return self._opened[1]

    def snapshot(self) -> object:
        """Return the state of features, votes, learners and regimes."""
        regimes = self._context.state
        if self._opened is None:
            return STATE_VERSION, None, self._features, None, regimes
        partition, machine = self._opened
        return STATE_VERSION, partition, self._features, machine.state, regimes

    def on_batch(self, values: list[LaneItem | LaneCommands]) -> list[LaneItem]:
        """Return the same items, their bars replaced by features and signals, and what was obeyed."""
        found = []
        for value in values:
            if isinstance(value, LaneCommands):
                records = self.on_commands(value)
                if records:
                    found.append(_records_item(value.partition, records))
                continue
            found.append(value)
            assert value.bars is not None
            joined, signals, events = self.on_bars(value.partition, value.bars)
            value.input.signals = signals
            origin = value.input
            value.outgoing = [
                *self.take_first(),
                *signal_records(value.partition, signals, origin),
                *events,
                *feature_records(self._lane.published_schema, value.partition, joined, origin),
                *value.outgoing,
            ]
            value.bars = None
        return found

    def settle(self) -> list[LaneItem]:
        """Let the learners work through what they put off; nothing comes out."""
        if self._opened is not None:
            self._opened[1].settle()
        return []

    def on_commands(self, read: LaneCommands) -> list[Outgoing]:
        """Return what follows from commands about models, to be durable before later records."""
        machine = self._machine(read.partition)
        made = machine.on_commands(read.commands)
        return [*self.take_first(), *model_records(read.partition, made)]

    def take_first(self) -> list[Outgoing]:
        """Return what the start of the lane has to write, once."""
        first, self._first = self._first, []
        return first

    def on_bars(
        self, partition: int, bars: BarColumns
    ) -> tuple[BarColumns, list[SignalEmitted], list[Outgoing]]:
        """Return `bars` (sorted by close time) with their features, the signals and what else is said."""
        joined = self._features.extend(bars)
        machine = self._machine(partition)
        signals = machine.on_features(joined)
        self._lane.observe("signals", len(signals))
        records = model_records(partition, machine.take_events(), flush=False)
        opinions = machine.take_opinions()
        if opinions is not None:
            topic = OpinionPooled.topic
            records.append(Outgoing(topic=topic, rows=opinions, partition=partition))
        records += self._context.on_bars(partition, joined)
        return joined, signals, records


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
        """Return the state of features, votes and learners."""
        return self._step.snapshot()

    def settle(self) -> list[list[Outgoing]]:
        """Let the learners work through what they put off; nothing comes out."""
        self._step.settle()
        return []

    def on_batch(self, values: list[BarsRead | LaneCommands]) -> list[list[Outgoing]]:
        """Return the signals of each fetch and how far they are complete."""
        return [
            self._step.on_commands(value)
            if isinstance(value, LaneCommands)
            else self._on_fetch(value)
            for value in values
        ]

    def _on_fetch(self, read: BarsRead) -> list[Outgoing]:
        signals: list[SignalEmitted] = []
        events: list[Outgoing] = []
        wanted = None if read.bars is None else BarColumns.of(read.bars).select(self._wanted)
        if wanted is not None and wanted.height:
            _, signals, events = self._step.on_bars(read.partition, wanted)
        origin = AccountInput(
            partition=read.partition,
            signal_watermark_ns=read.complete_through_ns,
            ingest_time_ns=read.ingest_time_ns,
        )
        first = self._step.take_first()
        return [*first, *signal_records(read.partition, signals, origin), *events]


def join_features(machine: FeatureMachine, bars: pl.DataFrame) -> pl.DataFrame:
    """Return `bars` with one column per feature and indicator, and the missing mask."""
    computed = machine.update(bars)
    return pl.concat([bars, computed.drop(bars.columns, strict=False)], how="horizontal")


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


def to_lanes(
    step_id: str, controls: KeyedStream[ControlsRead], partitions: Sequence[int]
) -> KeyedStream[LaneCommands]:
    """Give every lane the commands about models; each answers in its own partition."""

    def spread(keyed: tuple[str, ControlsRead]) -> list[tuple[str, LaneCommands]]:
        commands = [
            each.command
            for each in keyed[1].controls
            if each.command.command not in ACCOUNT_COMMANDS
        ]
        return [
            (str(number), LaneCommands(partition=number, commands=commands))
            for number in partitions
            if commands
        ]

    return op.flat_map(step_id, controls, spread)


def _records_item(partition: int, records: list[Outgoing]) -> LaneItem:
    """Return an item that tells the account nothing and may overtake all others."""
    return LaneItem(
        partition=partition,
        sequence=0,
        input=AccountInput(partition=partition),
        bars=None,
        outgoing=records,
    )


def model_records(
    partition: int, records: Iterable[ModelEventRecorded | AlertRaised], *, flush: bool = True
) -> list[Outgoing]:
    """Return what happened to models as records; what serves must be durable before it is used."""
    found = list(records)
    events: list[Struct] = [one for one in found if isinstance(one, ModelEventRecorded)]
    alerts: list[Struct] = [one for one in found if isinstance(one, AlertRaised)]
    made = []
    if events:
        topic = ModelEventRecorded.topic
        made.append(Outgoing(topic=topic, messages=events, partition=partition, flush=flush))
    if alerts:
        made.append(Outgoing(topic=AlertRaised.topic, messages=alerts, flush=flush))
    return made


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
