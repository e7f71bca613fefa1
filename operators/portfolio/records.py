"""Builds the account's records with their ids, in the order in which they are caused."""

from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct

from operators.portfolio.ledger import LegAccount, quotient
from operators.portfolio.legs import Leg, Order
from schemas.fields import Action, Provenance, Side
from schemas.ids import derive_id
from schemas.operations import ControlApplied, ControlCommanded
from schemas.signals import SignalEmitted
from schemas.ticks import PROVENANCE_CODES
from schemas.trading import (
    CheckMeasured,
    DecisionMade,
    OrderFilled,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)

BPS = 10_000


class AccountMark(NamedTuple):
    """The account's worth at one moment, in USD."""

    cash: Decimal
    equity: Decimal
    exposure: Decimal
    peak: Decimal

    @property
    def drawdown_pct(self) -> float:
        """Fall from the peak in percent, as a positive number."""
        return float((self.peak - self.equity) * 100 / self.peak)


class Verdicted(NamedTuple):
    """What the checks say about a proposal."""

    verdict: Verdict
    denial: str
    justification: str
    quantity: Decimal
    checks: list[CheckMeasured]


def provenance_of(code: int) -> Provenance:
    """Return the provenance with the tick frame's `code`."""
    return Provenance(PROVENANCE_CODES[code])


