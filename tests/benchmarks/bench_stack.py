"""The broker and the store of one benchmark run, and bounded runs of flows over them."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow
from confluent_kafka.admin import AdminClient

from dataflows.lag import read_lags
from dataflows.log_flow import LogFlow, open_log_flow, recovery_folder, run_recoverable
from dataflows.log_sources import Watch
from dataflows.recorded_session import RecordedSession
from dataflows.replay import replay
from dataflows.stack import kafka_settings
from infra.kafka.stop_flag import StopFlag
from infra.kafka.topics import ensure_topics, topic_ends
from infra.serve import Workload
from infra.settings import Settings
from infra.stack.process import find_free_port
from infra.tick_encoder import Encoding
from schemas.topics import TOPICS, full_name, message_topics
from tests.integration.session_run import prepare, session_settings
from tests.stack_fixtures import end, start_broker, start_store

WAIT_SECONDS = 30.0
INPUTS = ("market.ticks", "market.instruments", "ops.settings", "ops.control")


class BenchStack:
    """A broker and a store on free ports, with any number of environments."""

    def __init__(self, folder: Path, bootstrap: str, store: Any) -> None:
        self._folder, self._bootstrap, self._store = folder, bootstrap, store
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        self._count = 0

    def settings(self, name: str, **sections: Any) -> Settings:
        """Return the settings of a new environment whose topics and tables exist."""
        self._count += 1
        environment = f"{name}{self._count}"
        state_dir = self._folder / environment
        sections.setdefault("portfolio", Settings().portfolio)
        return prepare(
            session_settings(state_dir, environment, self._bootstrap, self._store, **sections)
        )

    def forget_recovery(self, settings: Settings) -> None:
        """Delete the recovery state of every flow: the next run reads its input again."""
        shutil.rmtree(settings.state_dir / "recovery", ignore_errors=True)

    def clear_outputs(self, settings: Settings) -> None:
        """Make every derived topic anew and forget the recovery state: a run starts fresh."""
        self.forget_recovery(settings)
        names = {
            full_name(settings.environment, topic.name)
            for topic in TOPICS.values()
            if topic.name not in INPUTS
        }
        for future in self._admin.delete_topics(sorted(names)).values():
            future.result()
        deadline = time.monotonic() + WAIT_SECONDS
        # The broker answers before its own list is up to date.
        while names & set(self._admin.list_topics(timeout=WAIT_SECONDS).topics):
            assert time.monotonic() < deadline, "topics were not deleted in time"
            time.sleep(0.05)
        ensure_topics(kafka_settings(settings), settings.environment)


@contextmanager
def bench_stack(folder: Path) -> Iterator[BenchStack]:
    """Start a broker and a store; end them, whatever happens."""
    port = find_free_port()
    broker = start_broker(folder / "broker", port)
    try:
        store, address = start_store(folder / "store", find_free_port(), "secret")
        try:
            yield BenchStack(folder, f"127.0.0.1:{port}", address)
        finally:
            end(store)
    finally:
        end(broker)


def publish(settings: Settings, session: RecordedSession, encoding: Encoding, batch: int) -> int:
    """Replay `session` into the log at once; return its ticks."""
    return replay(settings, session, encoding=encoding, batch=batch).ticks


def end_offsets(settings: Settings, topics: tuple[str, ...]) -> dict[str, dict[int, int]]:
    """Return where `topics` end, for a bounded run."""
    return topic_ends(kafka_settings(settings), settings.environment, topics)


def records_written(settings: Settings) -> dict[str, int]:
    """Return how many records each topic was ever given."""
    topics = tuple(topic.name for topic in message_topics())
    return {topic: sum(ends.values()) for topic, ends in end_offsets(settings, topics).items()}


def run_bounded(
    settings: Settings,
    name: str,
    build: Callable[[LogFlow], Dataflow],
    topics: tuple[str, ...] = ("market.ticks",),
) -> float:
    """Run a flow over what `topics` hold now, recovery on; return its wall seconds in all.

    The time holds everything from opening the partitions to the last acknowledged record.
    """
    workload = Workload(name, settings.environment, settings.serve.stale_after_seconds)
    watch = Watch(stop=StopFlag(), workload=workload, until=end_offsets(settings, topics))
    partitions = list(range(settings.kafka.partitions))
    log = open_log_flow(settings, name, partitions, watch)
    try:
        started = time.perf_counter()
        run_recoverable(build(log), settings, recovery_folder(settings, name, partitions))
        return time.perf_counter() - started
    finally:
        log.release()


def traded_to_the_end(settings: Settings) -> bool:
    """Return whether `trading` has committed every record of its input."""
    return read_lags(settings).get("trading") == 0
