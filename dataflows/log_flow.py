"""What every flow over the log needs: lease, book, workload, sink, and how it is run and recovered."""

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from msgspec import Struct

from dataflows.engine import told_plainly
from dataflows.fencing import file_leases, log_lease
from dataflows.log_sources import Watch
from dataflows.stack import kafka_settings
from infra.kafka.errors import HistoryGoneError
from infra.kafka.lease import LogLease
from infra.kafka.sink import KafkaSink, Target
from infra.kafka.stop_flag import StopFlag
from infra.kafka.topics import topic_begins
from infra.lease import RunLease
from infra.private_folder import make_private
from infra.records import FetchedRecord
from infra.serve import Workload
from infra.settings import Settings, load_settings, settings_hash
from schemas.codec import Origin, decode
from schemas.instruments import InstrumentBook
from schemas.models import BAR_KINDS, ModelEventRecorded
from schemas.operations import AlertRaised, ControlCommanded, DeadLetterRecorded
from schemas.topics import TOPICS

logger = logging.getLogger(__name__)

WRITES = {
    "trading": (
        "market.bars", "market.features", "market.late", "trade.signals", "trade.decisions",
        "trade.orders", "trade.fills", "trade.positions", "trade.outcomes", "ops.applied",
        "ops.dead_letters", "model.events", "model.opinions", "market.context", "ops.alerts",
    ),
    "features": ("market.bars", "market.features", "market.late", "ops.dead_letters"),
    "signals": ("trade.signals", "model.events", "model.opinions", "market.context", "ops.alerts"),
    "archive": (),
    "portfolio": (
        "trade.decisions", "trade.orders", "trade.fills", "trade.positions", "trade.outcomes",
        "ops.applied", "ops.dead_letters",
    ),
}  # fmt: skip
"""Topics that each flow may write."""
TICKS = "market.ticks"
INPUTS = {
    "trading": (TICKS,),
    "features": (TICKS,),
    "signals": ("market.bars",),
    "portfolio": (TICKS, "trade.signals"),
    "archive": (),
}
"""Topics from whose first record on each flow makes what it writes."""


class LogFlow(Struct, kw_only=True):
    """A flow's place in the world: its partitions of the log and its right to write."""

    settings: Settings
    name: str
    partitions: list[int]
    book: InstrumentBook
    workload: Workload
    watch: Watch
    origin: Origin
    leases: list[RunLease]
    fence: LogLease | None = None
    """The lease of the log, once it is held; without one a sink asks nobody."""

    def sink(self) -> KafkaSink:
        """Return the sink to every topic that this flow may write."""
        targets = []
        for topic in WRITES[self.name]:
            numbers: Sequence[int] = self.partitions if TOPICS[topic].partitioned else (0,)
            owns = self._owns(topic)
            targets += [Target(topic=topic, partition=number, owns=owns) for number in numbers]
        lanes = "-".join(str(number) for number in self.partitions)
        return KafkaSink(
            kafka_settings(self.settings),
            self.settings.environment,
            self.origin,
            targets,
            writer=f"{self.name}/{lanes}",
            check_lease=None if self.fence is None else self.fence.check,
            before_rebuild=self._refuse_half_a_history,
        )

    def _owns(self, topic: str) -> Callable[[FetchedRecord], bool]:
        """Return which records of `topic` this flow makes, whichever flow wrote them.

        Not the writer's name decides: `trading` must find what the split flows wrote before, and
        they what it wrote.
        """
        if topic == DeadLetterRecorded.topic:
            return self._makes_letter
        if topic == ModelEventRecorded.topic:
            return _is_remade
        if topic == AlertRaised.topic:
            # Said once, by whoever saw it happen: a replay sees in the log what became of it.
            return lambda _record: False
        if TOPICS[topic].partitioned:
            return lambda _record: True
        account = self.settings.account.encode()
        return lambda record: record.key == account

    def _makes_letter(self, record: FetchedRecord) -> bool:
        try:
            letter = decode(DeadLetterRecorded, record.value or b"")
        except msgspec.DecodeError:
            return False
        if letter.source_topic == TICKS:
            return self.name in {"trading", "features"} and letter.partition in self.partitions
        return letter.source_topic == ControlCommanded.topic and self.name != "features"

    def _refuse_half_a_history(self) -> None:
        kafka = kafka_settings(self.settings)
        begins = topic_begins(kafka, self.settings.environment, INPUTS[self.name])
        for topic, partitions in begins.items():
            cut = {number: begin for number, begin in partitions.items() if begin}
            if cut and set(cut) & set(self.partitions):
                msg = (
                    f"flow {self.name!r} has no recovery state, so topic {topic!r} must still hold "
                    f"its first record; found first offsets {cut!r}; restore the state folder or "
                    "start a new environment: another history would be written behind the old one"
                )
                raise HistoryGoneError(msg)

    def release(self) -> None:
        """Give the locks of the state folder back; whoever took the lease of the log gives that."""
        for lease in self.leases:
            lease.release()


