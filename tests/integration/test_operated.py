"""A flow as its operator meets it: refused twice over, halted, killed while halted, resumed."""

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import Struct

from dataflows.control import send_command, wait_until_applied
from dataflows.replay import replay
from dataflows.stack import kafka_settings, port_of
from infra.kafka.reading import read_to_end
from infra.settings import Settings
from schemas.codec import decode, find_header
from schemas.fields import Action
from schemas.operations import Command
from schemas.signals import SignalEmitted
from schemas.times import parse_time_ns
from schemas.topics import full_name
from schemas.trading import DenialReason, Verdict
from tests.integration.end_state import messages, read_records
from tests.integration.session_run import (
    WAIT_SECONDS,
    Excerpt,
    RunningFlow,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    start_process,
    wait_until,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

PACE = 20_000.0
"""Event seconds per second of the paced slice."""
SLICES = {
    "history": ("2024-07-10T00:00:00", "2024-08-01T00:00:00"),
    "halted": ("2024-08-01T00:05:00", "2024-08-04T00:00:00"),
    "halted after a kill": ("2024-08-04T00:05:00", "2024-08-06T00:00:00"),
    "resumed": ("2024-08-06T00:05:00", "2024-08-08T23:00:00"),
}


class Operated(Struct, kw_only=True):
    """What happened, by slice of the session and by command."""

    settings: Settings
    second_run_exit_code: int
    second_run_text: str
    applied: dict[str, int]
    """Event time in ns from which each command counted."""
    seconds: dict[str, float]
    """From the append of each command to the append of what says that it counts."""
    signal_seconds: list[float]
    """From reading a tick to sending the signal that it led to, in the paced slice."""


@pytest.fixture(scope="module")
def operated(broker: str, store: Any, tmp_path_factory: pytest.TempPathFactory) -> Operated:
    folder = tmp_path_factory.mktemp("operated")
    settings = prepare(session_settings(folder, "operated", broker, store))
    publish(settings, folder, "history")
    applied, seconds = {}, {}
    with running(settings, {"trading": 1}) as flows:
        wait_until(finished(settings, ("trading",)), "history", flows)
        code, text = run_second(settings)
        applied["halt"], seconds["halt"] = command(settings, Command.HALT)
        publish(settings, folder, "halted")
        wait_until(finished(settings, ("trading",)), "the halted slice", flows)
        flows["trading"].kill()
        flows["trading"] = RunningFlow(settings, "trading")
        publish(settings, folder, "halted after a kill")
        wait_until(finished(settings, ("trading",)), "the slice after the kill", flows)
        applied["resume"], seconds["resume"] = command(settings, Command.RESUME)
        publish(settings, folder, "resumed", PACE)
        wait_until(finished(settings, ("trading",)), "the resumed slice", flows)
    paced_from_ns = parse_time_ns(SLICES["resumed"][0])
    return Operated(
        settings=settings,
        second_run_exit_code=code,
        second_run_text=text,
        applied=applied,
        seconds=seconds,
        signal_seconds=[
            (stamp(record, "emit-ns") - stamp(record, "ingest-ns")) / 1e9
            for _, record in read_records(settings, "trade.signals")
            if decode(SignalEmitted, record.value or b"").event_time_ns >= paced_from_ns
        ],
    )


def publish(settings: Settings, folder: Path, name: str, speed: float | None = None) -> None:
    start, end = SLICES[name]
    files = Excerpt(start=start, end=end, trades=False).cut(folder / name)
    replay(settings, open_session(files), speed=speed)


def stamp(record: Any, name: str) -> int:
    return int(find_header(record.headers, name) or 0)


def run_second(settings: Settings) -> tuple[int, str]:
    log = settings.state_dir / "second.log"
    process = start_process(["-m", "dataflows.cli.main", "run", "trading"], settings, log)
    return process.wait(WAIT_SECONDS), log.read_text()


def command(settings: Settings, kind: Command) -> tuple[int, float]:
    sent = send_command(settings, kind, "test")
    applied = wait_until_applied(settings, sent.id, WAIT_SECONDS)
    assert applied is not None
    appended_ms = []
    for topic in ("ops.control", "ops.applied"):
        name = full_name(settings.environment, topic)
        records, _ = read_to_end(kafka_settings(settings), name)
        appended_ms.append(records[-1].timestamp_ms)
    return applied.event_time_ns, (appended_ms[1] - appended_ms[0]) / 1000


def entries(operated: Operated, start: str, end: str) -> list[Any]:
    first, last = parse_time_ns(SLICES[start][0]), parse_time_ns(SLICES[end][1])
    return [
        decision
        for decision in messages(operated.settings, "trade.decisions")
        if first <= decision.event_time_ns <= last and decision.action is Action.ENTER
    ]


def test_a_second_run_for_the_same_account_is_refused_with_exit_code_3(operated):
    assert operated.second_run_exit_code == 3
    assert "must have one holder" in operated.second_run_text


@pytest.mark.acceptance("I7", criterion="halt and resume count within 1 s of their append")
def test_a_command_counts_within_a_second_of_its_append(operated, measured):
    measured(f"halt {operated.seconds['halt']:.3f} s, resume {operated.seconds['resume']:.3f} s")
    assert max(operated.seconds.values()) < 1.0


@pytest.mark.parametrize("part", ["halted", "halted after a kill"])
def test_no_entry_is_approved_while_halted_even_after_a_kill(operated, part):
    found = entries(operated, part, part)
    assert found
    assert {decision.denial for decision in found} == {DenialReason.HALTED}


def test_entries_are_approved_again_after_resume(operated):
    found = entries(operated, "resumed", "resumed")
    assert any(decision.verdict is not Verdict.DENIED for decision in found)
    assert all(decision.denial != DenialReason.HALTED for decision in found)


@pytest.mark.acceptance("S-197", criterion="tick to signal p95 below 1 s")
def test_a_signal_follows_its_tick_within_a_second_at_the_95th_percentile(operated, measured):
    p50, p95 = np.percentile(operated.signal_seconds, [50, 95])
    count = len(operated.signal_seconds)
    measured(f"p50 {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms over {count} signals")
    assert count >= 20
    assert p95 < 1.0


@pytest.mark.acceptance("S-079", criterion="every flow starts with the real configuration")
def test_every_flow_starts_with_the_real_configuration_and_answers_health(
    broker, store: Any, tmp_path, measured
):
    split = prepare(session_settings(tmp_path / "split", "wiring-split", broker, store))
    fused = prepare(session_settings(tmp_path / "fused", "wiring-fused", broker, store))
    with (
        running(split, {"features": 1, "signals": 1, "portfolio": 1, "archive": 1}) as parts,
        running(fused, {"trading": 1}) as whole,
    ):
        for settings, flows in ((split, parts), (fused, whole)):
            for name, flow in flows.items():
                wait_until(lambda f=flow: "running" in f.log.read_text(), name, flows)
                url = f"http://127.0.0.1:{port_of(settings, name)}/health"
                with urllib.request.urlopen(url, timeout=30) as answer:
                    assert json.load(answer)["flow"] == name
        time.sleep(1)
        codes = {name: flow.stop() for name, flow in (parts | whole).items()}
    assert codes == dict.fromkeys(codes, 0)
    measured(f"{len(codes)} flows: {', '.join(codes)}")


def test_the_flow_also_runs_under_the_engines_own_command(broker, store: Any, tmp_path):
    settings = prepare(session_settings(tmp_path / "own", "own-command", broker, store))
    publish(settings, tmp_path, "halted")
    log = tmp_path / "own.log"
    process = start_process(["-m", "bytewax.run", "dataflows.trading:flow"], settings, log)
    try:
        wait_until(lambda: len(read_records(settings, "market.bars")) > 2_000, log.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
