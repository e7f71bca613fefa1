"""A session of months under random kills ends exactly as the session without any."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from dataflows.cli.verify import audit
from dataflows.control import send_command
from dataflows.demo import RECORDINGS, TRADE_FROM
from dataflows.lag import read_lags
from dataflows.prepare import start_stack
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.replay import ReplayProgress, replay
from dataflows.stack import kafka_settings, store_settings
from infra.settings import Settings
from infra.stack.process import find_free_port
from infra.stack.supervise import Supervisor
from schemas.operations import Command, SettingsPublished
from schemas.settings import KafkaSettings, PortfolioSettings, ServeSettings, StoreSettings
from schemas.times import parse_time_ns
from tests.chaos.figures import Figures
from tests.chaos.killer import Killer, Kills
from tests.chaos.twins import (
    COMMANDS,
    GIVEN,
    copy_keys,
    differing_tables,
    differing_topics,
    last_ledger,
    read_changes,
    read_log,
    sign_again,
    write_log,
)
from tests.integration.end_state import DERIVED, topic_state
from tests.integration.session_run import finished, prepare, running, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(3000)]

KILLS = {"trading": 12, "archive": 10}
BROKER_KILL_AT, STORE_KILL_AT = 0.35, 0.65
HALT_AT, RESUME_AT = 0.45, 0.55
"""Shares of the kills after which the other things happen."""
FROM = "2024-05-20T00:00:00"
PACE = 60_000.0
"""Event seconds per second; the replay also waits for the kills, so that they spread over it."""
QUIET_SECONDS = 900.0


class Ordeal(Struct, kw_only=True):
    """A harmed environment at rest, its calm twin, and what was done."""

    harmed: Settings
    calm: Settings
    kills: Kills
    published: ReplayProgress
    restarts: dict[str, int]
    seconds: float
    recovery_seconds: float
    """From the last kill, or the end of the replay, to the last commit."""


@pytest.fixture(scope="module")
def session() -> RecordedSession:
    """Months of bars of six symbols, the last minutes of two of them trade by trade."""
    cut = parse_time_ns("2024-08-08T23:55:00")
    return RecordedSession(
        [
            RecordedFile(
                path=RECORDINGS / "bars_5m_binance_spot_train.parquet",
                start_ns=parse_time_ns(FROM),
                end_ns=parse_time_ns(TRADE_FROM),
            ),
            RecordedFile(
                path=RECORDINGS / "bars_5m_binance_spot_demo.parquet",
                start_ns=parse_time_ns(TRADE_FROM),
                end_ns=cut,
            ),
            RecordedFile(path=RECORDINGS / "trades_binance_spot_20240808.parquet", start_ns=cut),
        ]
    )


@pytest.fixture(scope="module")
def ordeal(
    session: RecordedSession, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ordeal]:
    """Play the session under kills, then its log again in an environment that nobody harms."""
    print(f"\nchaos seed {seed}")
    settings = _settings(tmp_path_factory.mktemp("harmed"))
    supervisor = start_stack(settings, ("trading", "archive"), foreground=True)
    try:
        yield _play(settings, supervisor, session, seed, tmp_path_factory.mktemp("calm"))
    finally:
        supervisor.stop()


def _settings(state_dir: Path) -> Settings:
    return Settings(
        environment="harmed",
        state_dir=state_dir,
        kafka=KafkaSettings(embedded_port=find_free_port()),
        store=StoreSettings(embedded_port=find_free_port()),
        serve=ServeSettings(base_port=find_free_port()),
        portfolio=PortfolioSettings(trade_from=TRADE_FROM),
    )


def _play(
    settings: Settings,
    supervisor: Supervisor,
    session: RecordedSession,
    seed: int,
    calm_dir: Path,
) -> Ordeal:
    started = time.monotonic()
    driver = _Driver(settings, supervisor, seed)
    published = replay(settings, session, speed=PACE, on_progress=driver.hold(session))
    driver.join()
    last_fault = time.monotonic()
    done = finished(settings, ("trading", "archive"))
    wait_until(lambda: _quietly(done), "quiescence", seconds=QUIET_SECONDS)
    recovered = time.monotonic() - last_fault
    restarts = {row.name: row.restarts for row in supervisor.statuses()}
    seconds = time.monotonic() - started
    calm = settings.model_copy(
        update={
            "environment": "calm",
            "state_dir": calm_dir,
            "kafka": kafka_settings(settings),
            "store": store_settings(settings),
            "serve": ServeSettings(base_port=find_free_port()),
        }
    )
    prepare(calm)
    copy_keys(settings, calm)
    instruments, ticks = GIVEN
    given = [
        # What was answered names the settings under which it was.
        *read_log(settings, (instruments, SettingsPublished.topic, *COMMANDS)),
        *read_changes(settings),
        *read_log(settings, (ticks,)),
    ]
    write_log(calm, sign_again(calm, given))
    with running(calm, {"trading": 1, "archive": 1}) as flows:
        wait_until(finished(calm, ("trading", "archive")), "the calm run", flows, QUIET_SECONDS)
    return Ordeal(
        harmed=settings,
        calm=calm,
        kills=driver.killer.kills,
        published=published,
        restarts=restarts,
        seconds=seconds,
        recovery_seconds=recovered,
    )


def _quietly(done: Callable[[], bool]) -> bool:
    """Ask; a broker that is just coming back counts as not done."""
    try:
        return done()
    except RuntimeError:
        return False


class _Driver:
    """Kills both flows from two threads, and broker and store once each on the way."""

    def __init__(self, settings: Settings, supervisor: Supervisor, seed: int) -> None:
        self._settings = settings
        self.killer = Killer(settings, supervisor, seed)
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(name, count), name=f"kill-{name}")
            for name, count in KILLS.items()
        ]
        self._once = threading.Lock()
        self._left = {
            BROKER_KILL_AT: lambda: self.killer.kill_now("broker"),
            HALT_AT: lambda: send_command(settings, Command.HALT, "chaos"),
            RESUME_AT: lambda: send_command(settings, Command.RESUME, "chaos"),
            STORE_KILL_AT: lambda: self.killer.kill_now("store"),
        }

    def hold(self, session: RecordedSession) -> Callable[[ReplayProgress], None]:
        """Start killing; return what keeps the replay from running ahead of the kills."""
        start_ns, end_ns = session.start_ns, session.end_ns
        for thread in self._threads:
            thread.start()

        def wait(progress: ReplayProgress) -> None:
            reached = (progress.event_time_ns - start_ns) / (end_ns - start_ns)
            while reached > self._share() + 0.08 and not self._failures:
                time.sleep(0.05)

        return wait

    def join(self) -> None:
        """Wait for the last kill; raise what went wrong."""
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            raise failure

    def _share(self) -> float:
        fired = self.killer.kills.by_process
        return min(1.0, sum(fired[name] for name in KILLS) / sum(KILLS.values()))

    def _guarded(self, name: str, count: int) -> None:
        try:
            for _ in range(count):
                self.killer.kill_soon(name)
                self._do_what_is_due()
        except BaseException as error:  # noqa: BLE001  # raised by join
            self._failures.append(error)

    def _do_what_is_due(self) -> None:
        with self._once:
            for share in [share for share in self._left if share <= self._share()]:
                self._left.pop(share)()


def test_every_fault_fired(ordeal, figures: Figures):
    kills = ordeal.kills
    flows = sum(kills.by_process[name] for name in KILLS)
    figures.add(
        "SIGKILL at random during the replay of months",
        ", ".join(f"{name} {count}" for name, count in sorted(kills.by_process.items())),
        "end state equal to the run without kills",
        f"{ordeal.published.ticks:,} ticks in {ordeal.seconds:.0f} s; {sum(kills.at_work.values())} "
        f"kills hit a flow at work; quiet {ordeal.recovery_seconds:.1f} s after the last kill",
    )
    assert flows >= 20
    assert kills.by_process["broker"] == kills.by_process["store"] == 1
    assert sum(kills.at_work.values()) >= flows / 2
    for name, count in kills.by_process.items():
        assert ordeal.restarts[name] >= count


@pytest.mark.acceptance("I13", criterion="end state under 20 and more kills equals the calm run")
def test_every_topic_holds_the_same_records_once(ordeal, measured, figures: Figures):
    assert differing_topics(ordeal.harmed, ordeal.calm) == []
    counts = {topic: topic_state(ordeal.harmed, topic).records for topic in DERIVED}
    assert counts["trade.fills"] > 100
    text = ", ".join(f"{topic} {count:,}" for topic, count in counts.items())
    measured(f"{text}; 0 lost, 0 doubled, 0 different")
    figures.add("topics after the kills", "", "0 lost, 0 doubled, 0 different", text)


@pytest.mark.acceptance("I18", criterion="tables under FINAL equal those of the calm run")
def test_every_table_holds_the_same_rows(ordeal, measured):
    assert differing_tables(ordeal.harmed, ordeal.calm) == []
    measured(f"{len(DERIVED) + 1} tables equal by rows, keys and hash")


@pytest.mark.acceptance("I2", criterion="ledger after the kills equals that of the calm run")
def test_the_ledger_ends_the_same(ordeal, measured, figures: Figures):
    harmed, calm = last_ledger(ordeal.harmed), last_ledger(ordeal.calm)
    assert harmed == calm
    text = json.dumps({"cash": str(harmed["cash"]), "open": len(harmed["positions"])})
    measured(text)
    figures.add("ledger after the kills", "", "equal in cash and positions", f"`{text}`")


@pytest.mark.acceptance("I1", criterion="the audit finds nothing after the kills")
def test_the_audit_is_clean(ordeal, measured, figures: Figures):
    assert read_lags(ordeal.harmed) == {"trading": 0, "archive": 0}
    for environment in (ordeal.harmed, ordeal.calm):
        report = audit(environment, "", None, allow_running=False, quiet=True)
        assert report.first is None
    rows = sum(check.rows for check in report.checks)
    measured(f"{len(report.checks)} checks over {rows:,} rows, 0 violations")
    figures.add("audit after the kills", "", "clean", f"{len(report.checks)} checks, {rows:,} rows")


def test_halt_and_resume_under_kills_were_applied_once_each(ordeal: Any):
    state = topic_state(ordeal.harmed, "ops.applied")
    assert (state.records, state.doubled) == (2, 0)
