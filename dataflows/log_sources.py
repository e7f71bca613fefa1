"""Sources over the log: ticks, commands, and the derived topics that the split flows read."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import polars as pl
from bytewax.inputs import FixedPartitionedSource
from msgspec import Struct

from dataflows.known_commands import KnownCommands, control_keys
from dataflows.stack import kafka_settings
from infra.clickhouse.writer import RecordBatch
from infra.control import CommandRefusedError, verify_command
from infra.kafka.reading import read_to_end
from infra.kafka.skew import SkewGate
from infra.kafka.source import KafkaSource, Reading
from infra.kafka.stop_flag import StopFlag
from infra.records import FetchedRecord
from infra.serve import Workload
from infra.settings import Settings
from infra.tick_decoder import TickDecoder
from schemas.batches import ControlReceived, ProgressMarked, TickBatch
from schemas.codec import decode, find_header
from schemas.frames import polars_schema
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, InstrumentListed
from schemas.operations import (
    ControlCommanded,
    DeadLetterRecorded,
    build_dead_letter,
)
from schemas.signals import SignalEmitted
from schemas.ticks import DeadLetterReason
from schemas.topics import full_name

logger = logging.getLogger(__name__)


class ListingReader:
    """Keeps an `InstrumentBook` up to date with `market.instruments`.

    An instrument is published before its first tick, so reading on at the first unknown symbol finds it.
    """

    def __init__(self, settings: Settings, book: InstrumentBook) -> None:
        self._kafka = kafka_settings(settings)
        self._topic = full_name(settings.environment, InstrumentListed.topic)
        self._book = book
        self._next_offset: int | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read what is new; return whether anything was."""
        records, self._next_offset = read_to_end(self._kafka, self._topic, offset=self._next_offset)
        for record in records:
            if record.value is None:
                continue
            try:
                self._book.add(decode(InstrumentListed, record.value))
            except msgspec.DecodeError as error:
                # Its ticks go to the dead letters as UNKNOWN_INSTRUMENT; the others trade on.
                logger.warning("listing at offset %s is no listing; %s", record.offset, error)
        return bool(records)


class Watch(Struct, kw_only=True):
    """What every source of one process shares."""

    stop: StopFlag
    workload: Workload
    until: dict[str, dict[int, int]] | None = None
    """End offsets by topic (without prefix): a bounded run."""

    def until_of(self, topic: str) -> dict[int, int] | None:
        """Return the end offsets of `topic`, None for an endless run."""
        return None if self.until is None else self.until.get(topic, {})

    def lag_of(self, topic: str) -> Callable[[int, int], None]:
        """Return where a source of `topic` reports how many records of a partition wait."""
        return lambda partition, waiting: self.workload.lag(topic, partition, waiting)


def tick_source(
    settings: Settings,
    partitions: Sequence[int],
    group: str,
    book: InstrumentBook,
    watch: Watch,
    *,
    align: bool = True,
) -> FixedPartitionedSource[tuple[str, TickBatch], tuple[int, int]]:
    """Return the source of `market.ticks`, decoded and validated; `align` keeps partitions together."""
    listings = ListingReader(settings, book)
    count = settings.kafka.partitions
    decoders = {number: TickDecoder(number, count, book, listings.refresh) for number in partitions}

    def decode_fetch(partition: int, records: Sequence[FetchedRecord]) -> TickBatch:
        return decoders[partition].decode(records, time.time_ns())

    return _source(
        settings,
        "market.ticks",
        partitions,
        group,
        Reading(
            on_lag=watch.lag_of("market.ticks"),
            decode=decode_fetch,
            event_time_of=_newest_event_time,
            gate=SkewGate(settings.run.skew_ms_max * 1_000_000) if align else None,
            stop=watch.stop,
            until=watch.until_of("market.ticks"),
            records_max=settings.kafka.fetch_records_max,
        ),
    )


def _newest_event_time(batch: TickBatch) -> int | None:
    newest = batch.ticks["event_time_ns"].max()
    return newest if isinstance(newest, int) else None


def record_source(
    settings: Settings, topic: str, partitions: Sequence[int], group: str, watch: Watch
) -> FixedPartitionedSource[tuple[str, RecordBatch], tuple[int, int]]:
    """Return the source of a derived topic's records as they are, for the archive."""

    def decode_fetch(partition: int, records: Sequence[FetchedRecord]) -> RecordBatch:
        return RecordBatch(topic, partition, records)

    reading = Reading(
        decode=decode_fetch,
        stop=watch.stop,
        until=watch.until_of(topic),
        on_lag=watch.lag_of(topic),
    )
    return _source(settings, topic, partitions, group, reading)


