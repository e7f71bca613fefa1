"""A recorded session: files, each with a range of event time, read as one stream of ticks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from msgspec import Struct

from infra.partitions import partition_of
from infra.recordings import Recording, list_instruments, merge_recordings, open_recording
from infra.tick_encoder import final_heartbeat_ns
from infra.tick_rows import Placed, TickRules, describe
from infra.tick_streams import read_table
from operators.reconstruct import rebuild_trades
from schemas.batches import TickBatch
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.ticks import KIND_HEARTBEAT, TICK_FRAME, TICK_WIRE

CHUNK_ROWS = 65_536
PARTITION = 0
"""The one partition of a session that is read without a log."""


class RecordedFile(Struct, frozen=True, kw_only=True):
    """A recording and the part of it that belongs to the session."""

    path: Path
    start_ns: int | None = None
    end_ns: int | None = None
    time_column: str = "ts_ns"


class RecordedSession:
    """Files that are replayed together."""

    def __init__(self, files: Sequence[RecordedFile]) -> None:
        """Open every file.

        Raises:
            ValueError: A file has no known layout, or holds nothing that can be published.
            OSError: A file cannot be read.
        """
        self._files = list(files)
        self._recordings: list[Recording] = [
            open_recording(file.path, time_column=file.time_column, rebuild=rebuild_trades)  # type: ignore[arg-type]
            for file in self._files
        ]
        self.descriptions = [recording.describe() for recording in self._recordings]

    @property
    def start_ns(self) -> int:
        """Earliest event time of the session."""
        return min(
            max(description.start_ns, file.start_ns or 0)
            for description, file in zip(self.descriptions, self._files, strict=True)
        )

    @property
    def end_ns(self) -> int:
        """Latest event time of the session; of bars the close."""
        return max(
            min(description.end_ns, file.end_ns or description.end_ns)
            for description, file in zip(self.descriptions, self._files, strict=True)
        )

    def instruments(self) -> list[InstrumentListed]:
        """Return a listing for every instrument of the files."""
        return list_instruments(self._recordings)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """Yield the ticks (`infra.recordings.RECORDED_TICKS`) of all files by event time."""
        return merge_recordings(
            [
                recording.ticks(rows, file.start_ns, file.end_ns)
                for recording, file in zip(self._recordings, self._files, strict=True)
            ],
            rows,
        )

    def batches(self, book: InstrumentBook, lateness_ns: int) -> Iterator[TickBatch]:
        """Yield the ticks as if they had been fetched from the one partition of a log.

        Every tick passes the rules of the log; a closing heartbeat comes last.

        Raises:
            ValueError: The session holds a tick that the log would refuse.
        """
        rules, row = TickRules(PARTITION, 1, book), 0
        for chunk in self.chunks():
            ticks = _judge(rules, chunk, row)
            row += chunk.height
            yield _batch(ticks, row)
        yield _batch(_heartbeat(row, self.closing_time_ns(lateness_ns)), row + 1)

    def lanes(
        self, book: InstrumentBook, lateness_ns: int, partitions: int
    ) -> Iterator[list[TickBatch]]:
        """Yield the same ticks as if they had been fetched from the partitions of a log.

        Every step has one batch per partition, each ended by a heartbeat: models learn from the
        symbols of their own partition, so a run without a log must be cut as one with it.

        Raises:
            ValueError: The session holds a tick that the log would refuse.
        """
        homes = np.empty(0, dtype=np.int64)
        for batch in self.batches(book, lateness_ns):
            if len(homes) < len(book):
                names = book.frame.select("venue", "symbol").iter_rows()
                homes = np.array([partition_of(*name, partitions) for name in names])
            ticks, last_ns = batch.ticks, int(batch.ticks["event_time_ns"][-1])
            # A heartbeat of the session belongs to every partition, as one of its own.
            trades = ticks.filter(ticks["instrument"] >= 0)
            home = homes[trades["instrument"].to_numpy()]
            heartbeat = _heartbeat(batch.next_offset, last_ns)
            yield [
                _batch(
                    pl.concat([trades.filter(pl.Series(home == number)), heartbeat]),
                    batch.next_offset,
                    number,
                )
                for number in range(partitions)
            ]

    def closing_time_ns(self, lateness_ns: int) -> int:
        """Return the event time of the last heartbeat: it closes the last bars and claims no more."""
        return min(
            final_heartbeat_ns(self.descriptions, lateness_ns), self.end_ns + lateness_ns + 1
        )

    def skipped(self) -> dict[str, int]:
        """Return how many rows were read but not published, by reason."""
        counts: dict[str, int] = {}
        for recording in self._recordings:
            for reason, count in recording.skipped.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


def _judge(rules: TickRules, chunk: pl.DataFrame, row: int) -> pl.DataFrame:
    latest_ns = np.iinfo(np.int64).max
    placed = Placed(
        np.arange(row, row + chunk.height),
        np.zeros(chunk.height, dtype=np.int32),
        chunk["provenance"].to_numpy(),
        np.full(chunk.height, latest_ns),
    )
    table = chunk.select(TICK_WIRE.names()).to_arrow(compat_level=pl.CompatLevel.oldest())
    accepted, refused = rules.judge(read_table(table), placed)
    if refused:
        first = refused[0]
        tick = {k: v for k, v in chunk.row(first.row, named=True).items() if v is not None}
        detail = describe(first.reason, tick, latest_ns)
        msg = f"recording must hold valid ticks; row {row + first.row}: {first.reason}; {detail}"
        raise ValueError(msg)
    return accepted


def _batch(ticks: pl.DataFrame, next_offset: int, partition: int = PARTITION) -> TickBatch:
    return TickBatch(
        partition=partition, ticks=ticks, dead_letters=[], next_offset=next_offset, ingest_time_ns=0
    )


def _heartbeat(row: int, event_time_ns: int) -> pl.DataFrame:
    values: dict[str, Any] = dict.fromkeys(TICK_FRAME.names(), 0)
    values |= {
        "offset": row, "kind": KIND_HEARTBEAT, "event_time_ns": event_time_ns,
        "instrument": -1, "trade_id": -1, "provenance": 1,
    }  # fmt: skip
    return pl.DataFrame([values], schema=TICK_FRAME)
