"""The account's double-entry ledger: exact decimals, every fill a set of postings that sum to zero."""

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from schemas.fields import Side

CURRENCY = "USD"
"""Currency of the account; quote currencies count one to one."""

EXACT = Context(prec=76)
"""Wide enough that no sum or product of ledger amounts is ever rounded."""

STORED_PLACES = Decimal("1e-12")
"""Amounts keep at most the decimals that a stored amount can hold."""

FEE_PLACES = Decimal("1e-8")

LegKey = tuple[str, str, str]
"""Strategy, venue, symbol."""


class Posting(NamedTuple):
    """One line of a ledger entry."""

    account: str
    asset: str
    amount: Decimal


@dataclass(slots=True)
class LegAccount:
    """What the fills of one leg add up to; money in USD, quantities in the instrument's units."""

    quantity: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    """What the open quantity was bought for, without fees."""
    realised: Decimal = Decimal(0)
    """Proceeds less cost of what was sold, before fees."""
    fees: Decimal = Decimal(0)
    bought: Decimal = Decimal(0)
    bought_notional: Decimal = Decimal(0)
    sold: Decimal = Decimal(0)
    sold_notional: Decimal = Decimal(0)
    buys: int = 0
    sells: int = 0

    @property
    def average_price(self) -> Decimal:
        """Average cost of the open quantity, 0 when flat."""
        return quotient(self.cost, self.quantity)


def quotient(amount: Decimal, quantity: Decimal) -> Decimal:
    """Return `amount / quantity` to 12 decimals, 0 for no quantity."""
    if not quantity:
        return Decimal(0)
    return (amount / quantity).quantize(STORED_PLACES, ROUND_HALF_EVEN).normalize(EXACT) + 0


def notional_of(side: Side, quantity: Decimal, price: Decimal) -> Decimal:
    """Return `quantity * price`, rounded against the account beyond 12 decimals."""
    exact = EXACT.multiply(quantity, price)
    rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
    return _stored(exact, rounding)


def fee_of(notional: Decimal, rate: Decimal) -> Decimal:
    """Return the fee on `notional`, rounded up to 8 decimals."""
    exact = EXACT.multiply(notional, rate)
    return exact.quantize(FEE_PLACES, ROUND_CEILING, EXACT)


def _stored(amount: Decimal, rounding: str) -> Decimal:
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    return amount if exponent >= -12 else amount.quantize(STORED_PLACES, rounding, EXACT)


@dataclass
class Ledger:
    """Balances by (account, asset) and the open legs, changed by fills alone."""

    starting_cash: Decimal
    balances: dict[tuple[str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    legs: dict[LegKey, LegAccount] = field(default_factory=dict)
    cash: Decimal = Decimal(0)
    realised: Decimal = Decimal(0)
    """Realised profit of all legs so far, after fees."""
    fills: int = 0
    """Fills booked so far."""

    def __post_init__(self) -> None:
        if not self.balances:
            self._post(
                (
                    Posting("cash", CURRENCY, self.starting_cash),
                    Posting("capital", CURRENCY, -self.starting_cash),
                )
            )

    def post_fill(
        self, key: LegKey, side: Side, quantity: Decimal, price: Decimal, fee: Decimal
    ) -> tuple[Posting, ...]:
        """Book a fill of the leg `key` and return its postings, which sum to zero per asset.

        A sale relieves the leg's average cost; what is left of the cost when the leg is flat goes
        with the last sale, so nothing is lost to rounding.

        Raises:
            AssertionError: A sale exceeds the leg's quantity.
        """
        leg = self.legs.setdefault(key, LegAccount())
        notional = notional_of(side, quantity, price)
        if side is Side.BUY:
            postings = self._buy(key, leg, quantity, notional, fee)
        else:
            postings = self._sell(key, leg, quantity, notional, fee)
        leg.fees += fee
        self.fills += 1
        self.realised -= fee
        self._post(postings)
        return postings

    def close_leg(self, key: LegKey) -> LegAccount:
        """Remove a flat leg and return its account."""
        leg = self.legs.pop(key)
        assert leg.quantity == 0
        assert leg.cost == 0
        return leg

    def _buy(
        self, key: LegKey, leg: LegAccount, quantity: Decimal, notional: Decimal, fee: Decimal
    ) -> tuple[Posting, ...]:
        leg.quantity += quantity
        leg.cost += notional
        leg.bought += quantity
        leg.bought_notional += notional
        leg.buys += 1
        return (
            Posting("cash", CURRENCY, -(notional + fee)),
            Posting("inventory", CURRENCY, notional),
            Posting("fees", CURRENCY, fee),
            Posting(f"position/{key[0]}", f"{key[1]}:{key[2]}", quantity),
            Posting("venue", f"{key[1]}:{key[2]}", -quantity),
        )

    def _sell(
        self, key: LegKey, leg: LegAccount, quantity: Decimal, notional: Decimal, fee: Decimal
    ) -> tuple[Posting, ...]:
        assert 0 < quantity <= leg.quantity
        if quantity == leg.quantity:
            relieved = leg.cost
        else:
            share = EXACT.divide(EXACT.multiply(leg.cost, quantity), leg.quantity)
            relieved = _stored(share, ROUND_HALF_EVEN)
        leg.quantity -= quantity
        leg.cost -= relieved
        leg.realised += notional - relieved
        leg.sold += quantity
        leg.sold_notional += notional
        leg.sells += 1
        self.realised += notional - relieved
        return (
            Posting("cash", CURRENCY, notional - fee),
            Posting("inventory", CURRENCY, -relieved),
            Posting("realised", CURRENCY, relieved - notional),
            Posting("fees", CURRENCY, fee),
            Posting(f"position/{key[0]}", f"{key[1]}:{key[2]}", -quantity),
            Posting("venue", f"{key[1]}:{key[2]}", quantity),
        )

    def _post(self, postings: tuple[Posting, ...]) -> None:
        for account, asset, amount in postings:
            self.balances[account, asset] += amount
        self.cash = self.balances["cash", CURRENCY]
