"""What must hold in every history of an account, recomputed from its records alone."""

from collections import defaultdict
from decimal import ROUND_CEILING, Context, Decimal

from schemas.fields import Action, Side
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)

WIDE = Context(prec=60)
OPEN = {OrderStatus.SUBMITTED, OrderStatus.AMENDED, OrderStatus.PARTIALLY_FILLED}


def key_of(record):
    return record.strategy, record.venue, record.symbol


def audit(records, starting_cash, latency_ns):
    """Assert the invariants of a history; return (cash, position by leg, net profit of outcomes)."""
    identities = [record.id for record in records]
    assert len(set(identities)) == len(identities)
    times = [record.event_time_ns for record in records]
    assert times == sorted(times)
    _audit_orders(records, latency_ns)
    return _audit_money(records, starting_cash)


def _audit_orders(records, latency_ns):
    last, approved, decided, filled, entries = {}, {}, {}, defaultdict(Decimal), defaultdict(int)
    known = set()
    for record in records:
        if isinstance(record, DecisionMade):
            decided[record.id] = record
            if record.verdict is not Verdict.DENIED:
                approved[record.id] = record
        elif isinstance(record, OrderFilled):
            order = last[record.order_id]
            assert order.status in OPEN
            filled[record.order_id] += record.quantity
            assert filled[record.order_id] <= order.quantity
            decision = approved[record.decision_id]
            if record.purpose in {OrderPurpose.ENTRY, OrderPurpose.EXIT}:
                assert record.event_time_ns > decision.event_time_ns + latency_ns
        elif isinstance(record, OrderUpdated):
            _audit_update(record, last.get(record.order_id), filled[record.order_id])
            assert record.cause in known
            last[record.order_id] = record
            assert record.decision_id in approved
            if record.purpose is OrderPurpose.ENTRY and record.sequence == 0:
                entries[record.decision_id] += 1
                assert record.quantity == approved[record.decision_id].quantity
        known.add(record.id)
    sent = {identity for identity, made in approved.items() if made.action is Action.ENTER}
    assert entries == dict.fromkeys(sent, 1)


def _audit_update(record, before, filled):
    assert record.filled_quantity == filled <= record.quantity
    assert len(record.client_order_id) <= 36
    if before is None:
        assert record.sequence == 0
        assert record.status is OrderStatus.SUBMITTED
        assert record.cause == record.decision_id
        return
    assert record.sequence == before.sequence + 1
    assert before.status in OPEN
    assert record.status is not OrderStatus.SUBMITTED
    assert record.filled_quantity >= before.filled_quantity
    assert (record.status is OrderStatus.FILLED) == (record.filled_quantity == record.quantity)
    if before.stop_price is not None:
        assert record.stop_price >= before.stop_price


def _audit_money(records, starting_cash):
    cash, positions = starting_cash, defaultdict(Decimal)
    protection = defaultdict(dict)
    cost = defaultdict(Decimal)
    net = Decimal(0)
    for record in records:
        if isinstance(record, OrderFilled):
            notional = WIDE.multiply(record.quantity, record.price)
            rate = Decimal("0.001")
            fee = WIDE.multiply(notional, rate).quantize(Decimal("1e-8"), ROUND_CEILING, WIDE)
            assert record.fee == fee
            sign = 1 if record.side is Side.BUY else -1
            cash -= sign * notional + record.fee
            positions[key_of(record)] += sign * record.quantity
            cost[key_of(record)] += sign * notional + record.fee
            assert positions[key_of(record)] >= 0
            assert cash >= 0
        elif isinstance(record, OrderUpdated) and record.purpose in {
            OrderPurpose.PROTECTIVE_STOP,
            OrderPurpose.TARGET,
        }:
            left = record.quantity - record.filled_quantity
            protection[key_of(record)][record.purpose] = left if record.status in OPEN else 0
        elif isinstance(record, PositionChanged):
            assert record.cash == cash
            assert record.equity == record.cash + record.exposure
            assert record.peak_equity >= record.equity
            if record.strategy:
                assert record.quantity == positions[key_of(record)]
                assert record.protected_quantity == record.quantity
                for left in protection[key_of(record)].values():
                    assert left == record.quantity
        elif isinstance(record, OutcomeClosed):
            assert positions[key_of(record)] == 0
            assert record.net_pnl == -cost.pop(key_of(record))
            assert record.net_pnl == record.gross_pnl - record.fees
            net += record.net_pnl
            protection.pop(key_of(record))
    assert starting_cash + net - sum(cost.values()) == cash
    return cash, {key: held for key, held in positions.items() if held}, net
