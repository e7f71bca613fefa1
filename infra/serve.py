"""Metrics and health of one process over HTTP, on loopback.

Health is recent useful work: a process that has work waiting and did none of it for a while is not ok,
however alive it looks. One whose broker is silent does not know whether work waits: it is not ok either.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app

_GAUGES = frozenset({"event_time_ns"})


class Workload:
    """What one process did: counters for Prometheus and the time of the last useful work."""

    def __init__(self, flow: str, environment: str, stale_after_seconds: int) -> None:
        self.flow = flow
        self.registry = CollectorRegistry()
        labels = {"flow": flow, "environment": environment}
        self._counter = Counter(
            "quantstream_records_total",
            "Records by kind: ticks, bars, signals, DecisionMade …",
            ["flow", "environment", "kind"],
            registry=self.registry,
        )
        self._event_time = Gauge(
            "quantstream_event_time_seconds",
            "Event time reached (watermark)",
            ["flow", "environment"],
            registry=self.registry,
        ).labels(**labels)
        self._lag = Gauge(
            "quantstream_lag_records",
            "Records of a topic that were not read yet",
            ["flow", "environment", "topic", "partition"],
            registry=self.registry,
        )
        self._last_work = Gauge(
            "quantstream_last_useful_work_timestamp_seconds",
            "Wall clock of the last useful work",
            ["flow", "environment"],
            registry=self.registry,
        ).labels(**labels)
        self._broker = Gauge(
            "quantstream_broker_answered_timestamp_seconds",
            "Wall clock of the broker's last answer to a probe",
            ["flow", "environment"],
            registry=self.registry,
        ).labels(**labels)
        self._labels = labels
        self._stale_after_seconds = stale_after_seconds
        self._counts: dict[str, int] = {}
        self._event_time_ns = -1
        self._lags: dict[tuple[str, int], int] = {}
        self._worked_at = time.monotonic()
        self._needs_broker = False
        self._answered_at: float | None = None

    def expect_broker(self) -> None:
        """Count a silent broker as not ok from now on; it has not answered yet."""
        self._needs_broker = True

    def broker_answered(self) -> None:
        """Note that the broker answered just now."""
        self._answered_at = time.monotonic()
        self._broker.set(time.time())

    def observe(self, kind: str, count: int) -> None:
        """Count `count` records of `kind`, or set the event time for `event_time_ns`."""
        if kind in _GAUGES:
            if count > self._event_time_ns:
                self._event_time_ns = count
                self._event_time.set(count / 1e9)
            return
        if count:
            self._counts[kind] = self._counts.get(kind, 0) + count
            self._counter.labels(kind=kind, **self._labels).inc(count)
            self._worked_at = time.monotonic()
            self._last_work.set(time.time())

    def lag(self, topic: str, partition: int, records: int) -> None:
        """Set how many records of a partition wait to be read."""
        self._lags[(topic, partition)] = records
        self._lag.labels(topic=topic, partition=str(partition), **self._labels).set(records)

    def health(self) -> dict[str, object]:
        """Return the health document.

        `ok` is false when work waits and none was done lately, or when the broker is silent.
        """
        now, answered_at = time.monotonic(), self._answered_at
        idle_seconds = now - self._worked_at
        silent_seconds = None if answered_at is None else now - answered_at
        reachable = silent_seconds is not None and silent_seconds < self._stale_after_seconds
        # A copy: the flow's thread adds partitions while this one reads.
        waiting = sum(dict(self._lags).values())
        return {
            "flow": self.flow,
            "ok": (reachable or not self._needs_broker)
            and (waiting == 0 or idle_seconds < self._stale_after_seconds),
            "lag_records": waiting,
            "seconds_since_useful_work": round(idle_seconds, 3),
            "seconds_since_broker_answered": silent_seconds and round(silent_seconds, 3),
            "event_time_ns": self._event_time_ns,
            "records": dict(self._counts),
        }


class _Server(ThreadingMixIn, WSGIServer):
    """A connection that says nothing must not keep the others waiting."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """Serves without a line per request on standard error."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def start_server(workload: Workload, host: str, port: int) -> Callable[[], None]:
    """Serve `/metrics` and `/health` on a daemon thread; return the function that stops it.

    Raises:
        OSError: The port is taken.
    """
    metrics = make_wsgi_app(workload.registry)

    def application(environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, respond)  # type: ignore[no-any-return]
        if environ["PATH_INFO"] == "/health":
            document = workload.health()
            status = "200 OK" if document["ok"] else "503 Service Unavailable"
            respond(status, [("Content-Type", "application/json")])
            return [json.dumps(document).encode()]
        respond("404 Not Found", [("Content-Type", "text/plain")])
        return [b"try /metrics or /health\n"]

    server: WSGIServer = make_server(
        host, port, application, server_class=_Server, handler_class=_Handler
    )
    threading.Thread(target=server.serve_forever, name="serve", daemon=True).start()
    return server.shutdown
