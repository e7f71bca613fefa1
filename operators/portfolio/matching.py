"""Fills a leg's working orders on one tick."""

from decimal import Decimal

from operators.portfolio.exits import ExitOwner
from operators.portfolio.legs import Leg, Order
from operators.portfolio.paper_venue import path_connects
from operators.portfolio.state import AccountState
from operators.portfolio.ticks import Trade
from schemas.fields import Side
from schemas.trading import OrderStatus


class Matching:
    """Plays a tick against a leg: stop, exit, target, then entry, so that protection comes first."""

    def __init__(self, account: AccountState, exits: ExitOwner) -> None:
        self._account = account
        self._exits = exits

    def on_tick(self, leg: Leg, index: int) -> None:
        """Let the orders of `leg` act on the ready tick at `index`."""
        account = self._account
        tape = account.tape(leg)
        trade = tape.trade(index)
        account.see_ticks(leg, index)
        self._play_stop(leg, trade, tape.previous(index))
        if leg.exit is not None and leg.exit.working and trade.time_ns > leg.exit.active_after_ns:
            self._fill(leg, leg.exit, trade, trade.price_units)
        target = leg.target
        if target is not None and target.working and trade.time_ns > target.active_after_ns:
            limit = target.limit_units
            assert limit is not None
            if trade.price_units > limit:
                self._fill(leg, target, trade, limit, maker=True)
        entry = leg.entry
        if entry.working and trade.time_ns > entry.active_after_ns:
            self._fill(leg, entry, trade, trade.price_units)
        account.see_ticks(leg, index + 1)
        if leg.key in account.legs:
            account.find_leg_event(leg)

    def cancel_entry(self, leg: Leg, time_ns: int, reason: str, cause: str = "") -> None:
        """Cancel what is left of the entry; a leg that never filled ends here."""
        if not leg.entry.working:
            return
        account = self._account
        account.recorder.order(leg, leg.entry, time_ns, OrderStatus.CANCELLED, reason, cause)
        if not leg.opened_ns:
            del account.legs[leg.key]
        account.legs_changed = True

    def _play_stop(self, leg: Leg, trade: Trade, previous: Trade | None) -> None:
        stop = leg.stop
        if stop is None or not stop.working:
            return
        price_units = trade.price_units
        amended = False
        if not leg.triggered:
            level = leg.stop_level
            if trade.time_ns <= stop.active_after_ns or price_units > level:
                return
            amended = stop.stop_units != level
            self._exits.trigger(leg, trade.time_ns)
            self.cancel_entry(leg, trade.time_ns, "the protective stop triggered")
            if (
                previous is not None
                and previous.price_units > level
                and path_connects(previous, trade)
            ):
                price_units = level
        if not self._fill(leg, stop, trade, price_units) and amended:
            self._record_position(leg, trade, stop.last_update_id)

    def _fill(
        self, leg: Leg, order: Order, trade: Trade, base_units: int, *, maker: bool = False
    ) -> bool:
        """Fill `order` on a tick as far as it goes; return whether anything filled."""
        account, venue, rules = self._account, self._account.venue, leg.rules
        units = base_units
        if not maker:
            units = venue.worsened(order.side, base_units, trade.spread_units)
        price = rules.price(units)
        wanted = min(order.remaining, venue.capacity(rules, trade.size_units))
        assert not order.reduce_only or wanted <= leg.quantity
        if wanted and not order.reduce_only:
            wanted = self._affordable(leg, wanted, price, trade.time_ns)
        if not wanted:
            return False
        quantity = rules.size(wanted)
        fee = venue.fee(rules, order.side, quantity, price, maker=maker)
        account.ledger.post_fill(leg.key, order.side, quantity, price, fee)
        order.filled += wanted
        leg.quantity += wanted if order.side is Side.BUY else -wanted
        leg.provenance = min(leg.provenance, trade.provenance)
        liquidity = "maker" if maker else "taker"
        tick_price = rules.price(trade.price_units)
        fill_id = account.recorder.fill(
            leg, order, trade.time_ns, quantity, price, fee, liquidity, tick_price
        )
        done = order.filled == order.quantity
        status = OrderStatus.FILLED if done else OrderStatus.PARTIALLY_FILLED
        account.recorder.order(leg, order, trade.time_ns, status, "", fill_id)
        self._follow(leg, order, trade, fill_id)
        return True

    def _follow(self, leg: Leg, order: Order, trade: Trade, fill_id: str) -> None:
        """Fit the protection to the position after a fill and record where the leg stands."""
        account, time_ns = self._account, trade.time_ns
        if order is leg.entry:
            if not leg.opened_ns:
                leg.opened_ns = time_ns
                leg.best_units = trade.price_units
            self._exits.protect(leg, time_ns, fill_id)
        else:
            reason = f"{order.purpose.value} began to close the position"
            self.cancel_entry(leg, time_ns, reason, fill_id)
            self._exits.follow_fill(leg, order, time_ns, fill_id)
        self._record_position(leg, trade, fill_id)
        if not leg.quantity:
            closed = account.ledger.close_leg(leg.key)
            account.recorder.outcome(leg, closed, order, time_ns, fill_id)
            del account.legs[leg.key]
        account.legs_changed = True

    def _record_position(self, leg: Leg, trade: Trade, cause: str) -> None:
        account = self._account
        mark = account.mark(trade.time_ns, leg.market, trade.price_units)
        account.recorder.position(leg, account.ledger.legs[leg.key], mark, trade.time_ns, cause)

    def _affordable(self, leg: Leg, wanted: int, price: Decimal, time_ns: int) -> int:
        """Return how much of `wanted` the cash pays for; nothing ends the entry."""
        cash = self._account.ledger.cash
        paid = min(wanted, self._account.venue.affordable(leg.rules, cash, price))
        if not paid:
            self.cancel_entry(leg, time_ns, f"cash {cash:f} pays for no lot at {price:f}")
        return paid