class Recorder:
    """Collects the records of one account."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._records: list[Struct] = []

    def drain(self) -> list[Struct]:
        """Remove and return the records so far."""
        records, self._records = self._records, []
        return records

    def control(self, command: ControlCommanded, effective_ns: int) -> None:
        """Record from which event time on a command counts."""
        self._records.append(
            ControlApplied(
                id=derive_id("ops.applied", self.account, effective_ns, 0, command.id),
                cause=command.id,
                account=self.account,
                command=command.command,
                event_time_ns=effective_ns,
                reason=command.reason,
            )
        )

    def decision(
        self,
        decision_id: str,
        signal: SignalEmitted,
        outcome: Verdicted,
        equity: Decimal,
        reference_price: Decimal,
    ) -> None:
        """Record what the account did with a signal."""
        self._records.append(
            DecisionMade(
                id=decision_id,
                cause=signal.id,
                account=self.account,
                strategy=signal.strategy,
                venue=signal.venue,
                symbol=signal.symbol,
                event_time_ns=signal.event_time_ns,
                action=Action(signal.action),
                verdict=outcome.verdict,
                denial=outcome.denial,
                justification=outcome.justification,
                quantity=outcome.quantity,
                reference_price=reference_price,
                equity=equity,
                checks=outcome.checks,
                provenance=signal.provenance,
            )
        )

    def order(
        self,
        leg: Leg,
        order: Order,
        time_ns: int,
        status: OrderStatus,
        reason: str,
        cause: str = "",
    ) -> None:
        """Move an order to `status` and record it; without `cause` the update before it is one."""
        order.status = status
        update_id = derive_id("trade.orders", order.order_id, time_ns, order.updates, "")
        price, size = leg.rules.price, leg.rules.size
        self._records.append(
            OrderUpdated(
                id=update_id,
                cause=cause or order.last_update_id,
                order_id=order.order_id,
                client_order_id=order.client_order_id,
                decision_id=order.decision_id,
                account=self.account,
                strategy=leg.key[0],
                venue=leg.key[1],
                symbol=leg.key[2],
                event_time_ns=time_ns,
                sequence=order.updates,
                side=order.side,
                kind=order.kind,
                purpose=order.purpose,
                status=status,
                quantity=size(order.quantity),
                filled_quantity=size(order.filled),
                limit_price=None if order.limit_units is None else price(order.limit_units),
                stop_price=None if order.stop_units is None else price(order.stop_units),
                reduce_only=order.reduce_only,
                reason=reason,
                provenance=provenance_of(leg.provenance),
            )
        )
        order.updates += 1
        order.last_update_id = update_id

    def fill(
        self,
        leg: Leg,
        order: Order,
        time_ns: int,
        quantity: Decimal,
        price: Decimal,
        fee: Decimal,
        liquidity: str,
        tick_price: Decimal,
    ) -> str:
        """Record a fill and return its id."""
        fill_id = derive_id("trade.fills", order.order_id, time_ns, order.fills, "")
        worse = price - order.reference_price
        if order.side is Side.SELL:
            worse = -worse
        self._records.append(
            OrderFilled(
                id=fill_id,
                cause=order.order_id,
                order_id=order.order_id,
                decision_id=order.decision_id,
                account=self.account,
                strategy=leg.key[0],
                venue=leg.key[1],
                symbol=leg.key[2],
                event_time_ns=time_ns,
                side=order.side,
                purpose=order.purpose,
                quantity=quantity,
                price=price,
                fee=fee,
                fee_currency=leg.rules.fee_currency,
                liquidity=liquidity,
                tick_price=tick_price,
                slippage_bps=float(worse * BPS / order.reference_price),
                provenance=provenance_of(leg.provenance),
            )
        )
        order.fills += 1
        return fill_id

    def position(
        self, leg: Leg, account: LegAccount, mark: AccountMark, time_ns: int, cause: str
    ) -> None:
        """Record a leg's position after a change."""
        stop, target = leg.stop, leg.target
        rules = leg.rules
        key = f"{self.account}/{leg.key[0]}/{leg.key[1]}:{leg.key[2]}"
        record_id = derive_id("trade.positions", key, time_ns, leg.positions_recorded, cause)
        leg.positions_recorded += 1
        self._records.append(
            PositionChanged(
                id=record_id,
                cause=cause,
                account=self.account,
                strategy=leg.key[0],
                venue=leg.key[1],
                symbol=leg.key[2],
                event_time_ns=time_ns,
                quantity=rules.size(leg.quantity),
                average_price=account.average_price,
                stop_price=_working_price(leg, stop, stop.stop_units if stop else None),
                target_price=_working_price(leg, target, target.limit_units if target else None),
                protected_quantity=rules.size(leg.protected),
                realised_pnl=account.realised - account.fees,
                cash=mark.cash,
                equity=mark.equity,
                exposure=mark.exposure,
                peak_equity=mark.peak,
                drawdown_pct=mark.drawdown_pct,
                provenance=provenance_of(leg.provenance),
            )
        )

    def account_mark(
        self, mark: AccountMark, realised: Decimal, time_ns: int, provenance: int
    ) -> None:
        """Record the account's worth at a full hour."""
        cause = f"mark/{time_ns}"
        self._records.append(
            PositionChanged(
                id=derive_id("trade.positions", self.account, time_ns, 0, cause),
                cause=cause,
                account=self.account,
                strategy="",
                venue="",
                symbol="",
                event_time_ns=time_ns,
                quantity=Decimal(0),
                average_price=Decimal(0),
                stop_price=None,
                target_price=None,
                protected_quantity=Decimal(0),
                realised_pnl=realised,
                cash=mark.cash,
                equity=mark.equity,
                exposure=mark.exposure,
                peak_equity=mark.peak,
                drawdown_pct=mark.drawdown_pct,
                provenance=provenance_of(provenance),
            )
        )

    def outcome(
        self, leg: Leg, closed: LegAccount, closing: Order, time_ns: int, fill_id: str
    ) -> None:
        """Record a closed leg from what the ledger says of it."""
        gross = closed.sold_notional - closed.bought_notional
        net = gross - closed.fees
        exit_order = leg.exit
        self._records.append(
            OutcomeClosed(
                id=derive_id("trade.outcomes", self.account, time_ns, 0, leg.entry.order_id),
                cause=fill_id,
                account=self.account,
                strategy=leg.key[0],
                venue=leg.key[1],
                symbol=leg.key[2],
                event_time_ns=time_ns,
                entry_decision_id=leg.entry.decision_id,
                exit_decision_id=exit_order.decision_id if closing is exit_order else "",
                entry_time_ns=leg.opened_ns,
                holding_ns=time_ns - leg.opened_ns,
                quantity=closed.bought,
                entry_price=quotient(closed.bought_notional, closed.bought),
                exit_price=quotient(closed.sold_notional, closed.sold),
                gross_pnl=gross,
                fees=closed.fees,
                net_pnl=net,
                return_pct=float(net * 100 / closed.bought_notional),
                exit_reason=closing.purpose.value,
                entry_fills=closed.buys,
                exit_fills=closed.sells,
                provenance=provenance_of(leg.provenance),
            )
        )


def _working_price(leg: Leg, order: Order | None, units: int | None) -> Decimal | None:
    if order is None or not order.working or units is None:
        return None
    return leg.rules.price(units)
