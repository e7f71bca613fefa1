"""A strategy's open or opening position in one symbol and the orders that work for it."""

from dataclasses import dataclass, field
from decimal import Decimal

from operators.portfolio.ledger import LegKey
from operators.portfolio.rules import TradingRules
from operators.portfolio.tick_scan import NEVER_NS
from schemas.fields import Side
from schemas.trading import OrderKind, OrderPurpose, OrderStatus

TERMINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED})


@dataclass(slots=True)
class Order:
    """A working order; `quantity` and `filled` in units of the instrument's last size decimal."""

    order_id: str
    client_order_id: str
    decision_id: str
    side: Side
    kind: OrderKind
    purpose: OrderPurpose
    quantity: int
    active_after_ns: int
    """The order reacts only to later ticks."""
    reference_price: Decimal
    """Slippage is measured against this."""
    limit_units: int | None = None
    stop_units: int | None = None
    filled: int = 0
    fills: int = 0
    updates: int = 0
    last_update_id: str = ""
    status: OrderStatus = OrderStatus.SUBMITTED

    @property
    def working(self) -> bool:
        """Whether the order may still fill."""
        return self.status not in TERMINAL

    @property
    def remaining(self) -> int:
        """Units that may still fill."""
        return self.quantity - self.filled if self.working else 0

    @property
    def reduce_only(self) -> bool:
        """Whether the order can only shrink a position."""
        return self.purpose is not OrderPurpose.ENTRY


@dataclass(slots=True)
class Leg:
    """One strategy's position in one symbol from its entry order to its last fill.

    Prices and quantities are integers in the instrument's units.
    """

    key: LegKey
    rules: TradingRules
    entry: Order
    expires_ns: int
    provenance: int
    """Worst provenance code of the signal and of the ticks that filled."""
    reserve_unit_cost: Decimal
    """Cash held back per quantity of the pending entry: worsened price and fee."""
    stop_units: int
    target_units: int | None
    trail_units: int
    """Distance of a trailing stop, 0 if the stop does not trail."""
    quantity: int = 0
    opened_ns: int = 0
    best_units: int = 0
    """Highest tick since the first entry fill, up to `cursor`."""
    stop: Order | None = None
    target: Order | None = None
    exit: Order | None = None
    triggered: bool = False
    cursor: int = 0
    """Index of the first ready tick that the leg has not seen; meaningful within one step."""
    event_index: int = -1
    """Ready tick at which an order can act next, -1 for none; meaningful within one step."""
    positions_recorded: int = field(default=0)

    @property
    def market(self) -> tuple[str, str]:
        """Venue and symbol."""
        return self.key[1], self.key[2]

    @property
    def stop_level(self) -> int:
        """Level of the stop now: it follows the best price and never loosens."""
        return max(self.stop_units, self.best_units - self.trail_units if self.trail_units else 0)

    @property
    def protected(self) -> int:
        """Units that the protective stop covers."""
        return self.stop.remaining if self.stop is not None else 0

    @property
    def market_after_ns(self) -> int:
        """From when on some order of the leg takes any tick."""
        after = self.entry.active_after_ns if self.entry.working else NEVER_NS
        if self.exit is not None and self.exit.working:
            after = min(after, self.exit.active_after_ns)
        if self.triggered and self.stop is not None and self.stop.working:
            after = min(after, self.stop.active_after_ns)
        return after

    @property
    def stop_after_ns(self) -> int:
        """From when on the stop can trigger."""
        armed = self.stop is not None and self.stop.working and not self.triggered
        return self.stop.active_after_ns if armed and self.stop is not None else NEVER_NS

    @property
    def target_after_ns(self) -> int:
        """From when on the target can fill."""
        target = self.target
        return target.active_after_ns if target is not None and target.working else NEVER_NS
