"""Signals, decisions, orders, fills and positions of the session, written by hand."""

from typing import Any
from zlib import crc32

from msgspec.structs import replace

from infra.audit.chain import ENTRY_CHECKS
from schemas.fields import Action, Side, Stance
from schemas.ids import client_order_id, derive_id
from schemas.market import FeaturesComputed
from schemas.models import ContextObserved, ModelEventKind, ModelEventRecorded
from schemas.operations import (
    Command,
    ControlApplied,
    ControlCommanded,
)
from schemas.opinions import OpinionPooled
from schemas.regime import Regime
from schemas.signals import SignalEmitted, Vote
from schemas.trading import (
    CheckMeasured,
    CheckVerdict,
    DecisionMade,
    OrderFilled,
    OrderKind,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)
from tests.infra.audit.facts import ACCOUNT, OWNED, PLACE, SECOND_NS, STRATEGY, SYMBOL, VENUE, D, at


def signal(of: FeaturesComputed, action: Action, close: float) -> SignalEmitted:
    entering = action is Action.ENTER
    sequence = crc32(f"{STRATEGY}/{action.value}".encode())
    vote = Vote(
        voter="model",
        kind="onnx",
        version="1",
        content_hash="a" * 64,
        stance=Stance.BUY,
        probability_sell=0.125,
        probability_hold=0.25,
        probability_buy=0.625,
        weight=0.6,
        reason="because",
    )
    silent = Vote(
        voter="silent",
        kind="onnx",
        version="",
        content_hash="",
        stance=Stance.ABSTAIN,
        probability_sell=None,
        probability_hold=None,
        probability_buy=None,
        weight=0.0,
        reason="no model is loaded",
    )
    return SignalEmitted(
        **PLACE,
        id=derive_id("trade.signals", f"{VENUE}:{SYMBOL}", of.close_time_ns, sequence, of.id),
        cause=of.id,
        event_time_ns=of.close_time_ns,
        strategy=STRATEGY,
        timeframe="1m",
        action=action,
        stance=Stance.BUY if entering else Stance.SELL,
        close=close,
        stop_price=95.0 if entering else None,
        target_price=None,
        trail_distance=None,
        horizon_bars=4,
        score=0.5,
        votes=[
            vote,
            replace(vote, voter="other", version="2", content_hash="b" * 64, weight=0.4),
            silent,
            replace(vote, voter=STRATEGY, kind="rule", weight=0.0),
        ],
        agreement="unanimous",
        multiplier=1.0,
        edge_threshold_bps=2.2,
        probability_sell=0.125,
        probability_hold=0.25,
        probability_buy=0.625,
        reason="because",
        bar_id=of.cause,
    )


def context(of: FeaturesComputed) -> ContextObserved:
    """The regime around a bar, as a rule sees it."""
    return ContextObserved(
        id=derive_id("market.context", f"{VENUE}:{SYMBOL}", of.close_time_ns, 0, of.id),
        cause=of.id,
        venue=VENUE,
        symbol=SYMBOL,
        event_time_ns=of.close_time_ns,
        kind="regime",
        regime=Regime.CRISIS,
        confidence=None,
        regime_since_ns=of.close_time_ns,
        transitions=0,
        source="rule",
        version="1",
        content_hash="c" * 64,
        reason="first bar of the day",
    )


def model_events() -> list[ModelEventRecorded]:
    """Who serves from the beginning, and what each counts: `silent` is nowhere to be found."""
    first = ModelEventRecorded(
        id="",
        cause="",
        model="model",
        kind=ModelEventKind.ACTIVATED,
        version="1",
        content_hash="a" * 64,
        previous_version="",
        partition=0,
        effective_from_ns=at(0),
        reason="active in the registry",
        event_time_ns=at(0),
    )
    changes: list[dict[str, Any]] = [
        {},
        {"model": "other", "version": "2", "content_hash": "b" * 64},
    ]
    for name, weight in (("model", 0.5), ("other", 0.3), ("silent", 0.2)):
        changes.append(
            {
                "model": name,
                "kind": ModelEventKind.WEIGHTS,
                "weight_effective": weight,
                "effective_from_ns": at(60),
                "event_time_ns": at(60),
                "reason": "floor: not scored yet" if name == "silent" else "better than the prior",
            }
        )
    return [replace(first, id=f"event/{i}", **change) for i, change in enumerate(changes)]


