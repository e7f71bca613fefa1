"""The exit owner: the only module that places, amends and cancels reduce-only orders."""

from decimal import Decimal

from operators.portfolio.legs import Leg, Order
from operators.portfolio.state import AccountState
from schemas.fields import Side
from schemas.ids import client_order_id, derive_id
from schemas.trading import OrderKind, OrderPurpose, OrderStatus


class ExitOwner:
    """Keeps every position covered by a stop for exactly its quantity."""

    def __init__(self, account: AccountState) -> None:
        self._account = account

    def protect(self, leg: Leg, time_ns: int, fill_id: str) -> None:
        """Place the protective orders with the first entry fill, amend them with every later one."""
        if leg.stop is None:
            leg.stop = self._place(leg, OrderPurpose.PROTECTIVE_STOP, time_ns)
            if leg.target_units is not None:
                leg.target = self._place(leg, OrderPurpose.TARGET, time_ns)
            return
        for order in (leg.stop, leg.target):
            if order is not None and order.working:
                self._amend(leg, order, time_ns, "covers the position", fill_id)

    def submit_exit(self, leg: Leg, decision_id: str, time_ns: int, reference: Decimal) -> None:
        """Send a market order for the whole position; the protective orders stay meanwhile."""
        recorder, venue = self._account.recorder, self._account.venue
        order_id = derive_id("trade.orders", recorder.account, time_ns, 0, decision_id)
        leg.exit = Order(
            order_id=order_id,
            client_order_id=client_order_id(decision_id),
            decision_id=decision_id,
            side=Side.SELL,
            kind=OrderKind.MARKET,
            purpose=OrderPurpose.EXIT,
            quantity=leg.quantity,
            active_after_ns=time_ns + venue.latency_ns,
            reference_price=reference,
        )
        self._submit(leg, leg.exit, time_ns, "the strategy exits")

    def follow_fill(self, leg: Leg, filled: Order, time_ns: int, fill_id: str) -> None:
        """Fit the other reduce-only orders to what is left of the position."""
        for order in (leg.stop, leg.target, leg.exit):
            if order is None or order is filled or not order.working:
                continue
            if leg.quantity:
                reason = f"{filled.purpose.value} filled in part"
                self._amend(leg, order, time_ns, reason, fill_id)
            else:
                reason = f"{filled.purpose.value} closed the position"
                self._account.recorder.order(
                    leg, order, time_ns, OrderStatus.CANCELLED, reason, fill_id
                )

    def record_trail(self, leg: Leg, time_ns: int) -> bool:
        """Record the level of a trailing stop if it has moved; return whether it has."""
        stop = leg.stop
        if stop is None or not stop.working or leg.triggered or stop.stop_units == leg.stop_level:
            return False
        self._amend(leg, stop, time_ns, "follows the best price", "")
        return True

    def trigger(self, leg: Leg, time_ns: int) -> None:
        """Turn the protective stop into a market order."""
        self.record_trail(leg, time_ns)
        leg.triggered = True

    def _place(self, leg: Leg, purpose: OrderPurpose, time_ns: int) -> Order:
        stops = purpose is OrderPurpose.PROTECTIVE_STOP
        units = leg.stop_level if stops else leg.target_units
        assert units is not None
        account = self._account.recorder.account
        stream = f"{account}/{purpose.value}"
        order_id = derive_id("trade.orders", stream, time_ns, 0, leg.entry.order_id)
        order = Order(
            order_id=order_id,
            client_order_id=client_order_id(order_id),
            decision_id=leg.entry.decision_id,
            side=Side.SELL,
            kind=OrderKind.STOP if stops else OrderKind.LIMIT,
            purpose=purpose,
            quantity=leg.quantity,
            active_after_ns=time_ns,
            reference_price=leg.rules.price(units),
            stop_units=units if stops else None,
            limit_units=None if stops else units,
        )
        self._submit(leg, order, time_ns, "protects the position" if stops else "takes the profit")
        return order

    def _submit(self, leg: Leg, order: Order, time_ns: int, reason: str) -> None:
        self._account.note_order(time_ns)
        self._account.recorder.order(
            leg, order, time_ns, OrderStatus.SUBMITTED, reason, order.decision_id
        )

    def _amend(self, leg: Leg, order: Order, time_ns: int, reason: str, cause: str) -> None:
        order.quantity = order.filled + leg.quantity
        if order is leg.stop and not leg.triggered:
            order.stop_units = leg.stop_level
            order.reference_price = leg.rules.price(leg.stop_level)
        self._account.recorder.order(leg, order, time_ns, OrderStatus.AMENDED, reason, cause)
