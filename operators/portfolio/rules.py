"""Trading rules of one instrument as exact integers and decimals."""

from decimal import Decimal

from msgspec import Struct

from schemas.market import InstrumentListed

BPS = Decimal(10_000)

STORED_DECIMALS = 12
"""Decimals of a stored amount."""


class TradingRules(Struct, frozen=True, kw_only=True):
    """An instrument's grid and fees; `_units` count the last decimal of a price or a size."""

    venue: str
    symbol: str
    valid_from_ns: int
    price_decimals: int
    size_decimals: int
    tick_units: int
    lot_units: int
    lot_size: Decimal
    tick_size: Decimal
    notional_min: Decimal
    maker_rate: Decimal
    """Fee as a fraction of the notional."""
    taker_rate: Decimal
    fee_currency: str

    def price(self, units: int) -> Decimal:
        """Return the price of `units`."""
        return Decimal(units).scaleb(-self.price_decimals)

    def size(self, units: int) -> Decimal:
        """Return the quantity of `units`."""
        return Decimal(units).scaleb(-self.size_decimals)

    def worth(self, size_units: int, price_units: int) -> tuple[int, int]:
        """Return what `size_units` are worth at `price_units`, as decimals and whole units of them.

        Rounded down beyond the decimals of a stored amount.
        """
        decimals = self.price_decimals + self.size_decimals
        excess = decimals - STORED_DECIMALS
        if excess <= 0:
            return decimals, size_units * price_units
        return STORED_DECIMALS, size_units * price_units // 10**excess

    def price_units_up(self, price: Decimal) -> int:
        """Return the smallest price on the tick grid that is not below `price`, in units."""
        ticks = price // self.tick_size
        if ticks * self.tick_size < price:
            ticks += 1
        return int(ticks) * self.tick_units


def build_rules(listing: InstrumentListed) -> TradingRules:
    """Return the rules of `listing`.

    Raises:
        ValueError: A tick or lot size is no positive whole number of the last decimal.
    """
    return TradingRules(
        venue=listing.venue,
        symbol=listing.symbol,
        valid_from_ns=listing.valid_from_ns,
        price_decimals=listing.price_decimals,
        size_decimals=listing.size_decimals,
        tick_units=_whole_units(listing, "tick_size", listing.tick_size, listing.price_decimals),
        lot_units=_whole_units(listing, "lot_size", listing.lot_size, listing.size_decimals),
        lot_size=listing.lot_size,
        tick_size=listing.tick_size,
        notional_min=listing.notional_min,
        maker_rate=Decimal(repr(listing.maker_fee_bps)) / BPS,
        taker_rate=Decimal(repr(listing.taker_fee_bps)) / BPS,
        fee_currency=listing.quote_currency,
    )


def _whole_units(listing: InstrumentListed, field: str, value: Decimal, decimals: int) -> int:
    units = value.scaleb(decimals)
    if not (units.is_finite() and units >= 1 and units == int(units)):
        msg = (
            f"`{field}` of {listing.venue}:{listing.symbol} must be a positive multiple of its "
            f"last decimal; found {value!r} with {decimals} decimals; mend the listing"
        )
        raise ValueError(msg)
    return int(units)
