"""The causal chain (I4, I23): every record names a cause that exists, is older, and is of its kind."""

from collections import Counter, defaultdict
from typing import Any

from infra.audit.evidence import Evidence, Fact
from infra.audit.identity import sent_order_id
from infra.audit.report import Check, Place
from schemas.fields import Action
from schemas.market import FeaturesComputed
from schemas.models import ContextObserved
from schemas.operations import Command
from schemas.opinions import OpinionPooled
from schemas.trading import (
    CheckVerdict,
    DecisionMade,
    DenialReason,
    OrderFilled,
    OrderPurpose,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)

ENTRY_CHECKS = [reason.value for reason in DenialReason if reason is not DenialReason.NO_POSITION]
"""Every check of an entry, in order."""
EXIT_CHECKS = [DenialReason.NO_POSITION.value]

_SENT = {Action.ENTER: OrderPurpose.ENTRY, Action.EXIT: OrderPurpose.EXIT}
_LINKED = ("account", "strategy", "venue", "symbol")


class ChainAudit:
    """Walks from bars to outcomes."""

    def __init__(self, check: Check, evidence: Evidence, through_ns: int | None) -> None:
        """`through_ns`: signals up to here must have been decided; None knows no such time."""
        self._check, self._evidence = check, evidence
        self._through_ns = through_ns
        self._signals = {fact.message.id: fact.message for fact in evidence.signals}
        self._decisions = {fact.message.id: fact.message for fact in evidence.decisions}
        self._fills = {fact.message.id: fact.message for fact in evidence.fills}
        self._updates = {fact.message.id: fact.message for fact in evidence.orders}
        self._orders: dict[str, OrderUpdated] = {}
        for fact in evidence.orders:
            self._orders.setdefault(fact.message.order_id, fact.message)

    def run(self) -> None:
        """Check every link."""
        evidence = self._evidence
        self._check_features()
        for signal in evidence.signals:
            self._check.rows += 1
            if signal.message.cause not in evidence.features:
                self._orphan(signal, signal.message.cause, "feature vector")
        self._check_decisions()
        self._check_orders()
        for fill in evidence.fills:
            self._check_fill(fill)
        for position in evidence.positions:
            self._check_position(position)
        for outcome in evidence.outcomes:
            self._check_outcome(outcome)
        commands = {fact.message.id for fact in evidence.commands}
        for applied in evidence.applied:
            self._check.rows += 1
            if applied.message.cause not in commands:
                self._orphan(applied, applied.message.cause, "command")

    def see_features(self, place: Place, message: FeaturesComputed) -> None:
        """Check a feature vector against the bars, all of which were read before."""
        self._check.rows += 1
        if message.cause not in self._evidence.bars:
            self._check.violate("cause exists", place, message.id, "a bar", message.cause)

    def see_opinion(self, place: Place, message: OpinionPooled | ContextObserved) -> None:
        """Check what was said of a bar against the feature vectors, all of which were read before."""
        self._check.rows += 1
        if message.cause not in self._evidence.features:
            rule = "cause exists"
            self._check.violate(rule, place, message.id, "a feature vector", message.cause)

    def _check_features(self) -> None:
        evidence = self._evidence
        for timeframe, vectors in sorted(evidence.feature_counts.items()):
            bars = evidence.bar_counts[timeframe]
            if bars != vectors:
                rule = "a timeframe with features has one vector for each bar"
                place = Place(FeaturesComputed.topic, 0, -1)
                self._check.violate(rule, place, self._bar_without(timeframe), bars, vectors)

    def _bar_without(self, timeframe: str) -> str:
        """Return the first bar of `timeframe` that has no features."""
        bars = self._evidence.bars
        without = [
            (close_ns, bar)
            for bar, close_ns in bars.items()
            if f"/{timeframe}/" in bar
            and bar.replace("bar/", "features/", 1) not in self._evidence.features
        ]
        return min(without)[1] if without else timeframe

    def _check_decisions(self) -> None:
        decided: Counter[str] = Counter()
        for fact in self._evidence.decisions:
            made = fact.message
            self._check.rows += 1
            decided[made.cause] += 1
            if decided[made.cause] > 1:
                rule = "a signal has one decision"
                self._check.violate(rule, fact.place, made.id, 1, decided[made.cause])
            signal = self._signals.get(made.cause)
            if signal is None:
                self._orphan(fact, made.cause, "signal")
                continue
            for name in ("strategy", "venue", "symbol", "event_time_ns", "action"):
                self._same(fact, name, getattr(signal, name))
        for signal_fact in self._evidence.signals:
            signal = signal_fact.message
            due = self._through_ns is None or signal.event_time_ns <= self._through_ns
            if due and not decided[signal.id]:
                rule = "a signal has one decision"
                self._check.violate(rule, signal_fact.place, signal.id, 1, 0)

    def _check_orders(self) -> None:
        sent: dict[str, list[OrderUpdated]] = defaultdict(list)
        for order in self._orders.values():
            sent[order.decision_id].append(order)
        for fact in self._evidence.orders:
            self._check_update(fact)
        for decision in self._evidence.decisions:
            made = decision.message
            wanted = 0 if made.verdict is Verdict.DENIED else 1
            expected = sent_order_id(made.account, made.event_time_ns, made.id)
            markets = [order for order in sent[made.id] if order.purpose is _SENT[made.action]]
            if [order.order_id for order in markets] != [expected] * wanted:
                rule = "an approved decision sends one order, a denied one none"
                found = [order.order_id for order in markets]
                key = made.id
                self._check.violate(rule, decision.place, key, [expected] * wanted, found)
            elif markets and markets[0].quantity > made.quantity and made.action is Action.ENTER:
                rule = "an order is no larger than its decision"
                self._check.violate(
                    rule, decision.place, made.id, made.quantity, markets[0].quantity
                )

    def _check_update(self, fact: Fact[OrderUpdated]) -> None:
        update = fact.message
        self._check.rows += 1
        decision = self._decisions.get(update.decision_id)
        if decision is None or decision.verdict is Verdict.DENIED:
            self._orphan(fact, update.decision_id, "approved decision")
            return
        for name in _LINKED:
            self._same(fact, name, getattr(decision, name))
        entered = update.purpose is not OrderPurpose.EXIT
        wanted = Action.ENTER if entered else Action.EXIT
        rule = f"a {OrderPurpose(update.purpose).value} order belongs to its kind of decision"
        self._check.require(rule, fact.place, update.id, wanted, decision.action)
        if update.sequence == 0:
            self._same(fact, "cause", update.decision_id)
            self._not_before(fact, decision.event_time_ns)
            return
        cause: Any = (
            self._fills.get(update.cause)
            or self._updates.get(update.cause)
            or self._decisions.get(update.cause)
        )
        if cause is None:
            self._orphan(fact, update.cause, "fill, update or decision")
        else:
            self._not_before(fact, cause.event_time_ns)

    def _check_fill(self, fact: Fact[OrderFilled]) -> None:
        fill = fact.message
        self._check.rows += 1
        order = self._orders.get(fill.order_id)
        if order is None:
            self._orphan(fact, fill.order_id, "order")
            return
        for name in (*_LINKED, "order_id", "decision_id", "side", "purpose"):
            self._same(fact, name, getattr(order, name))
        self._same(fact, "cause", order.order_id)
        self._not_before(fact, order.event_time_ns)

    def _check_position(self, fact: Fact[PositionChanged]) -> None:
        position = fact.message
        self._check.rows += 1
        if not position.strategy:
            self._same(fact, "cause", f"mark/{position.event_time_ns}")
            return
        cause: Any = self._fills.get(position.cause) or self._updates.get(position.cause)
        if cause is None:
            self._orphan(fact, position.cause, "fill or order update")
            return
        for name in (*_LINKED, "event_time_ns"):
            self._same(fact, name, getattr(cause, name))

    def _check_outcome(self, fact: Fact[OutcomeClosed]) -> None:
        outcome = fact.message
        self._check.rows += 1
        fill = self._fills.get(outcome.cause)
        if fill is None:
            self._orphan(fact, outcome.cause, "fill")
            return
        for name in (*_LINKED, "event_time_ns"):
            self._same(fact, name, getattr(fill, name))
        if outcome.entry_decision_id not in self._decisions:
            self._orphan(fact, outcome.entry_decision_id, "entry decision")

    def _orphan(self, fact: Fact[Any], cause: str, kind: str) -> None:
        rule = "cause exists"
        self._check.violate(rule, fact.place, fact.message.id, f"a {kind}", f"none named {cause!r}")

    def _same(self, fact: Fact[Any], name: str, expected: object) -> None:
        rule = f"{name} is that of the cause"
        found = getattr(fact.message, name)
        self._check.require(rule, fact.place, fact.message.id, expected, found)

    def _not_before(self, fact: Fact[Any], cause_ns: int) -> None:
        if fact.message.event_time_ns < cause_ns:
            rule = "nothing happens before its cause"
            found = fact.message.event_time_ns
            self._check.violate(rule, fact.place, fact.message.id, f"at least {cause_ns}", found)


