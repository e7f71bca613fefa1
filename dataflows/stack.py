"""The processes of a stack and where each listens: one description for up, demo, chaos and tests."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from infra.private_folder import create_private
from infra.settings import FILE_VARIABLE, PREFIX, Settings, write_settings
from infra.stack.broker import BrokerConfig, build_broker_command, wait_until_ready
from infra.stack.store import StoreConfig, build_store_command, wait_until_store_ready
from infra.stack.supervise import ManagedProcess
from schemas.settings import KafkaSettings, StoreSettings

FLOWS = ("features", "signals", "portfolio", "trading", "archive")
DEFAULT_FLOWS = ("trading", "archive")
PORT_OFFSETS = {"trading": 0, "archive": 1, "features": 2, "signals": 3, "portfolio": 4}
WORKER_PORTS = 10
"""Ports between one flow and the next, for its workers."""
STORE_KEY_FILE = "store.key"
EFFECTIVE_NAME = "effective.toml"
"""Settings that the supervised processes were started with, in the state folder."""
READY_SECONDS = 60.0


def port_of(settings: Settings, flow: str, worker: int = 0) -> int:
    """Return the port on which a worker of `flow` serves metrics and health."""
    return settings.serve.base_port + PORT_OFFSETS[flow] * WORKER_PORTS + worker


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Return the Kafka settings with the embedded broker's address filled in."""
    if settings.kafka.bootstrap:
        return settings.kafka
    bootstrap = f"127.0.0.1:{settings.kafka.embedded_port}"
    return settings.kafka.model_copy(update={"bootstrap": bootstrap})


def store_settings(settings: Settings) -> StoreSettings:
    """Return the store settings with the embedded store's address and password filled in."""
    if settings.store.url:
        return settings.store
    update: dict[str, object] = {"url": f"http://127.0.0.1:{settings.store.embedded_port}"}
    if not settings.store.password.get_secret_value():
        update["password"] = _store_password(settings.state_dir)
    return StoreSettings.model_validate(settings.store.model_dump() | update)


def _store_password(state_dir: Path) -> str:
    path = state_dir / STORE_KEY_FILE
    if not path.exists():
        create_private(path, f"{secrets.token_urlsafe(24)}\n".encode())
    return path.read_text().strip()


def stack_processes(settings: Settings) -> list[ManagedProcess]:
    """Return the broker and the store, unless settings name external ones."""
    state_dir = settings.state_dir.resolve()
    processes = []
    if not settings.kafka.bootstrap:
        broker = BrokerConfig(state_dir=state_dir / "broker", port=settings.kafka.embedded_port)
        processes.append(_process("broker", build_broker_command(broker)[1:], 100))
    if not settings.store.url:
        store_settings(settings)  # Creates the password file before the store reads it.
        store = StoreConfig(
            state_dir=state_dir / "store",
            port=settings.store.embedded_port,
            user=settings.store.user,
            password_file=state_dir / STORE_KEY_FILE,
        )
        processes.append(_process("store", build_store_command(store)[1:], 100))
    return processes


def flow_process(flow: str) -> ManagedProcess:
    """Return the process that runs `flow`."""
    return _process(flow, ("-m", "dataflows.cli.main", "run", flow), 500)


def _process(name: str, arguments: Sequence[str], priority: int) -> ManagedProcess:
    return ManagedProcess(name=name, arguments=tuple(arguments), priority=priority)


def wait_for_stack(settings: Settings) -> None:
    """Wait until broker and store answer; raises TimeoutError naming the one that does not."""
    wait_until_ready(kafka_settings(settings).bootstrap, READY_SECONDS)
    wait_until_store_ready(store_settings(settings).url, READY_SECONDS)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of supervised processes: theirs must be exactly our settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    file = settings.state_dir.resolve() / EFFECTIVE_NAME
    write_settings(settings, file)
    return kept | {FILE_VARIABLE: str(file)}