class BarsRead(Struct, kw_only=True):
    """Bars of one fetch of one partition of `market.bars`, and how far they are complete."""

    partition: int
    bars: pl.DataFrame | None
    complete_through_ns: int | None
    ingest_time_ns: int


def bar_source(
    settings: Settings, partitions: Sequence[int], group: str, watch: Watch
) -> FixedPartitionedSource[tuple[str, BarsRead], tuple[int, int]]:
    """Return the source of `market.bars` for the split `signals` flow."""
    schema = polars_schema(BarClosed)

    def decode_fetch(partition: int, records: Sequence[FetchedRecord]) -> BarsRead:
        progress, values = _split_progress(records)
        bars = pl.read_ndjson(b"\n".join(values), schema=schema) if values else None
        return BarsRead(
            partition=partition,
            bars=bars,
            complete_through_ns=progress,
            ingest_time_ns=time.time_ns(),
        )

    reading = Reading(
        decode=decode_fetch,
        stop=watch.stop,
        until=watch.until_of(BarClosed.topic),
        on_lag=watch.lag_of(BarClosed.topic),
    )
    return _source(settings, BarClosed.topic, partitions, group, reading)


class SignalsRead(Struct, kw_only=True):
    """Signals of one fetch of one partition of `trade.signals`, and how far they are complete."""

    partition: int
    signals: list[SignalEmitted]
    complete_through_ns: int | None
    ingest_time_ns: int


def signal_source(
    settings: Settings, partitions: Sequence[int], group: str, watch: Watch
) -> FixedPartitionedSource[tuple[str, SignalsRead], tuple[int, int]]:
    """Return the source of `trade.signals` for the split `portfolio` flow."""

    def decode_fetch(partition: int, records: Sequence[FetchedRecord]) -> SignalsRead:
        progress, values = _split_progress(records)
        return SignalsRead(
            partition=partition,
            signals=[decode(SignalEmitted, value) for value in values],
            complete_through_ns=progress,
            ingest_time_ns=time.time_ns(),
        )

    reading = Reading(
        decode=decode_fetch,
        stop=watch.stop,
        until=watch.until_of(SignalEmitted.topic),
        on_lag=watch.lag_of(SignalEmitted.topic),
    )
    return _source(settings, SignalEmitted.topic, partitions, group, reading)


class ControlsRead(Struct, kw_only=True):
    """Verified commands of one fetch, and those that were refused."""

    controls: list[ControlReceived]
    dead_letters: list[DeadLetterRecorded]


def _refused_command(record: FetchedRecord, error: Exception) -> DeadLetterRecorded:
    unsigned = isinstance(error, CommandRefusedError)
    return build_dead_letter(
        ControlCommanded.topic,
        0,
        record.offset,
        -1,
        DeadLetterReason.BAD_SIGNATURE if unsigned else DeadLetterReason.UNDECODABLE,
        str(error),
        record.value or b"",
    )


def control_source(
    settings: Settings, group: str, watch: Watch, known: KnownCommands
) -> FixedPartitionedSource[tuple[str, ControlsRead], tuple[int, int]]:
    """Return the source of verified commands; those of `known` are only said again."""
    keys, effective_ns = control_keys(settings), known.effective_ns

    def decode_fetch(_partition: int, records: Sequence[FetchedRecord]) -> ControlsRead:
        read = ControlsRead(controls=[], dead_letters=[])
        for record in records:
            try:
                command = decode(ControlCommanded, record.value or b"")
                verify_command(command, settings.environment, keys)
            except (CommandRefusedError, msgspec.DecodeError) as error:
                read.dead_letters.append(_refused_command(record, error))
                continue
            if command.account == settings.account:
                read.controls.append(
                    ControlReceived(
                        command=command,
                        effective_ns=effective_ns.get(command.id),
                        not_before_ns=known.not_before_ns,
                    )
                )
        return read

    reading = Reading(
        decode=decode_fetch,
        stop=watch.stop,
        until=watch.until_of(ControlCommanded.topic),
        on_lag=watch.lag_of(ControlCommanded.topic),
    )
    return _source(settings, ControlCommanded.topic, [0], group, reading)


def _split_progress(records: Sequence[FetchedRecord]) -> tuple[int | None, list[bytes]]:
    progress: int | None = None
    values = []
    for record in records:
        schema = find_header(record.headers, "schema") or ""
        if schema.startswith(ProgressMarked.__name__):
            progress = decode(ProgressMarked, record.value or b"").complete_through_ns
        elif record.value is not None:
            values.append(record.value)
    return progress, values


def _source(
    settings: Settings,
    topic: str,
    partitions: Sequence[int],
    group: str,
    reading: Reading[Any],
) -> KafkaSource[Any]:
    return KafkaSource(
        kafka_settings(settings),
        full_name(settings.environment, topic),
        partitions,
        f"{settings.environment}.{group}",
        reading,
    )
