"""The ledger from fills alone (I2, I3, I6): cash, positions, worth and outcomes, to the last digit.

Money is USD; quote currencies count one to one. A purchase costs notional and fee, a sale brings
notional less fee; notionals keep 12 decimals and are rounded against the account. A leg relieves its
average cost; its last sale takes what is left.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from math import isclose

from infra.audit.evidence import Evidence, Fact
from infra.audit.identity import Key
from infra.audit.prices import TradePrices
from infra.audit.report import Check
from schemas.fields import Side
from schemas.trading import OrderFilled, OrderPurpose, OutcomeClosed, PositionChanged

WIDE = Context(prec=100)
PLACES = Decimal("1e-12")
ZERO = Decimal(0)


@dataclass
class LegBook:
    """What the fills of one leg add up to."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    fees: Decimal = ZERO
    bought: Decimal = ZERO
    paid: Decimal = ZERO
    received: Decimal = ZERO
    entry_ns: int = 0
    entry_decision: str = ""
    buys: int = 0
    sells: int = 0


def rounded(amount: Decimal, rounding: str) -> Decimal:
    """Return `amount` with at most 12 decimals."""
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    return amount if exponent >= -12 else amount.quantize(PLACES, rounding, WIDE)


def per_unit(amount: Decimal, quantity: Decimal) -> Decimal:
    """Return `amount / quantity` to 12 decimals, 0 for no quantity."""
    if not quantity:
        return ZERO
    return WIDE.divide(amount, quantity).quantize(PLACES, ROUND_HALF_EVEN, WIDE)


