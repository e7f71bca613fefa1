"""What runs, how far it came, and whether it still does useful work."""

import json
import urllib.error
import urllib.request
from typing import Any

from msgspec import Struct, to_builtins

from dataflows.lag import read_lags
from dataflows.stack import FLOWS, kafka_settings, port_of, store_settings
from infra.settings import Settings, settings_hash
from infra.stack.broker import wait_until_ready
from infra.stack.store import wait_until_store_ready
from infra.stack.supervise import NotRunningError, ProcessStatus, Supervisor
from schemas.times import format_time_ns

PROBE_SECONDS = 1.5


class ProcessRow(Struct, frozen=True, kw_only=True):
    """One process of the stack."""

    name: str
    state: str
    pid: int = 0
    restarts: int = 0
    lag_records: int | None = None
    event_time: str = ""
    last_useful_work: str = ""
    healthy: bool = True


class StackStatus(Struct, frozen=True, kw_only=True):
    """The stack at one moment."""

    environment: str
    config_hash: str
    broker: str
    store: str
    processes: list[ProcessRow]

    @property
    def ok(self) -> bool:
        """Whether broker and store answer and every process is running and healthy."""
        up = self.broker == self.store == "up"
        return (
            up
            and bool(self.processes)
            and all(row.state in {"running", "starting"} and row.healthy for row in self.processes)
        )

    def to_plain(self) -> dict[str, Any]:
        """Return builtins for JSON."""
        plain: dict[str, Any] = to_builtins(self)
        return plain | {"ok": self.ok}


def read_status(settings: Settings) -> StackStatus:
    """Return the status; a part that does not answer is `down`, never an exception."""
    try:
        processes = Supervisor(settings.state_dir).statuses()
    except NotRunningError:
        processes = []
    broker = _probe(lambda: wait_until_ready(kafka_settings(settings).bootstrap, PROBE_SECONDS))
    store = _probe(lambda: wait_until_store_ready(store_settings(settings).url, PROBE_SECONDS))
    lags = read_lags(settings) if broker == "up" else {}
    return StackStatus(
        environment=settings.environment,
        config_hash=settings_hash(settings),
        broker=broker,
        store=store,
        processes=[_row(settings, process, lags) for process in processes],
    )


def _probe(check: Any) -> str:
    try:
        check()
    except (TimeoutError, OSError):
        return "down"
    return "up"


def _row(settings: Settings, process: ProcessStatus, lags: dict[str, int]) -> ProcessRow:
    health = read_health(settings, process.name) if process.name in FLOWS else {}
    seconds = health.get("seconds_since_useful_work")
    event_time_ns = health.get("event_time_ns", -1)
    return ProcessRow(
        name=process.name,
        state=process.state,
        pid=process.pid,
        restarts=process.restarts,
        lag_records=lags.get(process.name),
        event_time=format_time_ns(event_time_ns) if event_time_ns > 0 else "",
        last_useful_work="" if seconds is None else f"{seconds:.0f} s ago",
        healthy=process.name not in FLOWS
        or process.state == "starting"
        or bool(health.get("ok", False)),
    )


def read_health(settings: Settings, flow: str) -> dict[str, Any]:
    """Return the health document of a flow, empty if it does not answer."""
    url = f"http://{settings.serve.host}:{port_of(settings, flow)}/health"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:
            document: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        document = json.load(error)
    except OSError:
        return {}
    return document
