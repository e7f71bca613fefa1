"""One audit: reads an environment or a folder once, then runs every check over what was read."""

from collections.abc import Callable, Iterator
from decimal import localcontext

from infra.audit.bars import PartitionBars, compare_bars, compare_late
from infra.audit.chain import ChainAudit, check_completeness, check_halts
from infra.audit.evidence import Evidence
from infra.audit.fills import FillAudit
from infra.audit.identity import IdAudit
from infra.audit.ledger import WIDE, audit_ledgers
from infra.audit.limits import LimitAudit
from infra.audit.log import TICKS, AuditedLog, LogRecord
from infra.audit.opinions import OpinionAudit
from infra.audit.orders import OrderAudit
from infra.audit.prices import TradePrices
from infra.audit.recording import RecordedBars
from infra.audit.records import RecordAudit
from infra.audit.report import AuditReport, Check, Place, Watch
from infra.audit.sessions import Sessions
from infra.audit.tables import AuditedStore, TableAudit
from infra.audit.ticks import TickAudit
from infra.audit.vectors import VectorAudit
from infra.audit.votes import VoteAudit
from infra.settings import Settings
from schemas.market import BarClosed, FeaturesComputed, TickLate
from schemas.models import ContextObserved, ModelEventRecorded
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from schemas.topics import TOPICS, Topic, message_topics
from schemas.trading import DecisionMade

MILLISECOND_NS = 1_000_000
Progress = Callable[[str, int], None]
"""Called with the topic that is read and the records read since the last call."""

_PROGRESS_EVERY = 1_000
_FIRST_TOPICS = ("ops.settings", "market.instruments", "model.events", "ops.dead_letters")
"""Others cannot be judged without these."""


class EnvironmentRunningError(RuntimeError):
    """The environment is still being written, so that nothing about it can be proved."""