class LedgerAudit:
    """Books the fills of one account and holds positions and outcomes against the result."""

    def __init__(
        self,
        checks: tuple[Check, Check],
        evidence: Evidence,
        prices: TradePrices | None,
        account: str,
    ) -> None:
        """`checks`: of positions, of outcomes."""
        self._check, self._outcomes = checks
        self._evidence, self._prices, self._account = evidence, prices, account
        self._legs: dict[Key, LegBook] = {}
        self.cash = self.realised = ZERO
        self._peak = ZERO

    def run(self) -> None:
        """Replay fills and positions in their order; the log keeps one account's in one partition."""
        owner, evidence = self._account, self._evidence
        fills = [fact for fact in evidence.fills if fact.message.account == owner]
        positions = [fact for fact in evidence.positions if fact.message.account == owner]
        decisions = [fact for fact in evidence.decisions if fact.message.account == owner]
        outcomes = {
            fact.message.cause: fact for fact in evidence.outcomes if fact.message.account == owner
        }
        first: list[Fact[object]] = [*decisions[:1], *positions[:1]]  # type: ignore[list-item]
        if not first:
            return
        start = evidence.settings_of(first[0].config).portfolio.starting_cash_usd
        self.cash = self._peak = start
        booked = 0
        equities = [(made.message.event_time_ns, made.message.equity) for made in decisions]
        marks = self._mark_ranks(positions)
        decided = 0
        for number, fact in enumerate(positions):
            position = fact.message
            # A mark comes before the decisions of its moment, what a tick did after them.
            through_ns = position.event_time_ns - (number in marks)
            while decided < len(equities) and equities[decided][0] <= through_ns:
                self._peak = max(self._peak, equities[decided][1])
                decided += 1
            if booked < len(fills) and fills[booked].message.id == position.cause:
                self._book(fills[booked], outcomes)
                booked += 1
            self._check_position(fact)
        for fill in fills[booked:]:
            rule = "a fill changes a position, in the order of the fills"
            self._check.violate(rule, fill.place, fill.message.id, "a position", "none in its turn")
        for left in outcomes.values():
            rule = "an outcome is a leg that its fills closed"
            self._outcomes.violate(rule, left.place, left.message.id, "no outcome", left.message)

    @staticmethod
    def _mark_ranks(positions: list[Fact[PositionChanged]]) -> set[int]:
        """Return which rows belong to a mark: the mark itself and the rows of its moment before it."""
        found: set[int] = set()
        for number, fact in enumerate(positions):
            if fact.message.strategy:
                continue
            back, time_ns = number, fact.message.event_time_ns
            while back >= 0 and positions[back].message.event_time_ns == time_ns:
                found.add(back)
                back -= 1
        return found

    def _book(self, fact: Fact[OrderFilled], outcomes: dict[str, Fact[OutcomeClosed]]) -> None:
        fill = fact.message
        key = (fill.account, fill.strategy, fill.venue, fill.symbol)
        leg = self._legs.setdefault(key, LegBook())
        product = WIDE.multiply(fill.quantity, fill.price)
        if fill.side is Side.BUY:
            notional = rounded(product, ROUND_CEILING)
            if not leg.buys:
                leg.entry_ns, leg.entry_decision = fill.event_time_ns, fill.decision_id
            leg.buys += 1
            leg.quantity += fill.quantity
            leg.bought += fill.quantity
            leg.cost += notional
            leg.paid += notional
            self.cash -= notional + fill.fee
        else:
            notional = rounded(product, ROUND_FLOOR)
            relieved = leg.cost
            if fill.quantity < leg.quantity:
                share = WIDE.divide(WIDE.multiply(leg.cost, fill.quantity), leg.quantity)
                relieved = rounded(share, ROUND_HALF_EVEN)
            leg.sells += 1
            leg.quantity -= fill.quantity
            leg.cost -= relieved
            leg.realised += notional - relieved
            leg.received += notional
            self.realised += notional - relieved
            self.cash += notional - fill.fee
        leg.fees += fill.fee
        self.realised -= fill.fee
        if leg.quantity < 0:
            rule = "a sale never exceeds the position"
            self._check.violate(rule, fact.place, fill.id, "at least 0", leg.quantity)
        if self.cash < 0:
            rule = "cash is never negative"
            self._check.violate(rule, fact.place, fill.id, "at least 0", self.cash)
        if not leg.quantity and fill.side is Side.SELL:
            self._close(fact, leg, outcomes.pop(fill.id, None))

    def _close(
        self, fact: Fact[OrderFilled], leg: LegBook, found: Fact[OutcomeClosed] | None
    ) -> None:
        fill, check = fact.message, self._outcomes
        check.rows += 1
        if found is None:
            rule = "a closed leg has one outcome"
            check.violate(rule, fact.place, fill.id, "an outcome", "none")
            return
        gross = leg.received - leg.paid
        net = gross - leg.fees
        exits = fill.purpose is OrderPurpose.EXIT
        expected: dict[str, object] = {
            "entry_decision_id": leg.entry_decision,
            "exit_decision_id": fill.decision_id if exits else "",
            "entry_time_ns": leg.entry_ns,
            "holding_ns": fill.event_time_ns - leg.entry_ns,
            "quantity": leg.bought,
            "entry_price": per_unit(leg.paid, leg.bought),
            "exit_price": per_unit(leg.received, leg.bought),
            "gross_pnl": gross,
            "fees": leg.fees,
            "net_pnl": net,
            "exit_reason": OrderPurpose(fill.purpose).value,
            "entry_fills": leg.buys,
            "exit_fills": leg.sells,
        }
        outcome = found.message
        for name, value in expected.items():
            rule = f"{name} of an outcome follows from the fills"
            check.require(rule, found.place, outcome.id, value, getattr(outcome, name))
        share_pct = float(WIDE.divide(net * 100, leg.paid)) if leg.paid else 0.0
        if not isclose(share_pct, outcome.return_pct, rel_tol=1e-12, abs_tol=1e-12):
            rule = "return_pct of an outcome follows from the fills"
            check.violate(rule, found.place, outcome.id, share_pct, outcome.return_pct)

    def _check_position(self, fact: Fact[PositionChanged]) -> None:
        position = fact.message
        self._check.rows += 1
        key = (position.account, position.strategy, position.venue, position.symbol)
        leg = self._legs.get(key, LegBook())
        expected: dict[str, object] = {
            "cash": self.cash,
            "quantity": leg.quantity,
            "average_price": per_unit(leg.cost, leg.quantity),
            "realised_pnl": leg.realised - leg.fees if position.strategy else self.realised,
            "protected_quantity": leg.quantity,
        }
        for name, value in expected.items():
            self._require(fact, f"{name} follows from the fills", value, getattr(position, name))
        if leg.quantity and position.stop_price is None:
            self._require(fact, "a position has a stop", "a price", None)
        self._check_worth(fact)
        if not leg.quantity:
            self._legs.pop(key, None)

    def _check_worth(self, fact: Fact[PositionChanged]) -> None:
        position = fact.message
        equity = self.cash + position.exposure
        self._require(fact, "equity is cash and exposure", equity, position.equity)
        held = [(key, leg) for key, leg in self._legs.items() if leg.quantity]
        if not held:
            self._require(fact, "no position, no exposure", ZERO, position.exposure)
        elif self._prices is not None:
            self._check_exposure(fact, held)
        self._peak = max(self._peak, position.equity)
        self._require(fact, "peak_equity is the highest so far", self._peak, position.peak_equity)
        drawdown = float(WIDE.divide((self._peak - position.equity) * 100, self._peak))
        if not isclose(drawdown, position.drawdown_pct, rel_tol=1e-12, abs_tol=1e-12):
            self._require(fact, "drawdown_pct is the fall from the peak", drawdown,
                          position.drawdown_pct)  # fmt: skip

    def _check_exposure(self, fact: Fact[PositionChanged], held: list[tuple[Key, LegBook]]) -> None:
        """Value every leg at the last trade before, its own market at the trade of this moment."""
        assert self._prices is not None
        position, time_ns = fact.message, fact.message.event_time_ns
        market = (position.venue, position.symbol)
        own: list[Decimal | None] = [self._prices.before(market, time_ns)]
        if position.strategy:
            own += [trade.price for _, trade in self._prices.at(market, time_ns)]
        candidates = []
        for price in own:
            worth: Decimal | None = ZERO
            for key, leg in held:
                mine = key[2:] == market
                at = price if mine else self._prices.before((key[2], key[3]), time_ns)
                if at is None or worth is None:
                    worth = None
                else:
                    worth += rounded(WIDE.multiply(leg.quantity, at), ROUND_FLOOR)
            candidates.append(worth)
        if position.exposure not in candidates:
            rule = "exposure is the positions at the last prices"
            self._require(fact, rule, candidates, position.exposure)

    def _require(
        self, fact: Fact[PositionChanged], rule: str, expected: object, found: object
    ) -> None:
        self._check.require(rule, fact.place, fact.message.id, expected, found)


def audit_ledgers(
    positions: Check, outcomes: Check, evidence: Evidence, prices: TradePrices | None
) -> None:
    """Check the ledger of every account."""
    accounts: set[str] = set()
    for facts in (evidence.decisions, evidence.fills, evidence.positions, evidence.outcomes):
        accounts |= {fact.message.account for fact in facts}
    for account in sorted(accounts):
        LedgerAudit((positions, outcomes), evidence, prices, account).run()