def opinion(of: FeaturesComputed) -> OpinionPooled:
    """Two that vote and one that is silent; without a volatility nothing promises to pay."""
    return OpinionPooled(
        **PLACE,
        id=derive_id("model.opinions", f"{VENUE}:{SYMBOL}", of.close_time_ns, 0, of.id),
        cause=of.id,
        event_time_ns=of.close_time_ns,
        timeframe="1m",
        voters=["model", "other", "silent"],
        sell=[0.125, 0.125, None],
        buy=[0.625, 0.625, None],
        stances=["buy", "buy", "abstain"],
        weights=[0.6, 0.4, 0.0],
        pooled_sell=0.125,
        pooled_buy=0.625,
        pooled_stance="buy",
        agreement="unanimous",
        agreeing=2,
        multiplier=1.0,
        edge_bps=None,
        threshold_bps=2.2,
        decided_stance="hold",
        bar_id=of.cause,
        raw_stances=["buy", "buy", "abstain"],
        tilts=[0.0, 0.0, None],
    )


_MEASURED = {
    "WARMING_UP": ("5", "0"),
    "STALE": ("30000000000", "900000000000"),
    "VOTE_AGAINST": ("0.5", "0.0"),
    "ORDER_RATE": ("1", "60"),
    "DAILY_LOSS": ("0", "5000"),
    "DRAWDOWN": ("0", "15000"),
    "POSITION_COUNT": ("1", "20"),
    "POSITION_NOTIONAL": ("12000", "10000"),
    "GROSS_NOTIONAL": ("5050", "100000"),
    "CASH": ("5060", "100000"),
    "LOT_SIZE": ("50", "0.00001"),
    "NOTIONAL_MIN": ("5050", "5"),
}


def decision(of: SignalEmitted, equity: str, quantity: str, halted: bool = False) -> DecisionMade:
    entering = of.action is Action.ENTER
    checks = []
    for name in ENTRY_CHECKS if entering else ["NO_POSITION"]:
        measured, limit = _MEASURED.get(name, ("ok", "ok"))
        denied = halted and name == "HALTED"
        resized = name == "POSITION_NOTIONAL"
        found = CheckVerdict.RESIZED if resized else CheckVerdict.PASSED
        verdict = CheckVerdict.DENIED if denied else found
        reason = name if denied else ""
        checks.append(
            CheckMeasured(
                check=name, measured=measured, limit=limit, verdict=verdict, reason=reason
            )
        )
    granted = Verdict.RESIZED if entering else Verdict.APPROVED
    return DecisionMade(
        **OWNED,
        id=derive_id("trade.decisions", ACCOUNT, of.event_time_ns, 0, of.id),
        cause=of.id,
        event_time_ns=of.event_time_ns,
        action=of.action,
        verdict=Verdict.DENIED if halted else granted,
        denial="HALTED" if halted else "",
        justification="because",
        quantity=D(quantity),
        reference_price=D(str(of.close)),
        equity=D(equity),
        checks=checks,
    )


def update(of: DecisionMade, purpose: OrderPurpose, **fields: Any) -> OrderUpdated:
    """One update of an order; `event_time_ns`, `sequence`, `status`, `cause` and `filled` vary."""
    sent = derive_id("trade.orders", ACCOUNT, of.event_time_ns, 0, of.id)
    order_id, client = sent, client_order_id(of.id)
    stop = purpose is OrderPurpose.PROTECTIVE_STOP
    if stop:
        order_id = derive_id("trade.orders", f"{ACCOUNT}/{purpose.value}", at(61), 0, sent)
        client = client_order_id(order_id)
    time_ns, sequence = fields["event_time_ns"], fields["sequence"]
    filled = fields.pop("filled", "0")
    return OrderUpdated(
        **OWNED,
        id=derive_id("trade.orders", order_id, time_ns, sequence, ""),
        order_id=order_id,
        client_order_id=client,
        decision_id=of.id,
        side=Side.BUY if purpose is OrderPurpose.ENTRY else Side.SELL,
        kind=OrderKind.STOP if stop else OrderKind.MARKET,
        purpose=purpose,
        quantity=D(50),
        filled_quantity=D(filled),
        limit_price=None,
        stop_price=D(95) if stop else None,
        reduce_only=purpose is not OrderPurpose.ENTRY,
        reason="",
        **{"cause": of.id} | fields,
    )


def fill(
    of: OrderUpdated, seconds: float, price: str, fee: str, tick_price: str, slippage: str
) -> OrderFilled:
    """`slippage`: how much worse than which reference, in price."""
    worse, reference = map(D, slippage.split())
    return OrderFilled(
        **OWNED,
        id=derive_id("trade.fills", of.order_id, at(seconds), 0, ""),
        cause=of.order_id,
        order_id=of.order_id,
        decision_id=of.decision_id,
        event_time_ns=at(seconds),
        side=of.side,
        purpose=of.purpose,
        quantity=D(50),
        price=D(price),
        fee=D(fee),
        fee_currency="USDT",
        liquidity="taker",
        tick_price=D(tick_price),
        slippage_bps=float(worse * 10_000 / reference),
    )