def _is_remade(record: FetchedRecord) -> bool:
    """Return whether a replay of the bars makes a model's event again: not what began to serve."""
    try:
        kind = decode(ModelEventRecorded, record.value or b"").kind
    except msgspec.DecodeError:
        return False
    return kind in BAR_KINDS


def recovery_folder(settings: Settings, name: str, partitions: Sequence[int]) -> Path:
    """Return the folder of a flow's snapshots; a lane has its own, so a change of workers moves none."""
    whole = list(partitions) == list(range(settings.kafka.partitions))
    lanes = "all" if whole else "-".join(f"{number:04d}" for number in partitions)
    return settings.state_dir / "recovery" / settings.environment / name / lanes


def learners_folder(log: LogFlow) -> Path:
    """Return the folder for what the learners of a flow keep outside of its snapshots."""
    return recovery_folder(log.settings, log.name, log.partitions) / "learners"


def open_log_flow(
    settings: Settings, name: str, partitions: list[int], watch: Watch | None = None
) -> LogFlow:
    """Take the leases of the account (if the flow decides for it) and of the recovery folder.

    Raises:
        LeaseHeldError: Another process runs this account or these partitions.
    """
    folder = recovery_folder(settings, name, partitions)
    leases = [*file_leases(settings, name, partitions), RunLease(folder / "lease")]
    epoch = 0
    try:
        for lease in leases:
            epoch = max(epoch, lease.acquire())
    except BaseException:
        for lease in leases:
            lease.release()
        raise
    if watch is None:
        watch = Watch(
            stop=StopFlag(),
            workload=Workload(name, settings.environment, settings.serve.stale_after_seconds),
        )
    return LogFlow(
        settings=settings,
        name=name,
        partitions=partitions,
        book=InstrumentBook(),
        workload=watch.workload,
        watch=watch,
        origin=Origin(config_hash=settings_hash(settings), epoch=epoch),
        leases=leases,
    )


def open_whole_flow(name: str) -> LogFlow:
    """Return the log of `name` over every partition, all its leases held, for `bytewax.run`.

    Raises:
        LeaseHeldError: Another run writes what this one would.
    """
    settings = load_settings().settings
    log = open_log_flow(settings, name, list(range(settings.kafka.partitions)))
    log.fence = log_lease(settings, name, log.partitions, log.watch.stop)
    log.fence.acquire()
    return log


def run_recoverable(flow: Dataflow, settings: Settings, folder: Path) -> None:
    """Run `flow` in this thread until its sources end, with snapshots in `folder`.

    Raises:
        FlowFailedError: A step failed; the text says why.
    """
    database = folder / "snapshots"
    if not database.exists():
        # Renamed when whole: a crash in between must not leave half a database behind.
        fresh = folder / "snapshots.new"
        shutil.rmtree(fresh, ignore_errors=True)
        make_private(fresh)
        init_db_dir(fresh, 1)
        fresh.replace(database)
    with told_plainly(flow.flow_id):
        cli_main(
            flow,
            workers_per_process=1,
            process_id=None,
            addresses=None,
            epoch_interval=timedelta(milliseconds=settings.run.epoch_ms),
            recovery_config=RecoveryConfig(str(database), timedelta(0)),
        )


def run_lanes(run_one: Callable[[int], None], partitions: Sequence[int], stop: StopFlag) -> None:
    """Run one flow per partition, each in its own thread; one that fails stops all.

    Raises:
        RuntimeError: A lane failed; its cause is chained.
    """
    failures: list[BaseException] = []

    def guarded(partition: int) -> None:
        try:
            run_one(partition)
        except BaseException as error:  # noqa: BLE001  # a lane's failure must end the process
            failures.append(error)
            stop.request()

    threads = [
        threading.Thread(target=guarded, args=(number,), name=f"lane-{number}")
        for number in partitions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            # A join without a limit would keep signals from the main thread.
            thread.join(0.2)
    if failures:
        msg = f"lane failed; {failures[0]}"
        raise RuntimeError(msg) from failures[0]
