"""`python -m tests.chaos.soak FOLDER HOURS`: the trading flow over long recorded hours, and its memory.

Prints one JSON document. Event time is accelerated: what is measured is what the flow keeps, not what
two days of wall time do to a machine. Bars and trades are recorded ones; that a hundred names have them
at the same time is the shape of a load, and the shipped hourly models answer under a five-minute card.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bytewax.operators as op
import polars as pl
import psutil
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from dataflows.backtest import SessionSource
from dataflows.demo import RECORDINGS
from dataflows.interpreter import tune_interpreter
from dataflows.parts import build_lane
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.trading import wire_trading
from infra.settings import Settings
from schemas.batches import Outgoing
from schemas.fields import Stance
from schemas.instruments import InstrumentBook
from schemas.settings import TIMEFRAME_NS
from tests.benchmarks.voters import voters_at

BARS = RECORDINGS / "bars_5m_binance_spot_train.parquet"
TRADES = RECORDINGS / "trades_binance_spot_20240808.parquet"
NAMES = 100
TRADES_EVERY_NS = 30 * TIMEFRAME_NS["1m"]
"""The recorded trades, six minutes of two names, are played again so often."""
CHUNK_ROWS = 8_192
HOUR_NS = TIMEFRAME_NS["1h"]
VENUE = "loadtest"


class SmallChunks(RecordedSession):
    """A session that comes in small pieces, as from a log, so that there are many samples."""

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """Yield the ticks of all files by event time."""
        return super().chunks(rows)


class Tally(StatelessSinkPartition[tuple[str, list[Outgoing]]]):
    """Counts records and forgets them: what a sink keeps is no matter of the flow."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def write_batch(self, items: list[tuple[str, list[Outgoing]]]) -> None:
        """Count by topic, and the signals that all four ONNX models answered."""
        for _, records in items:
            for outgoing in records:
                outgoing.frame()  # What was put off is made here, as in every sink.
                self._counts[outgoing.topic] += outgoing.height
                if outgoing.topic == "trade.signals":
                    self._counts["with four votes"] += sum(map(_has_four, outgoing.messages))


class TallySink(DynamicSink[tuple[str, list[Outgoing]]]):
    """The one sink of the run."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Tally:
        """Return the part of the only worker."""
        return Tally(self._counts)


def _has_four(signal: Any) -> bool:
    spoken = [one for one in signal.votes if one.kind == "onnx" and one.stance != Stance.ABSTAIN]
    return len(spoken) == 4


def cut_bars(hours: int) -> pl.DataFrame:
    """Return five-minute bars of other days under new names, all beginning at the same time."""
    bars, length_ns = pl.read_parquet(BARS), TIMEFRAME_NS["5m"]
    of_each = hours * HOUR_NS // length_ns
    start_ns = int(bars["ts_ns"].min())  # type: ignore[arg-type]
    parts = [
        part[first : first + of_each]
        for part in bars.sort("ts_ns").partition_by("symbol", maintain_order=True)
        for first in range(0, part.height - of_each + 1, of_each)
    ]
    times = pl.Series("ts_ns", range(of_each)) * length_ns + start_ns
    chosen = [
        part.with_columns(times, venue=pl.lit(VENUE), symbol=pl.lit(f"LOAD{number:03d}USDT"))
        for number, part in enumerate(parts[: NAMES - 2])
    ]
    return pl.concat(chosen).sort("ts_ns", "symbol")


def repeat_trades(start_ns: int, hours: int) -> pl.DataFrame:
    """Return the recorded trades of two names again and again until the last hour is over."""
    trades = pl.read_parquet(TRADES)
    first_ns = int(trades["ts_ns"].min())  # type: ignore[arg-type]
    moved = [
        trades.with_columns(
            pl.col("ts_ns") - first_ns + start_ns + repeat * TRADES_EVERY_NS,
            pl.col("trade_id") + repeat * 10**12,
            venue=pl.lit(VENUE),
        ).drop("recv_ns")
        for repeat in range(hours * HOUR_NS // TRADES_EVERY_NS)
    ]
    return pl.concat(moved)


def run(folder: Path, hours: int) -> dict[str, Any]:
    """Run the flow; return samples of (hours of event time, MiB) and what came out."""
    bars = cut_bars(hours)
    start_ns = int(bars["ts_ns"].min())  # type: ignore[arg-type]
    files = {"bars": bars, "trades": repeat_trades(start_ns, hours)}
    for name, frame in files.items():
        frame.write_parquet(folder / f"{name}.parquet")
    names = pl.concat([frame.select("venue", "symbol") for frame in files.values()]).n_unique()
    del bars, files
    session = SmallChunks([RecordedFile(path=folder / f"{name}.parquet") for name in FILES])
    settings = Settings(
        environment="soak",
        state_dir=folder / "state",
        **voters_at("5m", models="ensemble", folder=folder),
    )
    process, samples, counts = psutil.Process(), [], Counter[str]()
    ticks_read = 0

    def on_progress(ticks: int, event_time_ns: int) -> None:
        nonlocal ticks_read
        ticks_read = ticks
        hour = (event_time_ns - start_ns) / HOUR_NS
        samples.append((hour, process.memory_info().rss / 2**20))

    book = InstrumentBook(session.instruments())
    lane = build_lane(settings, book, lambda kind, count: None)
    partitions = settings.kafka.partitions
    source = SessionSource(
        session, book, settings.bars.lateness_ms * 1_000_000, partitions, on_progress
    )
    flow, started = Dataflow("soak"), time.perf_counter()
    records = wire_trading(flow, settings, lane, {"ticks": source}, list(range(partitions)))
    op.output("records", records, TallySink(counts))
    run_main(flow)
    return {
        "names": names,
        "ticks": ticks_read,
        "seconds": time.perf_counter() - started,
        "samples": samples,
        "records": dict(counts),
    }


FILES = ("bars", "trades")


if __name__ == "__main__":
    tune_interpreter()
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