def check_completeness(check: Check, place: Place, made: DecisionMade) -> None:
    """Record a decision whose checks are incomplete or contradict its verdict."""
    check.rows += 1
    wanted = ENTRY_CHECKS if made.action is Action.ENTER else EXIT_CHECKS
    names = [measured.check for measured in made.checks]
    check.require("every check is measured, in order", place, made.id, wanted, names)
    denials = [each for each in made.checks if each.verdict is CheckVerdict.DENIED]
    resized = any(each.verdict is CheckVerdict.RESIZED for each in made.checks)
    expected = Verdict.DENIED if denials else Verdict.RESIZED if resized else Verdict.APPROVED
    check.require("the verdict follows from the checks", place, made.id, expected, made.verdict)
    reason = denials[0].reason if denials else ""
    check.require("the denial is the first failed check", place, made.id, reason, made.denial)
    for each in made.checks:
        rule = "a denied check names itself as the reason"
        own = each.check if each.verdict is CheckVerdict.DENIED else ""
        check.require(rule, place, f"{made.id}/{each.check}", own, each.reason)
        if "unknown" in {each.measured, each.limit} and each.verdict is not CheckVerdict.DENIED:
            rule = "what is unknown is denied"
            check.violate(rule, place, f"{made.id}/{each.check}", "denied", each.verdict)


def check_halts(check: Check, evidence: Evidence) -> None:
    """Record every entry that was approved while entries were off (I7)."""
    accounts = {fact.message.account for fact in evidence.applied}
    for account in sorted(accounts):
        changes = [fact.message for fact in evidence.applied if fact.message.account == account]
        changes.sort(key=lambda change: change.event_time_ns)
        for fact in evidence.decisions:
            made = fact.message
            if made.account != account or made.action is not Action.ENTER:
                continue
            earlier = [each for each in changes if each.event_time_ns <= made.event_time_ns]
            halted = bool(earlier) and earlier[-1].command is Command.HALT
            if halted and made.verdict is not Verdict.DENIED:
                rule = "no entry is approved while entries are halted"
                check.violate(rule, fact.place, made.id, "denied", made.verdict.value)
