"""The archive: records of every topic into their tables, exactly once in effect.

Writing is idempotent: a row's sorting key is its natural key and its version is its log offset, so a
batch that is written again, in the same or in another cut, changes nothing under `FINAL`. A crash
between an insert and the commit of the position therefore costs work, never truth. An insert carries
as many rows as it is given, as one Arrow stream.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from infra.clickhouse.client import translated
from infra.clickhouse.rows import LogRecord, rows_of
from schemas.batches import TickBatch
from schemas.ddl import TICK_COLUMNS, TICK_KINDS, TICK_SIDES, TICK_TABLE, table_name
from schemas.instruments import InstrumentBook
from schemas.operations import DeadLetterRecorded
from schemas.ticks import KIND_QUOTE, KIND_TRADE, PROVENANCE_CODES
from schemas.topics import TOPICS

ROWS_PER_INSERT_MAX = 500_000
INSERT_SETTINGS = {
    # The answer to an insert means that its rows are there.
    "async_insert": 0,
    # A replay of years touches more months at once than the default allows.
    "max_partitions_per_insert_block": 0,
}


class RecordBatch(NamedTuple):
    """Records of one partition of one topic, in log order."""

    topic: str
    """Without the environment prefix."""
    partition: int
    records: Sequence[LogRecord]


class Written(NamedTuple):
    """What became of the records that were given: `rows + skipped + len(invalid)` is their number."""

    rows: int
    skipped: int
    invalid: list[DeadLetterRecorded]
    """One for each record without a place in its table; the caller publishes them."""
    inserts: int


class ArchiveWriter:
    """Writes to the database that `client` is bound to; the only writer of its tables.

    After a StoreUnavailableError the same call may be made again: what was already taken counts once.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def write(self, batches: Iterable[RecordBatch]) -> Written:
        """Insert the records of `batches`, one insert per topic; return what became of them.

        Raises KeyError for a topic without messages, StoreUnavailableError and StoreRefusedError.
        Nothing may be committed before this returns.
        """
        by_topic: dict[str, list[tuple[int, Sequence[LogRecord]]]] = defaultdict(list)
        for batch in batches:
            by_topic[batch.topic].append((batch.partition, batch.records))
        rows = skipped = inserts = 0
        invalid: list[DeadLetterRecorded] = []
        for topic, parts in sorted(by_topic.items()):
            message = TOPICS[topic].message
            if message is None:
                msg = (
                    f"topic {topic!r} must hold messages; found batches of ticks; call write_ticks"
                )
                raise KeyError(msg)
            decoded = rows_of(topic, message, parts)
            rows += decoded.frame.height
            skipped += decoded.skipped
            invalid += decoded.invalid
            inserts += self._insert(table_name(topic), decoded.frame)
        return Written(rows, skipped, invalid, inserts)

    def write_ticks(self, batches: Sequence[TickBatch], book: InstrumentBook) -> Written:
        """Insert the ticks of `batches` into `market_ticks` in one insert.

        Dead letters of the batches are not written here: they have a topic of their own.
        """
        frames = [tick_rows(batch, book) for batch in batches if batch.ticks.height]
        if not frames:
            return Written(0, 0, [], 0)
        frame = pl.concat(frames)
        return Written(frame.height, 0, [], self._insert(TICK_TABLE, frame))

    def _insert(self, table: str, frame: pl.DataFrame) -> int:
        inserts = 0
        for part in frame.iter_slices(ROWS_PER_INSERT_MAX) if frame.height else ():
            stream = io.BytesIO()
            part.write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
            self._send(table, part.columns, stream.getvalue())
            inserts += 1
        return inserts

    def _send(self, table: str, columns: list[str], stream: bytes) -> None:
        try:
            self._client.raw_insert(
                table,
                column_names=columns,
                insert_block=stream,
                settings=INSERT_SETTINGS,
                fmt="ArrowStream",
            )
        except (ClickHouseError, OSError) as error:
            raise translated(error, f"insert into {table!r}") from error


def tick_rows(batch: TickBatch, book: InstrumentBook) -> pl.DataFrame:
    """Return the ticks of `batch` with names and prices, in the columns of `market_ticks`.

    Heartbeats are rows too, without venue and symbol, so the table holds every line of the log.
    """
    instruments = book.frame
    number = pl.col("instrument")
    ticks = batch.ticks.with_columns(
        # -1, a heartbeat, becomes null and stays null through the look-ups.
        instrument=pl.when(number >= 0).then(number.cast(pl.UInt32))
    )
    names = {name: _categories(instruments[name]) for name in ("venue", "symbol")}
    at = ticks["instrument"]
    kinds = ticks["kind"].to_numpy()
    scales = {
        name: instruments[f"{name}_scale"].gather(at).to_numpy() for name in ("price", "size")
    }

    def decimal(units: str, scale: str, kind: int, name: str) -> pl.Series:
        # polars multiplies by a reciprocal where a divisor is constant: the last bit would be wrong.
        values = ticks[units].to_numpy() / scales[scale]
        return pl.Series(name, np.where(kinds == kind, values, np.nan)).fill_nan(None)

    return ticks.select(
        pl.lit(batch.partition, dtype=pl.Int32).alias("partition"),
        "offset",
        "line",
        _named("kind", TICK_KINDS, 0),
        *(values.gather(at).fill_null("").alias(name) for name, values in names.items()),
        pl.col("event_time_ns").cast(pl.Datetime("ns", "UTC")),
        decimal("price_units", "price", KIND_TRADE, "price"),
        decimal("size_units", "size", KIND_TRADE, "size"),
        _named("side", TICK_SIDES, 1),
        pl.when(pl.col("trade_id") >= 0).then("trade_id").alias("trade_id"),
        decimal("bid_units", "price", KIND_QUOTE, "bid"),
        decimal("ask_units", "price", KIND_QUOTE, "ask"),
        _named("provenance", PROVENANCE_CODES, 0),
        pl.lit(batch.ingest_time_ns).cast(pl.Datetime("ns", "UTC")).alias("_ingest_ns"),
    ).select(*TICK_COLUMNS)


def _categories(names: pl.Series) -> pl.Series:
    """Return `names` as an enumeration: ClickHouse takes its dictionary, not a text per row."""
    return names.cast(pl.Enum(["", *names.unique(maintain_order=True)]))


def _named(column: str, texts: tuple[str, ...], shift: int) -> pl.Expr:
    """Return the texts behind the codes of `column`; code `-shift` is the first text."""
    place = (pl.col(column) + shift).cast(pl.UInt32)
    return pl.lit(pl.Series(list(texts), dtype=pl.Enum(texts))).gather(place).alias(column)
