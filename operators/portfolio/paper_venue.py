"""How the paper venue fills: latency, half spread, participation, fees; all in exact integers."""

from decimal import Decimal

from operators.portfolio.ledger import fee_of, notional_of
from operators.portfolio.rules import BPS, TradingRules
from operators.portfolio.ticks import Trade
from schemas.fields import Side
from schemas.settings import TIMEFRAME_NS, PaperSettings
from schemas.ticks import PROVENANCE_CODES

MILLISECOND_NS = 1_000_000
RECONSTRUCTED = PROVENANCE_CODES.index("reconstructed")
BAR_TICKS = 4
"""A reconstructed bar has its ticks on the quarters of its interval."""

ROUNDING_MARGIN_USD = Decimal("2e-8")
"""More than the rounding up of one notional and one fee."""


class PaperVenue:
    """Prices and sizes of paper fills."""

    def __init__(self, paper: PaperSettings) -> None:
        self.latency_ns = paper.latency_ms * MILLISECOND_NS
        self.lifetime_ns = paper.order_lifetime_ms * MILLISECOND_NS
        self._half_spread = (paper.half_spread_bps / BPS).as_integer_ratio()
        self._participation = paper.participation_max.as_integer_ratio()

    def capacity(self, rules: TradingRules, size_units: int) -> int:
        """Return how much of a tick one order may take, in whole lots."""
        share, whole = self._participation
        return size_units * share // whole // rules.lot_units * rules.lot_units

    def size_min(self, rules: TradingRules) -> int:
        """Return the smallest tick size of which an order may take one lot."""
        share, whole = self._participation
        return -(-rules.lot_units * whole // share)

    def worsened(self, side: Side, price_units: int, spread_units: int) -> int:
        """Return a price half a spread worse, rounded against the order, at least one unit.

        `spread_units` is the quoted spread; -1 takes the configured half spread.
        """
        if spread_units >= 0:
            half = (spread_units + 1) // 2
            return price_units + half if side is Side.BUY else max(1, price_units - half)
        part, whole = self._half_spread
        if side is Side.BUY:
            return -(-price_units * (whole + part) // whole)
        return max(1, price_units * (whole - part) // whole)

    def unit_cost(self, rules: TradingRules, reference: Decimal, spread_units: int) -> Decimal:
        """Return the cash that one unit of quantity is expected to cost, fee included."""
        units = rules.price_units_up(reference)
        return rules.price(self.worsened(Side.BUY, units, spread_units)) * (1 + rules.taker_rate)

    def affordable(self, rules: TradingRules, cash: Decimal, price: Decimal) -> int:
        """Return how many units `cash` pays for at `price` with the taker fee, in whole lots."""
        lot_cost = price * rules.lot_size * (1 + rules.taker_rate)
        return max(0, int((cash - ROUNDING_MARGIN_USD) // lot_cost)) * rules.lot_units

    def fee(
        self, rules: TradingRules, side: Side, quantity: Decimal, price: Decimal, *, maker: bool
    ) -> Decimal:
        """Return the venue's fee for a fill."""
        rate = rules.maker_rate if maker else rules.taker_rate
        return fee_of(notional_of(side, quantity, price), rate)


def path_connects(earlier: Trade | None, later: Trade) -> bool:
    """Return whether two successive trades stand for one continuous path of prices.

    They do if both were rebuilt from the same bar: then both lie on quarters of the same interval
    of a timeframe. Between two bars, and between recorded trades, the price may jump.
    """
    if earlier is None or earlier.provenance != RECONSTRUCTED or later.provenance != RECONSTRUCTED:
        return False
    return any(
        earlier.time_ns // interval == later.time_ns // interval
        and earlier.time_ns * BAR_TICKS % interval == 0
        and later.time_ns * BAR_TICKS % interval == 0
        for interval in TIMEFRAME_NS.values()
    )
