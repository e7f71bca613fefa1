"""The rules by which ids follow from a record's inputs, written down a second time.

An id that does not follow is a record that another run would write again under another name.
"""

from collections import Counter
from hashlib import sha256
from zlib import crc32

from infra.audit.report import Check, Place
from schemas.fields import Action
from schemas.ids import bar_id, client_order_id, derive_id, features_id, tick_id
from schemas.market import BarClosed, FeaturesComputed, TickLate
from schemas.models import ContextObserved
from schemas.operations import (
    ControlApplied,
    ControlCommanded,
    DeadLetterRecorded,
    SettingsPublished,
)
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)

Key = tuple[str, str, str, str]
"""Account, strategy, venue, symbol."""


def sent_order_id(account: str, decided_ns: int, decision_id: str) -> str:
    """Return the id of the market order that a decision sends."""
    return derive_id("trade.orders", account, decided_ns, 0, decision_id)


class IdAudit:
    """Derives the id of every record again; records of a topic must come in log order."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._decided_ns: dict[str, int] = {}
        self._order_started: dict[str, tuple[int, str]] = {}
        self._fills: Counter[str] = Counter()
        self._positions: Counter[Key] = Counter()

    def see(self, place: Place, message: object) -> None:
        """Compare the ids in `message` with those that follow from its inputs."""
        self._check.rows += 1
        expected = self._expected(message)
        if expected is not None:
            found = message.id  # type: ignore[attr-defined]
            self._check.require("id follows from the inputs", place, found, expected, found)
        if isinstance(message, OrderUpdated):
            self._see_order(place, message)
        elif isinstance(message, BarClosed):
            cause = tick_id(message.partition, message.last_offset, message.last_line)
            self._check.require("cause is the last tick", place, message.id, cause, message.cause)
        elif isinstance(message, FeaturesComputed | OpinionPooled | SignalEmitted):
            self._see_market(place, message)

    def _see_market(
        self, place: Place, message: FeaturesComputed | OpinionPooled | SignalEmitted
    ) -> None:
        series = (message.venue, message.symbol, message.timeframe)
        if isinstance(message, FeaturesComputed):
            cause = bar_id(*series, message.close_time_ns)
        else:
            cause = features_id(*series, message.event_time_ns)
            bar = bar_id(*series, message.event_time_ns)
            self._check.require("bar_id is the bar", place, message.id, bar, message.bar_id)
        self._check.require("cause follows from the bar", place, message.id, cause, message.cause)

    def _expected(self, message: object) -> str | None:
        match message:
            case BarClosed():
                place = (message.venue, message.symbol, message.timeframe)
                return bar_id(*place, message.close_time_ns)
            case FeaturesComputed():
                place = (message.venue, message.symbol, message.timeframe)
                return features_id(*place, message.close_time_ns)
            case TickLate():
                return f"late/{message.partition}/{message.offset}/{message.line}"
            case SignalEmitted():
                sequence = crc32(f"{message.strategy}/{Action(message.action).value}".encode())
                market = f"{message.venue}:{message.symbol}"
                time_ns = message.event_time_ns
                return derive_id(message.topic, market, time_ns, sequence, message.cause)
            case OpinionPooled() | ContextObserved():
                market = f"{message.venue}:{message.symbol}"
                return derive_id(message.topic, market, message.event_time_ns, 0, message.cause)
            case DecisionMade():
                self._decided_ns[message.id] = message.event_time_ns
                owner = message.account
                return derive_id(message.topic, owner, message.event_time_ns, 0, message.cause)
            case OrderUpdated():
                order, time_ns = message.order_id, message.event_time_ns
                return derive_id(message.topic, order, time_ns, message.sequence, "")
            case OrderFilled() | PositionChanged() | OutcomeClosed():
                return self._expected_of_account(message)
            case _:
                return _expected_of_operations(message)

    def _expected_of_account(
        self, message: OrderFilled | PositionChanged | OutcomeClosed
    ) -> str | None:
        time_ns = message.event_time_ns
        if isinstance(message, OrderFilled):
            number = self._fills[message.order_id]
            self._fills[message.order_id] += 1
            return derive_id(message.topic, message.order_id, time_ns, number, "")
        if isinstance(message, PositionChanged):
            return self._expected_of_position(message)
        decided_ns = self._decided_ns.get(message.entry_decision_id)
        if decided_ns is None:  # The chain check says so.
            return None
        entry = sent_order_id(message.account, decided_ns, message.entry_decision_id)
        return derive_id(message.topic, message.account, time_ns, 0, entry)

    def _expected_of_position(self, message: PositionChanged) -> str:
        account, time_ns = message.account, message.event_time_ns
        if not message.strategy:
            return derive_id(message.topic, account, time_ns, 0, f"mark/{time_ns}")
        key = (account, message.strategy, message.venue, message.symbol)
        number = self._positions[key]
        self._positions[key] = number + 1 if message.quantity else 0
        owner = f"{account}/{message.strategy}/{message.venue}:{message.symbol}"
        return derive_id(message.topic, owner, time_ns, number, message.cause)

    def _see_order(self, place: Place, update: OrderUpdated) -> None:
        """Derive the order's own id, with its first update, and hold later ones to it."""
        decided_ns = self._decided_ns.get(update.decision_id)
        if decided_ns is None:  # The chain check says so.
            return
        sent = sent_order_id(update.account, decided_ns, update.decision_id)
        own, client = sent, client_order_id(update.decision_id)
        if update.purpose in {OrderPurpose.PROTECTIVE_STOP, OrderPurpose.TARGET}:
            stream = f"{update.account}/{OrderPurpose(update.purpose).value}"
            first_ns, _ = self._order_started.setdefault(
                update.order_id, (update.event_time_ns, update.id)
            )
            own = derive_id("trade.orders", stream, first_ns, 0, sent)
            client = client_order_id(own)
        rule = "order_id follows from the decision"
        self._check.require(rule, place, update.id, own, update.order_id)
        rule = "client_order_id is a function of the decision"
        self._check.require(rule, place, update.id, client, update.client_order_id)


def _expected_of_operations(message: object) -> str | None:
    match message:
        case DeadLetterRecorded():
            where = f"{message.partition}/{message.offset}"
            return derive_id(message.topic, message.source_topic, 0, message.line, where)
        case ControlApplied():
            account = message.account
            return derive_id(message.topic, account, message.event_time_ns, 0, message.cause)
        case ControlCommanded():
            who = f"{message.signer}/{message.command}"
            return derive_id(message.topic, message.account, message.issued_at_ns, 0, who)
        case SettingsPublished():
            return sha256(message.settings_json.encode()).hexdigest()[:16]
        case _:
            return None