def position(
    time_ns: int, cause: str, number: int, quantity: str, realised: str, worth: str
) -> PositionChanged:
    """`worth`: cash, exposure and peak."""
    mark = cause.startswith("mark/")
    cash, exposure, peak = map(D, worth.split())
    held = D(quantity)
    key = ACCOUNT if mark else f"{ACCOUNT}/{STRATEGY}/{VENUE}:{SYMBOL}"
    owner = OWNED | ({"strategy": "", "venue": "", "symbol": ""} if mark else {})
    equity = cash + exposure
    return PositionChanged(
        **owner,
        id=derive_id("trade.positions", key, time_ns, number, cause),
        cause=cause,
        event_time_ns=time_ns,
        quantity=held,
        average_price=D("102.01") if held else D(0),
        stop_price=D(95) if held else None,
        target_price=None,
        protected_quantity=held,
        realised_pnl=D(realised),
        cash=cash,
        equity=equity,
        exposure=exposure,
        peak_equity=peak,
        drawdown_pct=float((peak - equity) * 100 / peak),
    )


def trading(vectors: list[FeaturesComputed]) -> list[Any]:
    """Return everything from the signals to the outcome."""
    signals = [
        signal(vectors[0], Action.ENTER, 101.0),
        signal(vectors[1], Action.EXIT, 99.5),
        signal(vectors[2], Action.ENTER, 105.0),
    ]
    entry, leave = decision(signals[0], "100000", "50"), decision(signals[1], "99869.3995", "50")
    refused = decision(signals[2], "100138.65", "0", halted=True)
    submitted, done = OrderStatus.SUBMITTED, OrderStatus.FILLED
    stop, enter, exit_ = OrderPurpose.PROTECTIVE_STOP, OrderPurpose.ENTRY, OrderPurpose.EXIT
    sent = update(entry, enter, event_time_ns=at(60), sequence=0, status=submitted)
    bought = fill(sent, 61, "102.01", "5.1005", "102.00", "1.01 101")
    leaving = update(leave, exit_, event_time_ns=at(120), sequence=0, status=submitted)
    sold = fill(leaving, 121, "104.99", "5.2495", "105.00", "-5.49 99.5")
    at_entry = {"event_time_ns": at(61), "cause": bought.id}
    at_exit = {"event_time_ns": at(121), "cause": sold.id, "sequence": 1}
    command_id = derive_id("ops.control", ACCOUNT, at(150), 0, "local/halt")
    return [
        *signals,
        entry,
        sent,
        bought,
        update(entry, enter, **at_entry, sequence=1, status=done, filled="50"),
        update(entry, stop, event_time_ns=at(61), sequence=0, status=submitted),
        position(at(61), bought.id, 0, "50", "-5.1005", "94894.3995 5100 100000"),
        position(at(120), f"mark/{at(120)}", 0, "0", "-5.1005", "94894.3995 4975 100000"),
        leave,
        leaving,
        sold,
        update(leave, exit_, **at_exit, status=done, filled="50"),
        update(entry, stop, **at_exit, status=OrderStatus.CANCELLED),
        position(at(121), sold.id, 1, "0", "138.65", "100138.65 0 100138.65"),
        closed(bought, sold),
        ControlCommanded(
            id=command_id,
            account=ACCOUNT,
            command=Command.HALT,
            reason="drill",
            issued_at_ns=at(150),
            signer="local",
            signature="c2ln",
        ),
        ControlApplied(
            id=derive_id("ops.applied", ACCOUNT, at(150), 0, command_id),
            cause=command_id,
            account=ACCOUNT,
            command=Command.HALT,
            event_time_ns=at(150),
            reason="drill",
        ),
        refused,
    ]


def closed(bought: OrderFilled, sold: OrderFilled) -> OutcomeClosed:
    entry_order = bought.order_id
    return OutcomeClosed(
        **OWNED,
        id=derive_id("trade.outcomes", ACCOUNT, at(121), 0, entry_order),
        cause=sold.id,
        event_time_ns=at(121),
        entry_decision_id=bought.decision_id,
        exit_decision_id=sold.decision_id,
        entry_time_ns=at(61),
        holding_ns=60 * SECOND_NS,
        quantity=D(50),
        entry_price=D("102.01"),
        exit_price=D("104.99"),
        gross_pnl=D(149),
        fees=D("10.35"),
        net_pnl=D("138.65"),
        return_pct=float(D("13865") / D("5100.5")),
        exit_reason="exit",
        entry_fills=1,
        exit_fills=1,
    )
