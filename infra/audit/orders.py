"""Orders and fills: a legal life (I17), true quantities, no fill that could not have happened (I14)."""

from collections import defaultdict
from decimal import Decimal

from infra.audit.evidence import Evidence, Fact
from infra.audit.prices import TradePrices
from infra.audit.report import Check
from schemas.fields import Side
from schemas.trading import OrderFilled, OrderKind, OrderPurpose, OrderStatus, OrderUpdated

MILLISECOND_NS = 1_000_000
TERMINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED})
_FILLED = frozenset({OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED})
_CONSTANT = (
    "client_order_id", "decision_id", "account", "strategy", "venue", "symbol", "side", "kind",
    "purpose", "reduce_only",
)  # fmt: skip


class OrderAudit:
    """Replays every order from its updates and its fills."""

    def __init__(self, check: Check, evidence: Evidence, prices: TradePrices | None) -> None:
        self._check, self._evidence, self._prices = check, evidence, prices
        self._last: dict[str, Fact[OrderUpdated]] = {}
        self._first: dict[str, OrderUpdated] = {}
        self._filled: dict[str, Decimal] = defaultdict(Decimal)
        self._fills = {fact.message.id: fact.message for fact in evidence.fills}
        self._claimed: set[str] = set()

    def run(self) -> None:
        """Check every update, then every fill, then that both add up."""
        for fact in self._evidence.orders:
            self._check.rows += 1
            self._check_update(fact)
        totals: dict[str, Decimal] = defaultdict(Decimal)
        for fill in self._evidence.fills:
            self._check.rows += 1
            totals[fill.message.order_id] += fill.message.quantity
            self._check_fill(fill)
        for order_id, fact in self._last.items():
            rule = "the fills of an order add up to its filled quantity"
            expected, found = totals[order_id], fact.message.filled_quantity
            self._check.require(rule, fact.place, order_id, expected, found)
        self._check_open_protection()

    def _check_update(self, fact: Fact[OrderUpdated]) -> None:
        update, place = fact.message, fact.place
        key = f"{update.order_id}/{update.sequence}"
        previous = self._last.get(update.order_id)
        if previous is None:
            self._first[update.order_id] = update
            first = (0, OrderStatus.SUBMITTED, Decimal(0))
            found = (update.sequence, update.status, update.filled_quantity)
            self._check.require("an order begins submitted", place, key, first, found)
        else:
            self._check_step(fact, previous.message, key)
        self._last[update.order_id] = fact
        if not 0 <= update.filled_quantity <= update.quantity:
            rule = "an order fills at most its quantity"
            self._check.violate(rule, place, key, update.quantity, update.filled_quantity)
        if update.reduce_only is (update.purpose is OrderPurpose.ENTRY):
            rule = "every order but an entry only reduces"
            self._check.violate(rule, place, key, not update.reduce_only, update.reduce_only)
        self._check_filling(fact, key)

    def _check_step(self, fact: Fact[OrderUpdated], before: OrderUpdated, key: str) -> None:
        update, place, check = fact.message, fact.place, self._check
        rule = "updates of an order are numbered without a gap"
        check.require(rule, place, key, before.sequence + 1, update.sequence)
        if before.status in TERMINAL:
            rule = "a terminal state stays"
            check.violate(rule, place, key, before.status.value, update.status.value)
        if update.status is OrderStatus.SUBMITTED:
            check.violate("an order is submitted once", place, key, "another state", "submitted")
        if update.filled_quantity < before.filled_quantity:
            rule = "filled quantity never falls"
            check.violate(rule, place, key, before.filled_quantity, update.filled_quantity)
        if update.event_time_ns < before.event_time_ns:
            rule = "updates of an order never go back in time"
            check.violate(rule, place, key, before.event_time_ns, update.event_time_ns)
        if update.quantity != before.quantity and update.status is not OrderStatus.AMENDED:
            rule = "only an amendment changes the quantity"
            check.violate(rule, place, key, before.quantity, update.quantity)
        for name in _CONSTANT:
            want, have = getattr(before, name), getattr(update, name)
            check.require(f"{name} of an order never changes", place, key, want, have)

    def _check_filling(self, fact: Fact[OrderUpdated], key: str) -> None:
        """A filling update names its fill; all others leave the filled quantity as it was."""
        update, place = fact.message, fact.place
        filling = update.status in _FILLED
        fill = self._fills.get(update.cause) if filling else None
        if filling and (fill is None or fill.order_id != update.order_id):
            rule = "a filling update is caused by a fill of its order"
            self._check.violate(rule, place, key, "a fill", update.cause)
        if fill is not None:
            if fill.id in self._claimed:
                rule = "a fill is applied once"
                self._check.violate(rule, place, key, "1 update", fill.id)
            self._claimed.add(fill.id)
            self._filled[update.order_id] += fill.quantity
        total = self._filled[update.order_id]
        rule = "filled quantity is the sum of the fills so far"
        self._check.require(rule, place, key, total, update.filled_quantity)
        whole = update.filled_quantity == update.quantity
        if filling and whole is not (update.status is OrderStatus.FILLED):
            rule = "an order is filled when its whole quantity is"
            self._check.violate(rule, place, key, update.quantity, update.status.value)

    def _check_fill(self, fact: Fact[OrderFilled]) -> None:
        fill, place, check = fact.message, fact.place, self._check
        if fill.id not in self._claimed:
            rule = "a fill changes its order"
            check.violate(rule, place, fill.id, "1 update", "none")
        if not (fill.quantity > 0 and fill.price > 0 and fill.fee >= 0):
            rule = "quantity and price are positive and a fee is not negative"
            found = (fill.quantity, fill.price, fill.fee)
            check.violate(rule, place, fill.id, "positive", found)
        order = self._first.get(fill.order_id)
        if order is None:  # The chain check says so.
            return
        paper = self._evidence.settings_of(fact.config).paper
        waits_ns = paper.latency_ms * MILLISECOND_NS if order.kind is OrderKind.MARKET else 0
        after_ns = order.event_time_ns + waits_ns
        if fill.event_time_ns <= after_ns:
            rule = "a fill comes after its order has reached the venue"
            check.violate(rule, place, fill.id, f"later than {after_ns}", fill.event_time_ns)
        if self._prices is not None:
            self._check_trade(fact, paper.participation_max)

    def _check_trade(self, fact: Fact[OrderFilled], participation_max: Decimal) -> None:
        """A fill takes a share of a trade that happened, at a price that is no better."""
        fill, place, check = fact.message, fact.place, self._check
        assert self._prices is not None
        trades = self._prices.at((fill.venue, fill.symbol), fill.event_time_ns)
        sizes = [trade.size for _, trade in trades if trade.price == fill.tick_price]
        if not sizes:
            rule = "a fill happens on a trade of its symbol"
            prices = [str(trade.price) for _, trade in trades]
            check.violate(rule, place, fill.id, f"one of {prices}", fill.tick_price)
        elif fill.quantity > max(sizes) * participation_max:
            rule = "a fill takes at most its share of the trade"
            check.violate(rule, place, fill.id, max(sizes) * participation_max, fill.quantity)

    def _check_open_protection(self) -> None:
        """At the end the working stops cover exactly what each leg holds (I6)."""
        held: dict[tuple[str, str, str, str], Decimal] = defaultdict(Decimal)
        covered: dict[tuple[str, str, str, str], Decimal] = defaultdict(Decimal)
        places = {}
        for fact in self._evidence.fills:
            fill = fact.message
            key = (fill.account, fill.strategy, fill.venue, fill.symbol)
            held[key] += fill.quantity if fill.side is Side.BUY else -fill.quantity
            places[key] = fact.place
        for update in self._last.values():
            order = update.message
            stop = order.purpose is OrderPurpose.PROTECTIVE_STOP
            if stop and order.status not in TERMINAL:
                key = (order.account, order.strategy, order.venue, order.symbol)
                covered[key] += order.quantity - order.filled_quantity
                places.setdefault(key, update.place)
        for key in sorted(held.keys() | covered.keys()):
            rule = "working stops cover the position"
            self._check.require(rule, places[key], "/".join(key), held[key], covered[key])
