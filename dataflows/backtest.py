"""The `trading` flow over a recorded session with file sinks: the same operators, no Kafka."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import run_main

from dataflows.engine import told_plainly
from dataflows.parts import build_lane
from dataflows.recorded_session import RecordedSession
from dataflows.trading import wire_trading
from infra.folder_sink import FolderSink, write_topic
from infra.settings import Settings, settings_hash, settings_json
from schemas.batches import TickBatch
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.operations import SettingsPublished

Progress = Callable[[int, int], None]
"""Called with the ticks read and the event time reached."""


class SessionSource(FixedPartitionedSource[tuple[str, TickBatch], int]):
    """A recorded session as the partitions of a log; ends with the closing heartbeat."""

    def __init__(
        self,
        session: RecordedSession,
        book: InstrumentBook,
        lateness_ns: int,
        partitions: int,
        on_progress: Progress | None,
    ) -> None:
        self._session, self._book, self._partitions = session, book, partitions
        self._lateness_ns, self._on_progress = lateness_ns, on_progress

    def list_parts(self) -> list[str]:
        """Return the one part."""
        return ["session"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_SessionPart":  # noqa: ARG002
        """Start from the beginning: a backtest is not resumed, it is run again."""
        steps = self._session.lanes(self._book, self._lateness_ns, self._partitions)
        return _SessionPart(steps, self._on_progress)


class _SessionPart(StatefulSourcePartition[tuple[str, TickBatch], int]):
    def __init__(self, steps: Iterator[list[TickBatch]], on_progress: Progress | None) -> None:
        self._steps, self._on_progress = steps, on_progress
        self._ticks = 0

    def next_batch(self) -> list[tuple[str, TickBatch]]:
        """Return the next chunk as if it had been fetched from the log."""
        batches = next(self._steps, None)
        if batches is None:
            raise StopIteration
        self._ticks = batches[0].next_offset
        if self._on_progress is not None:
            self._on_progress(self._ticks, int(batches[0].ticks["event_time_ns"][-1]))
        return [(str(batch.partition), batch) for batch in batches]

    def snapshot(self) -> int:
        """Return the number of ticks read."""
        return self._ticks


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
        FlowFailedError: A step failed, as when the session holds a tick that the log would refuse.
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
    partitions = settings.kafka.partitions
    source = SessionSource(session, book, lateness_ns, partitions, on_progress)
    records = wire_trading(flow, settings, lane, {"ticks": source}, list(range(partitions)))
    op.output("records", records, FolderSink(out))
    with told_plainly("backtest"):
        run_main(flow)
    published = SettingsPublished(id=settings_hash(settings), settings_json=settings_json(settings))
    write_topic(out, InstrumentListed, listings)
    write_topic(out, SettingsPublished, [published])
    (out / "settings.json").write_text(
        json.dumps(
            {"hash": settings_hash(settings), "settings": json.loads(settings_json(settings))}
        )
    )
    return counts
