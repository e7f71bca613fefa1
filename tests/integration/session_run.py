"""A recorded session through flows that run as real processes: start, publish, wait, read."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct

from dataflows.demo import RECORDINGS
from dataflows.lag import read_lags
from dataflows.prepare import prepare_environment
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.stack import child_environment
from infra.settings import Settings, write_settings
from infra.stack.process import find_free_port
from schemas.settings import KafkaSettings, PortfolioSettings, ServeSettings, StoreSettings
from schemas.times import parse_time_ns

WAIT_SECONDS = 300.0
POLL_SECONDS = 0.1
TRADES_FROM = "2024-08-08T23:55:00"
TRADE_FROM = "2024-07-30T00:00:00"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


class Excerpt(Struct, frozen=True, kw_only=True):
    """Which part of the shipped recordings a session holds."""

    start: str = "2024-07-18T00:00:00"
    end: str = TRADES_FROM
    symbols: tuple[str, ...] = SYMBOLS
    trades: bool = True

    def cut(self, folder: Path) -> list[Path]:
        """Write the excerpt's files into `folder` and return them."""
        folder.mkdir(parents=True, exist_ok=True)
        first, last = parse_time_ns(self.start), parse_time_ns(self.end)
        bars = pl.read_parquet(RECORDINGS / "bars_5m_binance_spot_demo.parquet").filter(
            pl.col("symbol").is_in(self.symbols),
            pl.col("ts_ns").is_between(first, last, closed="left"),
        )
        paths = [folder / "bars.parquet"]
        bars.write_parquet(paths[0])
        if self.trades:
            trades = pl.read_parquet(RECORDINGS / "trades_binance_spot_20240808.parquet")
            paths.append(folder / "trades.parquet")
            trades.filter(pl.col("ts_ns") >= last).write_parquet(paths[1])
        return paths


def open_session(paths: list[Path]) -> RecordedSession:
    """Return the session of files that were cut before."""
    return RecordedSession([RecordedFile(path=path) for path in paths])


def session_settings(
    state_dir: Path, environment: str, bootstrap: str, store: Any, **sections: Any
) -> Settings:
    """Return settings of an environment on a broker and a store that run already."""
    serve = ServeSettings(base_port=find_free_port())
    return Settings(
        environment=environment,
        state_dir=state_dir,
        kafka=KafkaSettings(bootstrap=bootstrap),
        store=StoreSettings(url=store.url, user=store.user, password=store.password),
        serve=serve,
        portfolio=PortfolioSettings(trade_from=TRADE_FROM),
    ).model_copy(update=sections)


def prepare(settings: Settings) -> Settings:
    """Create the topics and tables of an environment."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    prepare_environment(settings)
    return settings


class RunningFlow:
    """A flow in a process of its own; its log is a file."""

    def __init__(self, settings: Settings, name: str, workers: int = 1) -> None:
        arguments = ["-m", "dataflows.cli.main", "run", name, "--workers", str(workers)]
        self.settings, self.name = settings, name
        self.log = settings.state_dir / f"{name}.log"
        write_settings(settings, settings.state_dir / "effective.toml")
        self.process = start_process(arguments, settings, self.log)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def start_process(arguments: list[str], settings: Settings, log: Path) -> "subprocess.Popen[bytes]":
    """Start Python with `arguments` on exactly `settings`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=child_environment(settings) | {"PYTHONHASHSEED": str(os.getpid() % 1000)},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )


@contextmanager
def running(settings: Settings, flows: dict[str, int]) -> Iterator[dict[str, RunningFlow]]:
    """Run `flows` (workers by name) and end them, whatever happens."""
    started = {name: RunningFlow(settings, name, workers) for name, workers in flows.items()}
    try:
        yield started
    finally:
        for flow in started.values():
            if flow.process.poll() is None:
                flow.process.send_signal(signal.SIGTERM)
        for flow in started.values():
            try:
                flow.process.wait(60)
            except subprocess.TimeoutExpired:
                flow.kill()


def wait_until(
    done: Callable[[], bool],
    what: str,
    flows: dict[str, RunningFlow] | None = None,
    seconds: float = WAIT_SECONDS,
) -> None:
    """Wait for `done`; fail at once with its log if one of `flows` ends."""
    deadline = time.monotonic() + seconds
    while not done():
        for flow in (flows or {}).values():
            code = flow.process.poll()
            assert code is None, f"{flow.name} ended with {code}\n{flow.log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"{what} took more than {seconds:g} s"
        time.sleep(POLL_SECONDS)


def finished(settings: Settings, names: tuple[str, ...]) -> Callable[[], bool]:
    """Return whether each of `names` has committed every record that it reads."""

    def done() -> bool:
        lags = read_lags(settings)
        return all(lags.get(name) == 0 for name in names)

    return done
