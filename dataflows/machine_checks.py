"""What the machine says about its own ports and clock, held against what the stack needs and sees."""

import socket
import time
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

from dataflows.stack import kafka_settings, store_settings
from infra.clickhouse.client import connect
from infra.kafka.topics import newest_record_ms
from infra.settings import Settings
from infra.stack.process import LOOPBACK, accepts_connections

CLOCK_OFFSET_MAX_SECONDS = 2.0


class PortHolder(Struct, frozen=True, kw_only=True):
    """Who listens on a port."""

    pid: int
    """0 when the machine does not say: a process of another user."""
    command: str


def find_holder(port: int) -> PortHolder | None:
    """Return who listens on the loopback port, None if nobody does."""
    with socket.socket() as probe:
        probe.settimeout(0.3)
        if probe.connect_ex((LOOPBACK, port)) != 0:
            return None
    for found in psutil.net_connections(kind="tcp"):
        listens = found.status == psutil.CONN_LISTEN and found.laddr.port == port
        if listens and found.pid:
            return PortHolder(pid=found.pid, command=_command_of(found.pid))
    return PortHolder(pid=0, command="a process of another user")


def _command_of(pid: int) -> str:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return "a process that just ended"
    return " ".join(words)[:60]


def descends_from(pid: int, ancestors: set[int]) -> bool:
    """Return whether `pid` is one of `ancestors` or was started under one."""
    try:
        line = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.Error:
        return False
    return not ancestors.isdisjoint(line)


def clock_offsets(settings: Settings) -> dict[str, float]:
    """Return by how many seconds other clocks are ahead of ours, for each that can be asked.

    `store` is the clock of the ClickHouse server, to within the time of one query. `log` is the time
    of the newest record: it can show that our clock is behind, never that it is ahead.
    """
    offsets = {}
    store = urlsplit(settings.store.url or f"http://{LOOPBACK}:{settings.store.embedded_port}")
    if accepts_connections(store.hostname or LOOPBACK, store.port or 8123):
        client = connect(store_settings(settings))
        asked_ns = time.time_ns()
        told_ns = int(client.query("SELECT toUnixTimestamp64Nano(now64(9))").result_rows[0][0])
        offsets["store"] = (told_ns - (asked_ns + time.time_ns()) / 2) / 1e9
        client.close()
    kafka = kafka_settings(settings)
    host, _, port = kafka.bootstrap.split(",")[0].rpartition(":")
    if accepts_connections(host, int(port)):
        newest_ms = newest_record_ms(kafka, settings.environment)
        if newest_ms is not None:
            offsets["log"] = newest_ms / 1e3 - time.time()
    return offsets
