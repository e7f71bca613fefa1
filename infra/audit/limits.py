"""The limits of the account (I5), held again at every approved entry over the prefix before it.

What was pending at that moment counts as filled. Where the log cannot tell which of two things at the
same nanosecond came first, the reading that leaves more room counts: no false alarm.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from infra.audit.evidence import Evidence, Fact
from infra.audit.identity import Key, sent_order_id
from infra.audit.ledger import WIDE, rounded
from infra.audit.prices import TradePrices
from infra.audit.report import Check
from infra.settings import Settings
from schemas.fields import Action, Provenance, Side
from schemas.settings import PortfolioSettings
from schemas.signals import SignalEmitted
from schemas.trading import (
    DecisionMade,
    DenialReason,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    Verdict,
)

MINUTE_NS = 60_000_000_000
_NUMBERS_AT_MOST = frozenset(
    {
        DenialReason.STALE.value,
        DenialReason.ORDER_RATE.value,
        DenialReason.DAILY_LOSS.value,
        DenialReason.DRAWDOWN.value,
        DenialReason.POSITION_COUNT.value,
        DenialReason.POSITION_NOTIONAL.value,
        DenialReason.GROSS_NOTIONAL.value,
        DenialReason.CASH.value,
    }
)
"""Checks that pass while the measured number is at most the limit."""

_NUMBERS_AT_LEAST = frozenset(
    {
        DenialReason.WARMING_UP.value,
        DenialReason.VOTE_AGAINST.value,
        DenialReason.LOT_SIZE.value,
        DenialReason.NOTIONAL_MIN.value,
    }
)

_SILENCES = frozenset({"no models", "no opinion"})
"""What the vote measures in words: nobody to ask, or nobody who said anything."""


@dataclass
class Pending:
    """An entry order under way."""

    remaining: Decimal
    reference_price: Decimal


class LimitAudit:
    """Goes through decisions, fills and order updates of one account in event-time order."""

    def __init__(
        self, check: Check, evidence: Evidence, prices: TradePrices | None, account: str
    ) -> None:
        self._check, self._evidence, self._prices = check, evidence, prices
        self._signals = {fact.message.id: fact.message for fact in evidence.signals}
        self._decisions = [fact for fact in evidence.decisions if fact.message.account == account]
        self._orders = [fact.message for fact in evidence.orders if fact.message.account == account]
        self._fills = [fact.message for fact in evidence.fills if fact.message.account == account]
        self._sent_ns = sorted(
            order.event_time_ns for order in self._orders if order.status is OrderStatus.SUBMITTED
        )
        self._held: dict[Key, Decimal] = defaultdict(Decimal)
        self._pending: dict[str, Pending] = {}
        self._legs_of: dict[str, Key] = {}
        self._cash = Decimal(0)

    def run(self) -> None:
        """Check every approved entry, and what every decision says of its own checks."""
        if not self._decisions:
            return
        settings = self._evidence.settings_of(self._decisions[0].config)
        self._cash = settings.portfolio.starting_cash_usd
        cancels = sorted(
            (
                order
                for order in self._orders
                if order.purpose is OrderPurpose.ENTRY and order.status is OrderStatus.CANCELLED
            ),
            key=lambda order: order.event_time_ns,
        )
        filled = cancelled = 0
        for fact in self._decisions:
            time_ns = fact.message.event_time_ns
            while filled < len(self._fills) and self._fills[filled].event_time_ns < time_ns:
                self._fill(filled)
                filled += 1
            while cancelled < len(cancels) and cancels[cancelled].event_time_ns <= time_ns:
                self._cancel(cancels[cancelled])
                cancelled += 1
            self._check.rows += 1
            self._check_measures(fact)
            if fact.message.verdict is not Verdict.DENIED and fact.message.action is Action.ENTER:
                self._check_entry(fact)

    def _fill(self, number: int) -> None:
        fill = self._fills[number]
        key = (fill.account, fill.strategy, fill.venue, fill.symbol)
        buys = fill.side is Side.BUY
        notional = WIDE.multiply(fill.quantity, fill.price)
        self._cash += (-notional if buys else notional) - fill.fee
        self._held[key] += fill.quantity if buys else -fill.quantity
        pending = self._pending.get(fill.order_id)
        if pending is not None:
            pending.remaining -= fill.quantity
            if pending.remaining <= 0:
                del self._pending[fill.order_id]

    def _cancel(self, order: OrderUpdated) -> None:
        self._pending.pop(order.order_id, None)

    def _check_measures(self, fact: Fact[DecisionMade]) -> None:
        """A passed check must be within the limit that it states itself."""
        for each in fact.message.checks:
            at_most, at_least = each.check in _NUMBERS_AT_MOST, each.check in _NUMBERS_AT_LEAST
            if each.verdict.value != "passed" or not (at_most or at_least):
                continue
            if each.check == DenialReason.VOTE_AGAINST.value and each.measured in _SILENCES:
                continue  # Whether silence was enough is asked of the signal itself.
            measured, limit = Decimal(each.measured), Decimal(each.limit)
            if not (measured <= limit if at_most else measured >= limit):
                rule = "a passed check is within its limit"
                key = f"{fact.message.id}/{each.check}"
                self._check.violate(rule, fact.place, key, each.limit, each.measured)

    def _check_entry(self, fact: Fact[DecisionMade]) -> None:
        made = fact.message
        settings = self._evidence.settings_of(fact.config)
        portfolio = settings.portfolio
        notional = WIDE.multiply(made.quantity, made.reference_price)
        self._at_most(
            fact, "position notional", notional,
            made.equity * portfolio.position_notional_max_pct / 100,
        )  # fmt: skip
        pending = sum(
            (
                WIDE.multiply(each.remaining, each.reference_price)
                for each in self._pending.values()
            ),
            Decimal(0),
        )
        exposure = self._exposure(made)
        gross_max = made.equity * portfolio.gross_notional_max_pct / 100
        self._at_most(fact, "gross notional", exposure + pending + notional, gross_max)
        self._at_most(fact, "cash", pending + notional, self._cash)
        legs = {key for key, quantity in self._held.items() if quantity}
        legs |= {self._legs_of[order_id] for order_id in self._pending}
        key = (made.account, made.strategy, made.venue, made.symbol)
        if key in legs:
            self._violate(
                fact, "one leg at a time per strategy and symbol", "no leg", "/".join(key)
            )
        self._at_most(fact, "positions", Decimal(len(legs) + 1), Decimal(portfolio.positions_max))
        self._check_rate(fact, portfolio)
        self._check_signal(fact, settings)
        self._check_grid(fact, notional)
        self._check_equity(fact, exposure)
        order_id = sent_order_id(made.account, made.event_time_ns, made.id)
        self._pending[order_id] = Pending(made.quantity, made.reference_price)
        self._legs_of[order_id] = key

    def _exposure(self, made: DecisionMade) -> Decimal:
        """Return what the positions are worth before the decision; by its own word without ticks."""
        if self._prices is None:
            return made.equity - self._cash
        worth = Decimal(0)
        for key, quantity in self._held.items():
            price = self._prices.before((key[2], key[3]), made.event_time_ns) if quantity else None
            if price is not None:
                worth += rounded(WIDE.multiply(quantity, price), "ROUND_FLOOR")
        return worth

    def _check_equity(self, fact: Fact[DecisionMade], exposure: Decimal) -> None:
        equity = self._cash + exposure
        if self._prices is not None and equity != fact.message.equity:
            rule = "equity of a decision is cash and positions at the last prices"
            self._violate(fact, rule, equity, fact.message.equity)

    def _check_rate(self, fact: Fact[DecisionMade], portfolio: PortfolioSettings) -> None:
        time_ns = fact.message.event_time_ns
        first = bisect_right(self._sent_ns, time_ns - MINUTE_NS)
        sent = bisect_left(self._sent_ns, time_ns) - first
        limit = Decimal(portfolio.orders_per_minute_max)
        self._at_most(fact, "orders within a minute", Decimal(sent + 1), limit)

    def _check_signal(self, fact: Fact[DecisionMade], settings: Settings) -> None:
        portfolio, score_min = settings.portfolio, settings.vote.score_min
        signal = self._signals.get(fact.message.cause)
        if signal is None:  # The chain check says so.
            return
        provenance = Provenance(signal.provenance)
        if provenance is Provenance.SYNTHETIC or provenance.value not in portfolio.provenances:
            rule = "only allowed provenances open a position"
            self._violate(fact, rule, portfolio.provenances, provenance.value)
        if not signal.score >= score_min:
            self._violate(fact, "an entry has the votes", f"at least {score_min}", signal.score)
        asked = any(model.enabled for model in settings.models.values())
        if asked and settings.vote.opinion_required and signal.probability_buy is None:
            rule = "an entry has an opinion where models are to give one"
            self._violate(fact, rule, "a pooled opinion", signal.probability_buy)
        if not _has_stop(signal):
            self._violate(fact, "an entry has a stop below its price", signal.close,
                          signal.stop_price)  # fmt: skip

    def _check_grid(self, fact: Fact[DecisionMade], notional: Decimal) -> None:
        made = fact.message
        listing = self._evidence.listings.get((made.venue, made.symbol))
        if listing is None:
            return
        if not made.quantity >= listing.lot_size or made.quantity % listing.lot_size:
            rule = "a quantity is a whole number of lots"
            self._violate(fact, rule, f"multiple of {listing.lot_size}", made.quantity)
        if not notional >= listing.notional_min:
            self._violate(fact, "notional is at least the minimum", listing.notional_min, notional)

    def _at_most(self, fact: Fact[DecisionMade], name: str, found: Decimal, limit: Decimal) -> None:
        if not found <= limit:
            self._violate(fact, f"{name} stays within its limit", f"at most {limit}", found)

    def _violate(
        self, fact: Fact[DecisionMade], rule: str, expected: object, found: object
    ) -> None:
        self._check.violate(rule, fact.place, fact.message.id, expected, found)


def _has_stop(signal: SignalEmitted) -> bool:
    return signal.stop_price is not None and 0 < signal.stop_price < signal.close