class Audit:
    """Runs every check over one environment."""

    def __init__(
        self,
        name: str,
        log: AuditedLog,
        store: AuditedStore | None,
        settings: Settings,
        on_progress: Progress | None = None,
        recording: RecordedBars | None = None,
    ) -> None:
        """Audit `log`, and `store` and `recording` against it if given.

        `settings` count where none were published; `recording` where the log holds no ticks.
        """
        self._name, self._log, self._store = name, log, store
        self._recording = recording
        self._on_progress = on_progress or (lambda _topic, _records: None)
        self._evidence = Evidence(settings)
        self._bars: dict[int, dict[tuple[str, str, str, int], tuple[Place, BarClosed]]] = {}
        self._late: dict[int, dict[tuple[int, int, int], tuple[Place, TickLate]]] = {}
        self._conservation = Check("conservation", "I1")
        self._bar_check = Check("bars", "I16")
        self._late_check = Check("late ticks", "I1 I16")
        self._headers = Check("headers", "I8 I23")
        self._unique = Check("unique ids", "I3 I13")
        self._ids = Check("ids", "I9 I12")
        self._features = Check("features", "I15")
        self._votes = Check("votes", "I12 I15")
        self._opinions = Check("opinions", "I12 I15")
        self._chain = Check("causal chain", "I4 I23")
        self._complete = Check("decision checks", "I5 I7 I23")
        self._orders = Check("orders and fills", "I14 I17")
        self._costs = Check("fill costs", "I2 I14")
        self._provenances = Check("provenance", "I14")
        self._ledger = Check("ledger", "I2 I3 I6")
        self._outcomes = Check("outcomes", "I2")
        self._limits = Check("limits", "I5")
        self._tables = Check("tables", "I18")
        self._holes = 0
        self._refused: set[tuple[str, int, int]] = set()
        self._records = RecordAudit(self._headers, self._unique, self._refused)
        self._identity = IdAudit(self._ids)
        self._vectors = VectorAudit(self._features)
        self._voting = VoteAudit(self._votes)
        self._pooling = OpinionAudit(self._opinions, self._evidence)

    def run(self, *, allow_running: bool = False) -> AuditReport:
        """Return what was found.

        Raises:
            EnvironmentRunningError: The log grew meanwhile, unless `allow_running`.
            LogUnreadableError, StoreUnreadableError: Broker or store did not answer.
        """
        watch = Watch()
        with localcontext(WIDE):
            self._read()
            prices, through_ns = self._audit_ticks()
            self._across(prices, through_ns)
        moved = self._log.moved()
        if moved and not allow_running:
            msg = (
                f"environment {self._name!r} must be at rest; found {moved!r} growing; stop its "
                "dataflows, or pass --allow-running and expect unfinished work among the violations"
            )
            raise EnvironmentRunningError(msg)
        return AuditReport(
            environment=self._name,
            checks=[check.result() for check in self._all_checks()],
            notes=self._notes(moved),
            seconds=watch.seconds,
        )

    def _all_checks(self) -> list[Check]:
        return [
            self._conservation, self._late_check, self._bar_check, self._headers, self._unique,
            self._ids, self._features, self._opinions, self._votes, self._chain, self._complete,
            self._orders, self._costs, self._provenances, self._ledger, self._outcomes, self._limits,
            self._tables,
        ]  # fmt: skip

    def _notes(self, moved: str) -> list[str]:
        notes = []
        if self._holes:
            notes.append(f"{self._holes} offsets of {TICKS} hold no record (transaction markers)")
        if moved:
            notes.append(f"{moved} grew during the audit: unfinished work counts as violations")
        return notes

    def _read(self) -> None:
        later = [topic for topic in message_topics() if topic.name not in _FIRST_TOPICS]
        for topic in [*(TOPICS[name] for name in _FIRST_TOPICS), *later]:
            self._read_topic(topic)
            if topic.name == "ops.dead_letters":
                letters = (fact.message for fact in self._evidence.dead_letters)
                self._refused |= {
                    (each.source_topic, each.partition, each.offset) for each in letters
                }
        if self._store is None:
            self._tables.skip("no store was given")
        if not self._log.has_headers:
            self._headers.skip("a folder keeps no headers")
        else:
            self._evidence.check_settings(self._headers, self._records.configs)

    def _read_topic(self, topic: Topic) -> None:
        table = TableAudit(self._tables, topic) if self._store is not None else None
        self._records.start_topic()
        chain = ChainAudit(self._chain, self._evidence, None)
        starts = {}
        for partition in self._log.partitions(topic.name):
            starts[partition] = self._log.start(topic.name, partition)
            if starts[partition]:
                self._chain.skip(f"{topic.name}/{partition} begins at {starts[partition]}")
                if topic.name == OpinionPooled.topic:
                    self._pooling.begin_late()
            for record in self._followed(topic.name, partition):
                message = self._records.decode(record)
                if message is None:
                    continue
                self._see(record, message, chain)
                if table is not None:
                    table.see(record, message)
        if table is not None and self._store is not None:
            table.compare(self._store, starts)

    def _followed(self, topic: str, partition: int) -> Iterator[LogRecord]:
        """Yield the records of a partition and tell how far it is."""
        untold = 0
        for record in self._log.records(topic, partition):
            yield record
            untold += 1
            if untold == _PROGRESS_EVERY:
                self._on_progress(topic, untold)
                untold = 0
        self._on_progress(topic, untold)

    def _see(self, record: LogRecord, message: object, chain: ChainAudit) -> None:
        place = record.place
        config = (record.headers or {}).get("config", b"").decode("latin-1")
        self._identity.see(place, message)
        self._evidence.see(place, message, config)
        if isinstance(message, BarClosed):
            self._vectors.see_bar(message)
            if self._log.has_ticks:
                key = (message.venue, message.symbol, message.timeframe, message.close_time_ns)
                self._bars.setdefault(message.partition, {})[key] = (place, message)
        elif isinstance(message, FeaturesComputed):
            chain.see_features(place, message)
            self._vectors.see_vector(place, message)
            self._pooling.see_vector(message, config)
        elif isinstance(message, ContextObserved):
            chain.see_opinion(place, message)
        elif isinstance(message, OpinionPooled):
            chain.see_opinion(place, message)
            self._pooling.see(place, message, config)
        elif isinstance(message, SignalEmitted):
            self._voting.see(place, message)
            self._pooling.see_signal(place, message, config)
        elif isinstance(message, ModelEventRecorded):
            self._pooling.see_event(message)
        elif isinstance(message, TickLate):
            key_late = (message.partition, message.offset, message.line)
            self._late.setdefault(message.partition, {})[key_late] = (place, message)
        elif isinstance(message, DecisionMade):
            check_completeness(self._complete, place, message)

    def _audit_ticks(self) -> tuple[TradePrices | None, int | None]:
        """Return the accepted trades, and up to when every signal must have been decided."""
        if not self._log.has_ticks:
            return self._audit_recording(), None
        evidence, prices, sessions = self._evidence, TradePrices(), Sessions()
        settings, timeframes = evidence.bar_settings()
        if not evidence.one_lateness():
            self._bar_check.skip("the lateness changed while the environment was running")
        lateness_ns = settings.bars.lateness_ms * MILLISECOND_NS
        letters = [fact.message for fact in evidence.dead_letters]
        ticks = TickAudit(self._conservation, letters, evidence.listings)
        whole = comparable = evidence.one_lateness()
        watermarks: list[int | None] = []
        for partition in self._log.partitions(TICKS):
            start = self._log.start(TICKS, partition)
            rows = self._store.tick_rows(partition) if self._store is not None else None
            bars = PartitionBars(partition, timeframes, lateness_ns, evidence.listings, sessions)
            records = self._followed(TICKS, partition)
            for tick in ticks.accepted(partition, records, start, rows):
                if bars.add(tick):
                    prices.add(tick)
            watermarks.append(bars.watermark_ns)
            if start:
                whole = False
                self._bar_check.skip(f"{TICKS}/{partition} begins at {start}: its ticks are gone")
            elif comparable:
                compare_bars(
                    self._bar_check, bars.closed(), self._bars.get(partition, {}), partition
                )
                compare_late(self._late_check, bars.late, self._late.get(partition, {}), partition)
        self._holes = ticks.holes
        if self._store is None:
            self._conservation.skip("no store was given: lines were held against dead letters only")
        known = [mark for mark in watermarks if mark is not None]
        through_ns = min(known) if known and len(known) == len(watermarks) else -1
        return (prices if whole else None), through_ns

    def _audit_recording(self) -> TradePrices | None:
        """Return the trades of the recording behind a folder without ticks, if it was given."""
        for check in (self._conservation, self._late_check):
            check.skip("the folder holds no ticks.parquet")
        if self._recording is None:
            self._bar_check.skip("the folder holds no ticks.parquet and no --input was given")
            return None
        self._recording.prepare(self._evidence.listings)
        self._recording.compare(self._bar_check)
        return self._recording.prices()

    def _across(self, prices: TradePrices | None, through_ns: int | None) -> None:
        evidence = self._evidence
        if any(
            self._log.start(BarClosed.topic, each) for each in self._log.partitions(BarClosed.topic)
        ):
            self._features.skip("the first bars are gone, from which features are computed again")
        else:
            self._vectors.compare()
        self._pooling.compare()
        ChainAudit(self._chain, evidence, through_ns).run()
        check_halts(self._complete, evidence)
        OrderAudit(self._orders, evidence, prices).run()
        FillAudit(self._costs, self._provenances, evidence, prices).run()
        audit_ledgers(self._ledger, self._outcomes, evidence, prices)
        for account in sorted({fact.message.account for fact in evidence.decisions}):
            LimitAudit(self._limits, evidence, prices, account).run()
        if prices is None:
            for check in (self._orders, self._ledger, self._limits):
                check.skip("without all ticks prices were not held against trades")
