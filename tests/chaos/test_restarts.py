"""Single faults, each on a log that fills meanwhile; each ends like the calm run over the same log."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from msgspec import Struct

from dataflows.log_flow import recovery_folder
from dataflows.prepare import start_stack
from dataflows.replay import replay
from dataflows.stack import kafka_settings
from dataflows.status import read_health
from infra.kafka.security import kafka_python_options
from infra.kafka.topics import topic_ends
from infra.settings import Settings
from schemas.topics import full_name
from tests.chaos.figures import Figures
from tests.chaos.twins import (
    GIVEN,
    Drip,
    Located,
    differing_topics,
    last_ledger,
    read_log,
    state_bytes,
    write_log,
)
from tests.integration.session_run import (
    Excerpt,
    RunningFlow,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    wait_until,
)

pytestmark = [pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(900)]

DRIP_SECONDS = 45.0
RECOVERY_CRASHES = 5
ALL = list(range(4))


class Log(Struct, kw_only=True):
    """A published session and what a run without faults makes of it."""

    calm: Settings
    records: list[Located]


@pytest.fixture(scope="module")
def log(broker: str, store: Any, tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("calm")
    settings = prepare(session_settings(folder, "calm", broker, store))
    # One record a bar or so: kills then find work at every moment of the drip.
    replay(settings, open_session(Excerpt().cut(folder)), batch=60)
    with running(settings, {"trading": 1}) as flows:
        wait_until(finished(settings, ("trading",)), "the calm run", flows)
    return Log(calm=settings, records=read_log(settings, GIVEN))


@pytest.fixture
def harmed(broker: str, store: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:30].rstrip("-")
    return prepare(session_settings(tmp_path, name, broker, store))


class Flow:
    """The `trading` process of one environment, restarted by the test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running = RunningFlow(settings, "trading")

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def works(self) -> bool:
        return bool(read_health(self.settings, "trading").get("records"))

    def await_work(self) -> None:
        wait_until(self.works, "first work", {"trading": self.running})

    def again(self) -> None:
        self.running = RunningFlow(self.settings, "trading")

    def finish(self) -> None:
        wait_until(finished(self.settings, ("trading",)), "the rest", {"trading": self.running})


@contextmanager
def trading(settings: Settings) -> Iterator[Flow]:
    flow = Flow(settings)
    try:
        yield flow
    finally:
        if flow.running.process.poll() is None:
            os.kill(flow.pid, signal.SIGCONT)
            flow.running.stop()


def check(harmed: Settings, log: Log) -> None:
    assert differing_topics(harmed, log.calm) == []
    assert last_ledger(harmed) == last_ledger(log.calm)


def test_crashes_during_recovery_converge(harmed, log, chance, figures: Figures):
    drip = Drip(harmed, log.records, DRIP_SECONDS)
    sizes, fired = [], {"start": 0, "first work": 0}
    with trading(harmed) as flow:
        flow.await_work()
        flow.running.kill()
        for after in ["start"] * RECOVERY_CRASHES + ["first work"] * RECOVERY_CRASHES:
            seen = flow.running.log.read_text().count("running trading")
            flow.again()
            wait_until(
                lambda n=seen: flow.running.log.read_text().count("running trading") > n, "start"
            )
            if after == "first work":
                wait_until(lambda: flow.works() or not drip.is_alive(), after)
            time.sleep(chance.uniform(0.0, 0.2))
            assert flow.running.process.poll() is None
            flow.running.kill()
            fired[after] += 1
            sizes.append(state_bytes(recovery_folder(harmed, "trading", ALL)))
        flow.again()
        drip.join()
        flow.finish()
    check(harmed, log)
    figures.add(
        "SIGKILL within 200 ms of the start of recovery, and of the first work after it",
        " and ".join(f"{count} in a row after the {what}" for what, count in fired.items()),
        "converges, end state equal",
        f"recovery folder {sizes[0]:,} to {sizes[-1]:,} bytes",
    )
    assert sizes[-1] <= 4 * sizes[0] + 1_000_000


