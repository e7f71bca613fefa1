"""Every topic: its message, key, partitions and retention. The one list that all else is derived from."""

from typing import ClassVar, Protocol

from msgspec import Struct

from schemas import market, models, operations, opinions, signals, trading

DAY_MS = 24 * 3600 * 1000
FOREVER_MS = -1


class Message(Protocol):
    """What every message class of a derived topic offers."""

    topic: ClassVar[str]
    natural_key: ClassVar[tuple[str, ...]]

    @property
    def id(self) -> str:
        """Deterministic id of the record."""

    @property
    def cause(self) -> str:
        """Id of the record that caused this one; empty at the start of a chain."""


class Topic(Struct, frozen=True, kw_only=True):
    """One topic of the log."""

    name: str
    message: type[Struct] | None
    """Null for `market.ticks`, whose records are batches (`schemas.ticks`)."""
    key: tuple[str, ...]
    """Fields whose values, joined by `:`, are the record's key."""
    partitioned: bool
    """Whether it has as many partitions as `market.ticks` (else one)."""
    retention_ms: int
    compacted: bool = False
    max_message_bytes: int = 2 * 1024 * 1024
    written_by: str
    purpose: str


def _symbol_topic(message: type[Struct], retention_days: int, by: str, purpose: str) -> Topic:
    return Topic(
        name=message.topic,  # type: ignore[attr-defined]
        message=message,
        key=("venue", "symbol"),
        partitioned=True,
        retention_ms=retention_days * DAY_MS,
        written_by=by,
        purpose=purpose,
    )


def _account_topic(message: type[Struct], by: str, purpose: str) -> Topic:
    return Topic(
        name=message.topic,  # type: ignore[attr-defined]
        message=message,
        key=("account",),
        partitioned=False,
        retention_ms=FOREVER_MS,
        written_by=by,
        purpose=purpose,
    )


_ALL = (
    Topic(
        name="market.ticks",
        message=None,
        key=("venue", "symbol"),
        partitioned=True,
        retention_ms=7 * DAY_MS,
        max_message_bytes=8 * 1024 * 1024,
        written_by="replay, ingest, anyone",
        purpose="trades, quotes and heartbeats as they happened",
    ),
    _symbol_topic(market.BarClosed, 90, "features", "closed bars"),
    _symbol_topic(market.FeaturesComputed, 30, "features", "feature vector of each closed bar"),
    Topic(
        name="market.instruments",
        message=market.InstrumentListed,
        key=("venue", "symbol"),
        partitioned=False,
        retention_ms=FOREVER_MS,
        compacted=True,
        written_by="replay, ingest",
        purpose="trading rules of each instrument",
    ),
    _symbol_topic(market.TickLate, 30, "features", "ticks later than the lateness allowance"),
    _symbol_topic(models.ContextObserved, 365, "signals", "regime around each symbol"),
    _symbol_topic(
        opinions.OpinionPooled, 90, "signals", "what every model said about each bar, signal or not"
    ),
    _symbol_topic(signals.SignalEmitted, 365, "signals", "opinions with every vote"),
    Topic(
        name=models.ModelEventRecorded.topic,
        message=models.ModelEventRecorded,
        key=("model",),
        partitioned=True,
        retention_ms=FOREVER_MS,
        written_by="signals",
        purpose="which version of each model serves from when, its weight and its score",
    ),
    _account_topic(trading.DecisionMade, "portfolio", "what was done with each signal, and why"),
    _account_topic(trading.OrderUpdated, "portfolio", "order commands and state changes"),
    _account_topic(trading.OrderFilled, "paper venue", "executed parts of orders"),
    _account_topic(trading.PositionChanged, "portfolio", "positions and equity after each change"),
    _account_topic(trading.OutcomeClosed, "portfolio", "closed legs with realised P&L"),
    _account_topic(operations.ControlCommanded, "operator CLI", "signed commands"),
    _account_topic(operations.ControlApplied, "portfolio", "when each command took effect"),
    Topic(
        name="ops.settings",
        message=operations.SettingsPublished,
        key=("id",),
        partitioned=False,
        retention_ms=FOREVER_MS,
        compacted=True,
        written_by="all",
        purpose="effective settings behind each config header",
    ),
    Topic(
        name="ops.alerts",
        message=operations.AlertRaised,
        key=("kind",),
        partitioned=False,
        retention_ms=365 * DAY_MS,
        written_by="all",
        purpose="alerts raised and resolved",
    ),
    Topic(
        name="ops.dead_letters",
        message=operations.DeadLetterRecorded,
        key=("source_topic",),
        partitioned=False,
        retention_ms=90 * DAY_MS,
        written_by="all",
        purpose="records that were not accepted, with their bytes",
    ),
)

TOPICS: dict[str, Topic] = {topic.name: topic for topic in _ALL}
"""Every topic by its name without the environment prefix."""


def message_topics() -> list[Topic]:
    """Return the topics whose records are one message each."""
    return [topic for topic in _ALL if topic.message is not None]


def full_name(environment: str, topic: str) -> str:
    """Return the Kafka name of `topic` in `environment`; raises KeyError for an unknown topic."""
    return f"{environment}.{TOPICS[topic].name}"


def record_key(message: Struct) -> str:
    """Return the Kafka key of `message`."""
    topic = TOPICS[message.topic]  # type: ignore[attr-defined]
    return ":".join(str(getattr(message, field)) for field in topic.key)
