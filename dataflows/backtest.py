"""The `trading` flow over a recorded session with file sinks: the same operators, no Kafka."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import polars as pl
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import run_main

from dataflows.parts import build_lane
from dataflows.recorded_session import RecordedSession
from dataflows.trading import wire_trading
from infra.folder_sink import FolderSink
from infra.settings import Settings, settings_hash, settings_json
from infra.tick_rows import PARSED_ROWS, TickRules
from schemas.batches import TickBatch
from schemas.instruments import InstrumentBook
from schemas.ticks import KIND_HEARTBEAT, TICK_FRAME

PARTITION = 0

Progress = Callable[[int, int], None]
"""Called with the ticks read and the event time reached."""


class SessionSource(FixedPartitionedSource[tuple[str, TickBatch], int]):
    """A recorded session as the one partition of a log; ends with the closing heartbeat."""

    def __init__(
        self,
        session: RecordedSession,
        book: InstrumentBook,
        lateness_ns: int,
        on_progress: Progress | None,
    ) -> None:
        self._session, self._book = session, book
        self._lateness_ns, self._on_progress = lateness_ns, on_progress

    def list_parts(self) -> list[str]:
        """Return the one part."""
        return [str(PARTITION)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_SessionPart":  # noqa: ARG002
        """Start from the beginning: a backtest is not resumed, it is run again."""
        closing_ns = self._session.closing_time_ns(self._lateness_ns)
        rules = TickRules(PARTITION, 1, self._book)
        return _SessionPart(self._session.chunks(), rules, closing_ns, self._on_progress)


class _SessionPart(StatefulSourcePartition[tuple[str, TickBatch], int]):
    def __init__(
        self,
        chunks: Iterator[pl.DataFrame],
        rules: TickRules,
        closing_ns: int,
        on_progress: Progress | None,
    ) -> None:
        self._chunks: Iterator[pl.DataFrame] | None = chunks
        self._rules, self._closing_ns, self._on_progress = rules, closing_ns, on_progress
        self._row = 0

    def next_batch(self) -> list[tuple[str, TickBatch]]:
        """Return the next chunk as if it had been fetched from the log."""
        if self._chunks is None:
            raise StopIteration
        chunk = next(self._chunks, None)
        if chunk is None:
            self._chunks = None
            return [(str(PARTITION), _closing_batch(self._closing_ns, self._row))]
        ticks = self._judge(chunk)
        self._row += chunk.height
        if self._on_progress is not None:
            self._on_progress(self._row, int(chunk["event_time_ns"][-1]))
        return [(str(PARTITION), _batch(ticks, self._row))]

    def _judge(self, chunk: pl.DataFrame) -> pl.DataFrame:
        numbered = chunk.with_columns(
            offset=pl.Series(np.arange(self._row, self._row + chunk.height)),
            line=pl.lit(0, dtype=pl.Int32()),
            latest_ns=pl.lit(np.iinfo(np.int64).max),
        ).select(PARSED_ROWS.names())
        accepted, refused = self._rules.judge(numbered)
        if refused:
            first = refused[0]
            msg = f"recording must hold valid ticks; row {first.offset}: {first.reason}; {first.detail}"
            raise ValueError(msg)
        return accepted

    def snapshot(self) -> int:
        """Return the number of ticks read."""
        return self._row


def _batch(ticks: pl.DataFrame, next_offset: int) -> TickBatch:
    return TickBatch(
        partition=PARTITION, ticks=ticks, dead_letters=[], next_offset=next_offset, ingest_time_ns=0
    )


def _closing_batch(event_time_ns: int, row: int) -> TickBatch:
    heartbeat: dict[str, Any] = dict.fromkeys(TICK_FRAME.names(), 0)
    heartbeat |= {
        "offset": row, "kind": KIND_HEARTBEAT, "event_time_ns": event_time_ns,
        "instrument": -1, "trade_id": -1, "provenance": 1,
    }  # fmt: skip
    return _batch(pl.DataFrame([heartbeat], schema=TICK_FRAME), row + 1)


def run_backtest(
    settings: Settings,
    session: RecordedSession,
    out: Path,
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Run the flow over `session` and write one Parquet file per topic into `out`.

    Returns:
        How many records of each kind came out.

    Raises:
        ValueError: The session holds a tick that the log would refuse.
    """
    out.mkdir(parents=True, exist_ok=True)
    listings = session.instruments()
    book = InstrumentBook(listings)
    counts: dict[str, int] = {}

    def observe(kind: str, count: int) -> None:
        counts[kind] = count if kind == "event_time_ns" else counts.get(kind, 0) + count

    lane = build_lane(settings, book, observe)
    lateness_ns = settings.bars.lateness_ms * 1_000_000
    flow = Dataflow("backtest")
    source = SessionSource(session, book, lateness_ns, on_progress)
    records = wire_trading(flow, settings, lane, source, None, [PARTITION])
    op.output("records", records, FolderSink(out))
    run_main(flow)
    (out / "settings.json").write_text(
        json.dumps(
            {"hash": settings_hash(settings), "settings": json.loads(settings_json(settings))}
        )
    )
    return counts
