"""What a fill cost, derived again from the trade it names, the listing and the recorded settings.

A taker pays the trade's price half a spread worse, rounded against the order: half of the quoted
spread where the market is quoted, else `paper.half_spread_bps`. A stop that a continuous path crosses
fills from its level. A maker gets its limit. The fee is the listing's share of the notional.
"""

from collections import defaultdict
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from math import ceil, floor, isclose

from infra.audit.evidence import Evidence, Fact
from infra.audit.ledger import WIDE, rounded
from infra.audit.prices import Print, TradePrices
from infra.audit.report import Check
from schemas.fields import Provenance, Side
from schemas.market import InstrumentListed
from schemas.settings import TIMEFRAME_NS, PaperSettings
from schemas.ticks import PROVENANCE_CODES
from schemas.trading import OrderFilled, OrderPurpose, OrderUpdated

MAKER = "maker"
MILLISECOND_NS = 1_000_000
FEE_PLACES = Decimal("1e-8")
TICKS_OF_A_BAR = 4
"""A rebuilt bar has its trades on the quarters of its interval."""

_BPS = 10_000
_RECONSTRUCTED = PROVENANCE_CODES.index(Provenance.RECONSTRUCTED)
_SENT_BY_DECISION = frozenset({OrderPurpose.ENTRY, OrderPurpose.EXIT})


def worsened(
    side: Side, base: Decimal, spread: Decimal | None, paper: PaperSettings, decimals: int
) -> Decimal:
    """Return the price that a taker gets on a trade at `base`; no `spread` takes the settings'."""
    units = int(base.scaleb(decimals))
    if spread is None:
        half = units * Fraction(paper.half_spread_bps) / _BPS
    else:
        half = Fraction(ceil(Fraction(int(spread.scaleb(decimals)), 2)))
    worse = ceil(units + half) if side is Side.BUY else max(1, floor(units - half))
    return Decimal(worse).scaleb(-decimals)


def fee_of(fill: OrderFilled, listing: InstrumentListed) -> Decimal:
    """Return the venue's fee, rounded up to 8 decimals."""
    rate_bps = listing.maker_fee_bps if fill.liquidity == MAKER else listing.taker_fee_bps
    rounding = ROUND_CEILING if fill.side is Side.BUY else ROUND_FLOOR
    notional = rounded(WIDE.multiply(fill.quantity, fill.price), rounding)
    fee = WIDE.multiply(notional, Decimal(repr(rate_bps)) / _BPS)
    return fee.quantize(FEE_PLACES, ROUND_CEILING, WIDE)


def is_one_path(earlier: Print | None, later: Print) -> bool:
    """Return whether two successive trades were rebuilt from one bar, so that prices between count."""
    if earlier is None or {earlier.provenance, later.provenance} != {_RECONSTRUCTED}:
        return False
    return any(
        earlier.time_ns // length == later.time_ns // length
        and earlier.time_ns * TICKS_OF_A_BAR % length == 0
        and later.time_ns * TICKS_OF_A_BAR % length == 0
        for length in TIMEFRAME_NS.values()
    )


