"""Session fixtures: one embedded broker and one embedded store for the whole test run."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect
import pytest

from infra.stack.broker import BrokerConfig, build_broker_command, wait_until_ready
from infra.stack.process import find_free_port
from infra.stack.store import StoreConfig, build_store_command, wait_until_store_ready

READY_SECONDS = 90.0  # The first broker of a machine fetches its jars.
STOP_SECONDS = 20.0


class StoreAddress(NamedTuple):
    """Where the store listens and who may use it."""

    url: str
    host: str
    port: int
    user: str
    password: str
    pid: int

    def connect(self, **options: Any) -> Any:
        """Return an unmodified clickhouse-connect HTTP client."""
        return clickhouse_connect.get_client(
            interface="http",
            host=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            **options,
        )


class RunningProcess(NamedTuple):
    """A stack process a test may stop or kill by pid, and where its log is."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)


def start(command: list[str], log: Path) -> RunningProcess:
    """Start one stack process in the foreground of the test run."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    return RunningProcess(process, log)


def end(running: RunningProcess) -> None:
    """Stop a process for good, whatever state it is in."""
    if running.process.poll() is None:
        running.process.terminate()
        try:
            running.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait(STOP_SECONDS)


def start_broker(state_dir: Path, port: int) -> RunningProcess:
    """Start a broker and wait until it answers."""
    state_dir.mkdir(parents=True, exist_ok=True)
    config = BrokerConfig(state_dir=state_dir, port=port)
    command = build_broker_command(config, stop_with_parent=True)
    running = start(command, state_dir / "broker.log")
    _await(running, lambda: wait_until_ready(config.bootstrap, READY_SECONDS))
    return running


def start_store(
    state_dir: Path, port: int, password: str = ""
) -> tuple[RunningProcess, StoreAddress]:
    """Start a store of user `quantstream` and wait until it answers."""
    state_dir.mkdir(parents=True, exist_ok=True)
    password_file = None
    if password:
        password_file = state_dir / "password"
        password_file.write_text(password + "\n")
    config = StoreConfig(
        state_dir=state_dir, port=port, user="quantstream", password_file=password_file
    )
    command = build_store_command(config, stop_with_parent=True)
    running = start(command, state_dir / "store.log")
    url = f"http://127.0.0.1:{port}"
    _await(running, lambda: wait_until_store_ready(url, READY_SECONDS))
    address = StoreAddress(url, "127.0.0.1", port, "quantstream", password, running.process.pid)
    return running, address


def _await(running: RunningProcess, wait: Callable[[], None]) -> None:
    try:
        wait()
    except TimeoutError as e:
        end(running)
        raise AssertionError(running.log.read_text()) from e


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a real Kafka broker; name your own topics."""
    port = find_free_port()
    running = start_broker(tmp_path_factory.mktemp("broker"), port)
    yield f"127.0.0.1:{port}"
    end(running)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    """A store with a password; use a database of your own."""
    running, address = start_store(tmp_path_factory.mktemp("store"), find_free_port(), "secret")
    yield address
    end(running)
