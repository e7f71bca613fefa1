"""The demonstration: a recorded session through the whole stack, in a state folder of its own."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from dataflows.lag import read_lags
from dataflows.prepare import start_stack
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.replay import ReplayProgress, replay
from dataflows.stack import DEFAULT_FLOWS
from dataflows.status import read_health
from infra.private_folder import make_private
from infra.settings import Settings, load_settings
from infra.stack.process import find_free_port
from infra.stack.supervise import Supervisor
from schemas.settings import KafkaSettings, ServeSettings, StoreSettings
from schemas.times import parse_time_ns

RECORDINGS = Path(__file__).parents[1] / "onnx_models" / "recordings"
HISTORY_FROM = "2024-05-02T00:00:00"
TRADE_FROM = "2024-06-01T00:00:00"
"""The shipped model was trained on data that ends here."""
TRADES_FROM = "2024-08-08T23:55:00"
"""From here on two symbols are recorded trade by trade; the bars before it are whole."""
POLL_SECONDS = 0.25
DEADLINE_SECONDS = 600.0
RESTARTS_MAX = 3
MARKER = "demo.marker"
"""Says that a folder may be emptied."""


class DemoProgress(Struct, kw_only=True):
    """What the progress bar shows."""

    event_time_ns: int = 0
    ticks: int = 0
    ticks_per_second: float = 0.0
    signals: int = 0
    fills: int = 0
    archived: int = 0


class Demo:
    """A stack of its own with one recorded session in it; a context manager that leaves nothing running."""

    def __init__(self, state_dir: Path) -> None:
        """Start from an empty state folder on free ports.

        Raises:
            RuntimeError: Another demo runs in this folder.
        """
        if Supervisor(state_dir).is_running():
            msg = f"demo in {str(state_dir)!r} already runs; stop it first"
            raise RuntimeError(msg)
        _empty(state_dir)
        make_private(state_dir)
        (state_dir / MARKER).touch()
        self.settings = _demo_settings(state_dir)
        self.session = RecordedSession(
            [
                _slice("bars_5m_binance_spot_train.parquet", HISTORY_FROM, TRADE_FROM),
                _slice("bars_5m_binance_spot_demo.parquet", TRADE_FROM, TRADES_FROM),
                _slice("trades_binance_spot_20240808.parquet", TRADES_FROM, None),
            ]
        )
        self._supervisor: Supervisor | None = None
        self._failure: BaseException | None = None
        self._published = ReplayProgress()

    def __enter__(self) -> Self:
        self._supervisor = start_stack(self.settings, DEFAULT_FLOWS, foreground=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()

    def play(self, on_progress: Callable[[DemoProgress], None]) -> dict[str, Any]:
        """Publish the session and wait until every record of it is traded on and archived.

        Raises:
            RuntimeError: The replay failed or a dataflow did not finish in time.
        """
        started = time.monotonic()
        publisher = threading.Thread(target=self._publish, name="replay", daemon=True)
        publisher.start()
        done_traded = None
        while True:
            progress = self._progress(time.monotonic() - started)
            on_progress(progress)
            if self._failure is not None:
                msg = f"replay failed; {self._failure}"
                raise RuntimeError(msg) from self._failure
            self._refuse_crashing()
            if not publisher.is_alive():
                lags = read_lags(self.settings)
                if done_traded is None and lags.get("trading") == 0:
                    done_traded = time.monotonic() - started
                if done_traded is not None and lags.get("archive") == 0:
                    break
            if time.monotonic() - started > DEADLINE_SECONDS:
                msg = f"dataflows must finish within {DEADLINE_SECONDS:g} s; see {self.settings.state_dir}"
                raise RuntimeError(msg)
            time.sleep(POLL_SECONDS)
        return {
            "ticks": self._published.ticks,
            "seconds_traded": round(done_traded, 2),
            "seconds_archived": round(time.monotonic() - started, 2),
        }

    def _refuse_crashing(self) -> None:
        """Raise RuntimeError with the end of its log if a process keeps dying: waiting would not help."""
        assert self._supervisor is not None
        for process in self._supervisor.statuses():
            if process.restarts >= RESTARTS_MAX:
                log = self._supervisor.log_folder / f"{process.name}.log"
                tail = " | ".join(log.read_text(errors="replace").splitlines()[-3:])
                msg = f"process {process.name!r} must stay up; it died {process.restarts} times; {tail}"
                raise RuntimeError(msg)

    def _publish(self) -> None:
        try:
            self._published = replay(self.settings, self.session, encoding="ndjson")
        except BaseException as error:  # noqa: BLE001  # shown by the thread that waits
            self._failure = error

    def _progress(self, seconds: float) -> DemoProgress:
        trading = read_health(self.settings, "trading")
        archive = read_health(self.settings, "archive")
        counts = trading.get("records", {})
        return DemoProgress(
            event_time_ns=trading.get("event_time_ns", 0),
            ticks=counts.get("ticks", 0),
            ticks_per_second=counts.get("ticks", 0) / max(seconds, 0.001),
            signals=counts.get("signals", 0),
            fills=counts.get("OrderFilled", 0),
            archived=archive.get("records", {}).get("rows", 0),
        )


def _empty(folder: Path) -> None:
    """Remove an earlier demo's folder; raises ValueError for a folder that is none."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARKER).exists():
        msg = f"demo folder must be new, empty or an earlier demo's; found {str(folder)!r}; name another"
        raise ValueError(msg)
    shutil.rmtree(folder)


def _slice(name: str, start: str | None, end: str | None) -> RecordedFile:
    return RecordedFile(
        path=RECORDINGS / name,
        start_ns=parse_time_ns(start) if start else None,
        end_ns=parse_time_ns(end) if end else None,
    )


def _demo_settings(state_dir: Path) -> Settings:
    """Return the user's settings with an environment, a folder and free ports of the demo's own."""
    base = load_settings().settings
    return base.model_copy(
        update={
            "environment": "demo",
            "state_dir": state_dir,
            "kafka": KafkaSettings(
                embedded_port=find_free_port(), partitions=base.kafka.partitions
            ),
            "store": StoreSettings(embedded_port=find_free_port()),
            "serve": ServeSettings(base_port=find_free_port()),
            "portfolio": base.portfolio.model_copy(update={"trade_from": TRADE_FROM}),
        }
    )