class FillAudit:
    """Looks at the price, the fee and the provenance of every fill."""

    def __init__(
        self, costs: Check, provenances: Check, evidence: Evidence, prices: TradePrices | None
    ) -> None:
        """Record into `costs` and `provenances`; `prices` is None where the log holds not all ticks."""
        self._costs, self._provenances = costs, provenances
        self._evidence, self._prices = evidence, prices
        self._decisions = {fact.message.id: fact.message for fact in evidence.decisions}
        self._updates: dict[str, list[OrderUpdated]] = defaultdict(list)
        for fact in evidence.orders:
            self._updates[fact.message.order_id].append(fact.message)
        self._filled: set[str] = set()

    def run(self) -> None:
        """Check every fill."""
        for fact in self._evidence.fills:
            self._costs.rows += 1
            self._provenances.rows += 1
            self._check_provenance(fact)
            order = self._order_at(fact.message)
            if order is None:  # The chain check says so.
                continue
            self._check_latency(fact)
            self._check_price(fact, order)
            self._check_fee(fact)
            self._check_slippage(fact, order)
            self._filled.add(fact.message.order_id)
        if self._prices is None:
            reason = "without all ticks a fill was held against the trade price that it states"
            self._costs.skip(reason)
            self._provenances.skip("without all ticks fills were not held against their trades")

    def _order_at(self, fill: OrderFilled) -> OrderUpdated | None:
        """Return the order as it stood when it filled."""
        known = self._updates.get(fill.order_id, [])
        return next(
            (each for each in reversed(known) if each.event_time_ns <= fill.event_time_ns), None
        )

    def _trades(self, fill: OrderFilled) -> list[tuple[Print | None, Print]]:
        """Return the trades that a fill may mean, each after the one before it."""
        if self._prices is None:
            return []
        at = self._prices.at((fill.venue, fill.symbol), fill.event_time_ns)
        return [pair for pair in at if pair[1].price == fill.tick_price]

    def _check_provenance(self, fact: Fact[OrderFilled]) -> None:
        fill, place, check = fact.message, fact.place, self._provenances
        own = Provenance(fill.provenance)
        allowed = self._evidence.settings_of(fact.config).portfolio.provenances
        if own is Provenance.SYNTHETIC:
            rule = "nothing synthetic fills an order"
            check.violate(rule, place, fill.id, allowed, own.value)
        elif fill.purpose is OrderPurpose.ENTRY and own.value not in allowed:
            rule = "only allowed provenances fill an entry"
            check.violate(rule, place, fill.id, allowed, own.value)
        decision = self._decisions.get(fill.decision_id)
        at_best = [] if decision is None else [Provenance(decision.provenance).value]
        codes = [trade.provenance for _, trade in self._trades(fill)]
        at_best += [PROVENANCE_CODES[max(codes)]] if codes else []
        for origin in at_best:
            if PROVENANCE_CODES.index(own.value) > PROVENANCE_CODES.index(origin):
                rule = "a fill is worth no more than its decision and its trade"
                check.violate(rule, place, fill.id, f"at best {origin}", own.value)

    def _check_latency(self, fact: Fact[OrderFilled]) -> None:
        """What a decision at T sends fills on trades after T and the latency."""
        fill = fact.message
        decision = self._decisions.get(fill.decision_id)
        if decision is None or fill.purpose not in _SENT_BY_DECISION:
            return
        latency_ns = self._evidence.settings_of(fact.config).paper.latency_ms * MILLISECOND_NS
        after_ns = decision.event_time_ns + latency_ns
        if fill.event_time_ns <= after_ns:
            rule = "a decision fills only after the latency"
            found = fill.event_time_ns
            self._costs.violate(rule, fact.place, fill.id, f"later than {after_ns}", found)

    def _check_price(self, fact: Fact[OrderFilled], order: OrderUpdated) -> None:
        fill = fact.message
        listings = self._evidence.listings_of((fill.venue, fill.symbol))
        if fill.liquidity == MAKER:
            expected = {order.limit_price}
            if order.limit_price is None or fill.tick_price <= order.limit_price:
                rule = "a target fills once a trade goes through its limit"
                wanted = f"above {order.limit_price}"
                self._costs.violate(rule, fact.place, fill.id, wanted, fill.tick_price)
        else:
            bases = self._bases(fill, order)
            if bases is None:
                return
            paper = self._evidence.settings_of(fact.config).paper
            expected = {
                worsened(Side(fill.side), base, spread, paper, listing.price_decimals)
                for base, spread in bases
                for listing in listings
            }
        if expected and fill.price not in expected:
            rule = "the price follows from the trade, the spread and the side"
            wanted = " or ".join(sorted(map(str, expected)))
            self._costs.violate(rule, fact.place, fill.id, wanted, fill.price)

    def _bases(
        self, fill: OrderFilled, order: OrderUpdated
    ) -> set[tuple[Decimal, Decimal | None]] | None:
        """Return the prices to start from, each with its quoted spread; None if they are unknown."""
        level = order.stop_price
        stops = fill.purpose is OrderPurpose.PROTECTIVE_STOP and level is not None
        if self._prices is not None:
            found = set()
            for before, trade in self._trades(fill):
                for base in (
                    self._stop_bases(fill, before, trade, level) if stops else {trade.price}
                ):
                    found.add((base, trade.spread))
            return found
        if (fill.venue, fill.symbol) in self._evidence.quoted:
            self._costs.skip("without all ticks prices of quoted markets were not derived")
            return None
        bases = {fill.tick_price}
        if stops and level is not None and fill.tick_price <= level:
            bases |= {level} if fill.provenance is Provenance.RECONSTRUCTED else set()
        return {(base, None) for base in bases}

    def _stop_bases(
        self, fill: OrderFilled, before: Print | None, trade: Print, level: Decimal | None
    ) -> set[Decimal]:
        """A stop fills from its level where the path to the trade crosses it, and only at first."""
        crosses = before is not None and level is not None and before.price > level >= trade.price
        if level is None or not (crosses and is_one_path(before, trade)):
            return {trade.price}
        assert self._prices is not None
        placed_ns = self._updates[fill.order_id][0].event_time_ns
        market = (fill.venue, fill.symbol)
        lowest = self._prices.lowest_between(market, placed_ns, fill.event_time_ns)
        if fill.order_id not in self._filled and (lowest is None or lowest > level):
            return {level}
        # A trade too small to fill may have triggered it before, or the level was lower then.
        return {level, trade.price}

    def _check_fee(self, fact: Fact[OrderFilled]) -> None:
        fill = fact.message
        listings = self._evidence.listings_of((fill.venue, fill.symbol))
        expected = {(fee_of(fill, each), each.quote_currency) for each in listings}
        if (fill.fee, fill.fee_currency) not in expected:
            rule = "the fee follows from the price, the quantity and the listing"
            wanted = " or ".join(sorted(f"{fee} {currency}" for fee, currency in expected))
            found = f"{fill.fee} {fill.fee_currency}"
            self._costs.violate(rule, fact.place, fill.id, wanted, found)

    def _check_slippage(self, fact: Fact[OrderFilled], order: OrderUpdated) -> None:
        """Slippage is measured against the decision, of protective orders against their level."""
        fill = fact.message
        decision = self._decisions.get(fill.decision_id)
        if fill.purpose in _SENT_BY_DECISION:
            reference = decision.reference_price if decision is not None else None
        else:
            reference = order.stop_price or order.limit_price
        if not reference:
            return
        worse = fill.price - reference if fill.side is Side.BUY else reference - fill.price
        expected = float(WIDE.divide(worse * _BPS, reference))
        if not isclose(expected, fill.slippage_bps, rel_tol=1e-12, abs_tol=1e-12):
            rule = "slippage is the price against the reference"
            self._costs.violate(rule, fact.place, fill.id, expected, fill.slippage_bps)
