"""Messages of the account side: decisions, orders, fills, positions, outcomes."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct

from schemas.fields import Action, DurationNs, Identity, Money, Name, Provenance, Side, TimeNs


class Verdict(StrEnum):
    """Outcome of a decision."""

    APPROVED = "approved"
    RESIZED = "resized"
    DENIED = "denied"


class DenialReason(StrEnum):
    """Every reason for which a proposal is denied; closed on purpose."""

    SIGNAL_SCHEMA = "SIGNAL_SCHEMA"
    PROVENANCE = "PROVENANCE"
    WARMING_UP = "WARMING_UP"
    HALTED = "HALTED"
    STALE = "STALE"
    POSITION_OPEN = "POSITION_OPEN"
    NO_POSITION = "NO_POSITION"
    VOTE_AGAINST = "VOTE_AGAINST"
    STOP_MISSING = "STOP_MISSING"
    ORDER_RATE = "ORDER_RATE"
    DAILY_LOSS = "DAILY_LOSS"
    DRAWDOWN = "DRAWDOWN"
    POSITION_COUNT = "POSITION_COUNT"
    POSITION_NOTIONAL = "POSITION_NOTIONAL"
    GROSS_NOTIONAL = "GROSS_NOTIONAL"
    CASH = "CASH"
    LOT_SIZE = "LOT_SIZE"
    TICK_SIZE = "TICK_SIZE"
    NOTIONAL_MIN = "NOTIONAL_MIN"


class CheckVerdict(StrEnum):
    """Outcome of one pre-trade check."""

    PASSED = "passed"
    RESIZED = "resized"
    DENIED = "denied"


class CheckMeasured(Struct, frozen=True, kw_only=True):
    """One pre-trade check with what it measured and what it allows."""

    check: Name
    measured: str
    """Exact text of the measured value; `unknown` denies."""
    limit: str
    verdict: CheckVerdict
    reason: str = ""
    """A `DenialReason` when denied."""


class DecisionMade(Struct, frozen=True, kw_only=True):
    """What the account did with a signal: approved, resized or denied, and every check behind it."""

    topic: ClassVar[str] = "trade.decisions"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the signal."""
    account: Name
    strategy: Name
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    action: Action
    verdict: Verdict
    denial: Name
    """First `DenialReason`, empty unless denied."""
    justification: str
    """One sentence for a human, with the numbers."""
    quantity: Money
    reference_price: Money
    equity: Money
    checks: list[CheckMeasured]
    provenance: Provenance


class OrderKind(StrEnum):
    """Kinds of paper orders."""

    MARKET = "market"
    STOP = "stop"
    LIMIT = "limit"


class OrderPurpose(StrEnum):
    """Why an order exists."""

    ENTRY = "entry"
    PROTECTIVE_STOP = "protective_stop"
    TARGET = "target"
    EXIT = "exit"


class OrderStatus(StrEnum):
    """States of an order; `filled`, `cancelled` and `rejected` are terminal."""

    SUBMITTED = "submitted"
    AMENDED = "amended"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class OrderUpdated(Struct, frozen=True, kw_only=True):
    """A command to the venue or a change of an order's state."""

    topic: ClassVar[str] = "trade.orders"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the decision (first update) or of the fill or update before it."""
    order_id: Identity
    client_order_id: str
    decision_id: Identity
    account: Name
    strategy: Name
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    sequence: int
    """0, 1, 2 … within the order."""
    side: Side
    kind: OrderKind
    purpose: OrderPurpose
    status: OrderStatus
    quantity: Money
    filled_quantity: Money
    limit_price: Money | None
    stop_price: Money | None
    reduce_only: bool
    reason: str
    provenance: Provenance


class OrderFilled(Struct, frozen=True, kw_only=True):
    """An executed part of an order."""

    topic: ClassVar[str] = "trade.fills"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the order."""
    order_id: Identity
    decision_id: Identity
    account: Name
    strategy: Name
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    side: Side
    purpose: OrderPurpose
    quantity: Money
    price: Money
    fee: Money
    fee_currency: Name
    liquidity: Name
    """`taker` or `maker`."""
    tick_price: Money
    """Price of the tick that filled it; the difference is spread."""
    slippage_bps: float
    """Fill against the decision's reference price; positive is a cost."""
    provenance: Provenance


class PositionChanged(Struct, frozen=True, kw_only=True):
    """Position of one strategy in one symbol, with the account's equity, after a change or a mark."""

    topic: ClassVar[str] = "trade.positions"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the fill or of the order update, or `mark/<time>`."""
    account: Name
    strategy: Name
    """Empty in an account mark."""
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    quantity: Money
    average_price: Money
    stop_price: Money | None
    target_price: Money | None
    protected_quantity: Money
    realised_pnl: Money
    cash: Money
    equity: Money
    exposure: Money
    """Gross notional of the account's positions."""
    peak_equity: Money
    drawdown_pct: float
    provenance: Provenance


class OutcomeClosed(Struct, frozen=True, kw_only=True):
    """A closed leg: the only source of realised P&L."""

    topic: ClassVar[str] = "trade.outcomes"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the closing fill."""
    account: Name
    strategy: Name
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    entry_decision_id: Identity
    exit_decision_id: Identity
    """Empty when the protective stop or the target closed the leg."""
    entry_time_ns: TimeNs
    holding_ns: DurationNs
    quantity: Money
    entry_price: Money
    exit_price: Money
    gross_pnl: Money
    fees: Money
    net_pnl: Money
    return_pct: float
    exit_reason: Name
    """`protective_stop`, `target` or `exit`."""
    entry_fills: int
    exit_fills: int
    provenance: Provenance