def test_a_graceful_end_and_a_new_start_lose_nothing(harmed, log, chance, figures: Figures):
    seconds = []
    part = len(log.records) // 3 + 1
    with trading(harmed) as flow:
        for first in range(0, len(log.records), part):
            drip = Drip(harmed, log.records[first : first + part], DRIP_SECONDS / 3)
            flow.await_work()
            time.sleep(chance.uniform(0.0, 2.0))
            started = time.monotonic()
            assert flow.running.stop() == 0
            seconds.append(time.monotonic() - started)
            flow.again()
            drip.join()
        flow.finish()
    check(harmed, log)
    figures.add(
        "SIGTERM while records arrive",
        str(len(seconds)),
        "exit code 0, end state equal",
        f"ends in at most {max(seconds):.1f} s",
    )


def test_a_pause_of_the_process_changes_nothing(harmed, log, chance, figures: Figures):
    drip = Drip(harmed, log.records, DRIP_SECONDS)
    pauses = []
    with trading(harmed) as flow:
        flow.await_work()
        for _ in range(4):
            os.kill(flow.pid, signal.SIGSTOP)
            pauses.append(chance.uniform(0.5, 5.0))
            time.sleep(pauses[-1])
            os.kill(flow.pid, signal.SIGCONT)
            time.sleep(chance.uniform(0.2, 1.0))
        drip.join()
        flow.finish()
    check(harmed, log)
    figures.add(
        "SIGSTOP, later SIGCONT",
        f"{len(pauses)}",
        "end state equal",
        f"pauses of {min(pauses):.1f} to {max(pauses):.1f} s",
    )


def test_a_lost_recovery_folder_is_rebuilt_from_the_log(harmed, log, figures: Figures):
    half = len(log.records) // 2
    write_log(harmed, log.records[:half])
    with trading(harmed) as flow:
        flow.finish()
        flow.running.kill()
        before = written(harmed)
        shutil.rmtree(recovery_folder(harmed, "trading", ALL))
        flow.again()
        write_log(harmed, log.records[half:])
        flow.finish()
    check(harmed, log)
    figures.add(
        "recovery folder removed",
        "1",
        "rebuilt from the log, end state equal",
        f"{before:,} records were there already and were not written again",
    )


def written(settings: Settings) -> int:
    topics = ["market.bars", "trade.signals", "trade.decisions", "trade.fills", "trade.positions"]
    ends = topic_ends(kafka_settings(settings), settings.environment, topics)
    return sum(end for partitions in ends.values() for end in partitions.values())


def test_a_resume_position_that_is_gone_stops_the_flow_with_the_reason(
    harmed, log, figures: Figures
):
    part = len(log.records) // 4
    write_log(harmed, log.records[:part])
    with trading(harmed) as flow:
        flow.finish()
        flow.running.kill()
    write_log(harmed, log.records[part : 2 * part])
    ends = topic_ends(kafka_settings(harmed), harmed.environment, ["market.ticks"])["market.ticks"]
    delete_before(harmed, ends)
    before = written(harmed)
    supervisor = start_stack(harmed, ("trading",), foreground=True)
    text = ""
    try:
        path = supervisor.log_folder / "trading.log"
        wait_until(lambda: "OffsetGoneError: partition" in _text(path), "the refusal", seconds=120)
        wait_until(lambda: supervisor.statuses()[0].state != "running", "its end", seconds=60)
        text = _text(path)
        state = supervisor.statuses()[0]
    finally:
        supervisor.stop()
    assert "must still hold the position" in text
    assert written(harmed) == before
    figures.add(
        "records deleted before they were read",
        "1",
        "refused: `OffsetGoneError`, nothing written",
        f"supervisor shows {state.state}",
    )


def delete_before(settings: Settings, ends: dict[int, int]) -> None:
    admin = KafkaAdminClient(**kafka_python_options(kafka_settings(settings)))
    topic = full_name(settings.environment, "market.ticks")
    try:
        admin.delete_records({TopicPartition(topic, part): end for part, end in ends.items()})
    finally:
        admin.close()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
