"""Trading rules of recorded instruments, derived from the recorded values and from the venue's name."""

from decimal import Decimal
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.ids import derive_id
from schemas.market import InstrumentListed

DECIMALS_MAX = 8
"""Venues quote at most this many decimals; a recorded value with more is an artefact of arithmetic."""

_UNITS_MAX = 2.0**53


class VenueRules(NamedTuple):
    """What a venue is assumed to ask when its listing is derived from a recording."""

    maker_fee_bps: float
    taker_fee_bps: float
    notional_min: Decimal
    calendar: str


_CRYPTO = VenueRules(10.0, 10.0, Decimal(5), "24/7")
_FUTURES = VenueRules(2.0, 5.0, Decimal(5), "24/7")
_CURRENCIES = VenueRules(0.2, 0.2, Decimal(1), "24/7")

VENUE_RULES: dict[str, VenueRules] = {
    "binance_usdm": _FUTURES,
    "binance_coinm": _FUTURES,
    "binance_perp": _FUTURES,
    "bybit_perp": _FUTURES,
    "coinbase": VenueRules(40.0, 60.0, Decimal(1), "24/7"),
    "kraken": VenueRules(25.0, 40.0, Decimal(5), "24/7"),
    "us_equity": VenueRules(0.5, 0.5, Decimal(1), "XNYS"),
    "fxcm": _CURRENCIES,
    "oanda": _CURRENCIES,
}
"""Rules by prefix of the venue's name (entry tier, published fee tables); any other venue is taken for
crypto spot at 10 bps, maker and taker."""

_QUOTE_CURRENCIES = ("FDUSD", "USDT", "USDC", "BUSD", "USD", "EUR", "GBP", "BTC", "ETH", "BNB")


def venue_rules(venue: str) -> VenueRules:
    """Return the rules of the longest prefix of `venue` that is known."""
    known = [prefix for prefix in VENUE_RULES if venue.startswith(prefix)]
    return VENUE_RULES[max(known, key=len)] if known else _CRYPTO


def quote_currency(venue: str, symbol: str) -> str:
    """Return the currency in which `symbol` is priced: its suffix, else USD."""
    if venue.startswith("us_equity"):
        return "USD"
    text = symbol.removesuffix("_PERP").replace("-", "")
    return next((name for name in _QUOTE_CURRENCIES if text.endswith(name)), "USD")


def decimals_of(values: NDArray[np.float64]) -> int:
    """Return the most decimals that any of `values` needs, at most `DECIMALS_MAX`.

    A float needs `d` decimals if rounding it to `d` gives the float itself, which is when its
    shortest text has `d`. Values that need more than the maximum are not counted, and the result is
    lowered until the largest value still is an exact integer of units (below 2**53).
    """
    rest = np.unique(values[np.isfinite(values) & (values > 0)])
    if not rest.size:
        return 0
    largest, needed = float(rest[-1]), 0
    for decimals in range(DECIMALS_MAX + 1):
        scale = 10.0**decimals
        if largest * scale >= _UNITS_MAX:
            break
        left = rest[np.rint(rest * scale) / scale != rest]
        if left.size < rest.size:
            needed = decimals
        rest = left
        if not rest.size:
            break
    return needed


class Observed(NamedTuple):
    """What a recording shows of one instrument."""

    venue: str
    symbol: str
    first_ns: int
    price_decimals: int
    size_decimals: int


def observe(rows: pl.DataFrame, prices: list[str], sizes: list[str]) -> list[Observed]:
    """Return what `rows` (event_time_ns, venue, symbol and the named columns) show, by instrument."""
    found = []
    for (venue, symbol), group in rows.group_by("venue", "symbol", maintain_order=True):
        first_ns = group["event_time_ns"].min()
        assert isinstance(first_ns, int)
        found.append(
            Observed(
                str(venue),
                str(symbol),
                first_ns,
                max(decimals_of(_values(group, name)) for name in prices),
                max((decimals_of(_values(group, name)) for name in sizes), default=0),
            )
        )
    return found


def _values(rows: pl.DataFrame, name: str) -> NDArray[np.float64]:
    return rows[name].drop_nulls().to_numpy()


def combine(found: list[Observed]) -> list[Observed]:
    """Return one observation an instrument: its earliest time and its most decimals."""
    combined: dict[tuple[str, str], Observed] = {}
    for seen in found:
        known = combined.get((seen.venue, seen.symbol), seen)
        combined[seen.venue, seen.symbol] = Observed(
            seen.venue,
            seen.symbol,
            min(seen.first_ns, known.first_ns),
            max(seen.price_decimals, known.price_decimals),
            max(seen.size_decimals, known.size_decimals),
        )
    return sorted(combined.values())


def list_observed(
    found: list[Observed],
    *,
    maker_fee_bps: float | None = None,
    taker_fee_bps: float | None = None,
) -> list[InstrumentListed]:
    """Return a listing for each instrument in `found`; fees default to those of its venue."""
    listings = []
    for seen in combine(found):
        rules = venue_rules(seen.venue)
        key = f"{seen.venue}:{seen.symbol}"
        listings.append(
            InstrumentListed(
                id=derive_id(InstrumentListed.topic, key, seen.first_ns, 0, ""),
                venue=seen.venue,
                symbol=seen.symbol,
                valid_from_ns=seen.first_ns,
                price_decimals=seen.price_decimals,
                size_decimals=seen.size_decimals,
                tick_size=Decimal(1).scaleb(-seen.price_decimals),
                lot_size=Decimal(1).scaleb(-seen.size_decimals),
                notional_min=rules.notional_min,
                maker_fee_bps=rules.maker_fee_bps if maker_fee_bps is None else maker_fee_bps,
                taker_fee_bps=rules.taker_fee_bps if taker_fee_bps is None else taker_fee_bps,
                calendar=rules.calendar,
                quote_currency=quote_currency(seen.venue, seen.symbol),
            )
        )
    return listings
