"""Turns signals into decisions and approved decisions into orders."""

from decimal import Decimal

from operators.portfolio.checks import EntryFacts, EntryLimits, check_entry, exact_price
from operators.portfolio.exits import ExitOwner
from operators.portfolio.legs import Leg, Order
from operators.portfolio.matching import Matching
from operators.portfolio.records import Verdicted
from operators.portfolio.rules import TradingRules
from operators.portfolio.state import AccountState
from schemas.fields import Action, Side
from schemas.ids import client_order_id, derive_id
from schemas.signals import SignalEmitted
from schemas.ticks import PROVENANCE_CODES
from schemas.trading import (
    CheckMeasured,
    CheckVerdict,
    DenialReason,
    OrderKind,
    OrderPurpose,
    OrderStatus,
    Verdict,
)


class DecisionDesk:
    """Decides on every signal: entries pass the checks, exits always may leave a position."""

    def __init__(
        self, account: AccountState, exits: ExitOwner, matching: Matching, limits: EntryLimits
    ) -> None:
        self._account = account
        self._exits = exits
        self._matching = matching
        self._limits = limits

    def on_signal(self, signal: SignalEmitted) -> None:
        """Decide on `signal` and send the order that follows."""
        account = self._account.recorder.account
        decision_id = derive_id("trade.decisions", account, signal.event_time_ns, 0, signal.id)
        if signal.action is Action.EXIT:
            self._decide_exit(signal, decision_id)
        else:
            self._decide_entry(signal, decision_id)

    def _decide_entry(self, signal: SignalEmitted, decision_id: str) -> None:
        state, time_ns = self._account, signal.event_time_ns
        market = (signal.venue, signal.symbol)
        rules = state.timeline.rules_at(market, time_ns)
        facts = self._facts(signal, rules)
        outcome = check_entry(facts, self._limits)
        reference = facts.reference or Decimal(0)
        state.recorder.decision(decision_id, signal, outcome, facts.equity, reference)
        if outcome.verdict is Verdict.DENIED:
            return
        assert rules is not None
        assert facts.unit_cost is not None
        leg = self._open_leg(signal, decision_id, rules, outcome.quantity, facts.unit_cost)
        state.legs[leg.key] = leg
        state.note_order(time_ns)
        state.recorder.order(
            leg, leg.entry, time_ns, OrderStatus.SUBMITTED, "the entry was approved", decision_id
        )
        leg.cursor = state.tape(leg).index_at(time_ns)
        state.find_leg_event(leg)

    def _facts(self, signal: SignalEmitted, rules: TradingRules | None) -> EntryFacts:
        state, time_ns = self._account, signal.event_time_ns
        tape = state.timeline.tape((signal.venue, signal.symbol), state.horizon)
        newest = tape.before(time_ns) if tape is not None else None
        leg = state.legs.get((signal.strategy, signal.venue, signal.symbol))
        mark = state.mark(time_ns)
        pending_usd = reserved_usd = Decimal(0)
        for other in state.legs.values():
            remaining = other.entry.remaining
            if remaining:
                quantity = other.rules.size(remaining)
                pending_usd += quantity * other.entry.reference_price
                reserved_usd += quantity * other.reserve_unit_cost
        reference = exact_price(signal.close)
        unit_cost = None
        if rules is not None and reference is not None:
            spread_units = newest.spread_units if newest is not None else -1
            unit_cost = state.venue.unit_cost(rules, reference, spread_units)
        return EntryFacts(
            signal=signal,
            rules=rules,
            halted=state.halted,
            tick_age_ns=None if newest is None else time_ns - newest.time_ns,
            leg_state="none" if leg is None else "open" if leg.quantity else "pending",
            orders_in_last_minute=state.orders_in_last_minute(time_ns) + 1,
            positions=len(state.legs) + (leg is None),
            equity=mark.equity,
            day_start_equity=state.day_start_equity,
            peak_equity=mark.peak,
            gross_usd=mark.exposure + pending_usd,
            cash_free_usd=mark.cash - reserved_usd,
            reference=reference,
            unit_cost=unit_cost,
        )

    def _open_leg(
        self,
        signal: SignalEmitted,
        decision_id: str,
        rules: TradingRules,
        quantity: Decimal,
        unit_cost: Decimal,
    ) -> Leg:
        venue, time_ns = self._account.venue, signal.event_time_ns
        account = self._account.recorder.account
        reference, stop = exact_price(signal.close), exact_price(signal.stop_price)
        target, trail = exact_price(signal.target_price), exact_price(signal.trail_distance)
        assert reference is not None
        assert stop is not None
        entry = Order(
            order_id=derive_id("trade.orders", account, time_ns, 0, decision_id),
            client_order_id=client_order_id(decision_id),
            decision_id=decision_id,
            side=Side.BUY,
            kind=OrderKind.MARKET,
            purpose=OrderPurpose.ENTRY,
            quantity=int(quantity.scaleb(rules.size_decimals)),
            active_after_ns=time_ns + venue.latency_ns,
            reference_price=reference,
        )
        return Leg(
            key=(signal.strategy, signal.venue, signal.symbol),
            rules=rules,
            entry=entry,
            expires_ns=time_ns + venue.lifetime_ns,
            provenance=PROVENANCE_CODES.index(signal.provenance.value),
            reserve_unit_cost=unit_cost,
            stop_units=rules.price_units_up(stop),
            target_units=None if target is None else rules.price_units_up(target),
            trail_units=0 if trail is None else rules.price_units_up(trail),
        )

    def _decide_exit(self, signal: SignalEmitted, decision_id: str) -> None:
        """Approve what the position holds beyond an exit under way; end an entry under way."""
        state, time_ns = self._account, signal.event_time_ns
        leg = state.legs.get((signal.strategy, signal.venue, signal.symbol))
        free = 0
        if leg is not None:
            free = leg.quantity - (leg.exit.remaining if leg.exit is not None else 0)
        last = self._last_price(signal)
        reference = exact_price(signal.close) or last
        quantity = leg.rules.size(free) if leg is not None and free > 0 else Decimal(0)
        equity = state.mark(time_ns).equity
        outcome = _exit_outcome(signal, quantity, reference)
        state.recorder.decision(decision_id, signal, outcome, equity, reference)
        if leg is None:
            return
        self._matching.cancel_entry(leg, time_ns, "the strategy exits", decision_id)
        if free > 0:
            state.see_ticks(leg, state.tape(leg).index_at(time_ns))
            self._exits.submit_exit(leg, decision_id, time_ns, reference)
            state.find_leg_event(leg)

    def _last_price(self, signal: SignalEmitted) -> Decimal:
        state = self._account
        market = (signal.venue, signal.symbol)
        tape = state.timeline.tape(market, state.horizon)
        trade = tape.before(signal.event_time_ns) if tape is not None else None
        rules = state.timeline.rules_at(market, signal.event_time_ns)
        if trade is None or rules is None:
            return Decimal(0)
        return rules.price(trade.price_units)


def _exit_outcome(signal: SignalEmitted, quantity: Decimal, reference: Decimal) -> Verdicted:
    passed = quantity > 0
    reason = DenialReason.NO_POSITION.value
    check = CheckMeasured(
        check=reason,
        measured=f"{quantity:f}",
        limit="above 0",
        verdict=CheckVerdict.PASSED if passed else CheckVerdict.DENIED,
        reason="" if passed else reason,
    )
    if not passed:
        text = f"{reason}: measured {quantity:f} {signal.symbol} not yet being sold, limit above 0"
        return Verdicted(Verdict.DENIED, reason, text, quantity, [check])
    text = f"sell {quantity:f} {signal.symbol} near {reference:f}: {signal.reason or 'exit'}"
    return Verdicted(Verdict.APPROVED, "", text, quantity, [check])
