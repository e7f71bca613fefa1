"""One realistic chain of records, entry to exit, and its golden bytes.

`python -m tests.contracts.samples` writes the golden files that are missing; it never rewrites one,
because bytes that were released once must be readable for ever. A new class only adds to the list
of released fields.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from schemas.batches import ProgressMarked
from schemas.codec import encode
from schemas.exports import contract_classes
from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Action, Provenance, Side, Stance
from schemas.ids import bar_id, client_order_id, derive_id, features_id, tick_id
from schemas.market import BarClosed, FeaturesComputed, InstrumentListed, TickLate
from schemas.models import ContextObserved, ModelEventKind, ModelEventRecorded
from schemas.operations import (
    AlertRaised,
    Command,
    ControlApplied,
    ControlCommanded,
    SettingsPublished,
    build_dead_letter,
)
from schemas.opinions import OpinionPooled
from schemas.regime import Regime
from schemas.signals import SignalEmitted, Vote
from schemas.ticks import TickLine
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
from tests.contracts.growth import describe_fields

GOLDEN = Path(__file__).parent / "golden" / "v1"

OPEN_NS = 1_723_075_200_000_000_000
HOUR_NS = 3_600_000_000_000
MINUTE_NS = 60_000_000_000
VENUE, SYMBOL, ACCOUNT, STRATEGY = "binance_spot", "BTCUSDT", "paper", "rsi_mean_reversion"
RECORDED = Provenance.RECORDED
PLACE: dict[str, Any] = {"venue": VENUE, "symbol": SYMBOL, "provenance": RECORDED}
OWNED: dict[str, Any] = {**PLACE, "account": ACCOUNT, "strategy": STRATEGY}


def bar(close_time_ns: int, *, first_offset: int = 10) -> BarClosed:
    return BarClosed(
        **PLACE,
        id=bar_id(VENUE, SYMBOL, "1h", close_time_ns),
        cause=tick_id(2, first_offset + 5, 3),
        timeframe="1h",
        open_time_ns=close_time_ns - HOUR_NS,
        close_time_ns=close_time_ns,
        open=61828.0,
        high=61860.8,
        low=61583.22,
        close=61685.99,
        volume=199.42863,
        buy_volume=101.5,
        trades=4,
        spread_bps_mean=None,
        gap_bars=0,
        duplicates=1,
        partition=2,
        first_offset=first_offset,
        first_line=0,
        last_offset=first_offset + 5,
        last_line=3,
    )


def features(of: BarClosed) -> FeaturesComputed:
    schema = FEATURE_SCHEMAS["fs34"]
    vector = [None, *(0.5 * place for place in range(1, len(schema)))]
    return FeaturesComputed(
        **PLACE,
        id=features_id(VENUE, SYMBOL, of.timeframe, of.close_time_ns),
        cause=of.id,
        timeframe=of.timeframe,
        close_time_ns=of.close_time_ns,
        schema_name=schema.name,
        schema_hash=schema.schema_hash,
        vector=vector,
        missing_mask=1 | 1 << 63,
        partition=of.partition,
        first_offset=of.first_offset,
        last_offset=of.last_offset,
    )


def signal(of: FeaturesComputed, action: Action) -> SignalEmitted:
    cast = Stance.BUY if action is Action.ENTER else Stance.SELL
    rule = Vote(
        voter=STRATEGY,
        kind="rule",
        version="1",
        content_hash="a" * 64,
        stance=cast,
        probability_sell=None,
        probability_hold=None,
        probability_buy=None,
        weight=1.0,
        reason='RSI 34.20 below 35; the "oversold" line',
    )
    model = Vote(
        voter="lightgbm",
        kind="onnx",
        version="2024.06",
        content_hash="b" * 64,
        stance=Stance.HOLD,
        probability_sell=0.25,
        probability_hold=0.5,
        probability_buy=0.25,
        weight=1.0,
        reason="largest probability is hold",
    )
    entering = action is Action.ENTER
    return SignalEmitted(
        **PLACE,
        id=derive_id("trade.signals", f"{VENUE}:{SYMBOL}", of.close_time_ns, 0, of.id),
        cause=of.id,
        event_time_ns=of.close_time_ns,
        strategy=STRATEGY,
        timeframe=of.timeframe,
        action=action,
        stance=cast,
        close=61685.99,
        stop_price=61000.5 if entering else None,
        target_price=62900.0 if entering else None,
        trail_distance=None,
        horizon_bars=4,
        score=0.5,
        votes=[rule, model],
        reason="RSI 34.20 below 35; stop 2.0 x ATR 342.75 = 61000.5",
        bar_id=of.cause,
    )


def decision(of: SignalEmitted, verdict: Verdict = Verdict.RESIZED) -> DecisionMade:
    denied = verdict is Verdict.DENIED
    checks = [
        CheckMeasured(check="HALTED", measured="false", limit="false", verdict=CheckVerdict.PASSED),
        CheckMeasured(
            check="POSITION_NOTIONAL",
            measured="145000.12",
            limit="10000",
            verdict=CheckVerdict.DENIED if denied else CheckVerdict.RESIZED,
            reason="POSITION_NOTIONAL" if denied else "",
        ),
    ]
    return DecisionMade(
        **OWNED,
        id=derive_id("trade.decisions", ACCOUNT, of.event_time_ns, 0, of.id),
        cause=of.id,
        event_time_ns=of.event_time_ns,
        action=of.action,
        verdict=verdict,
        denial="POSITION_NOTIONAL" if denied else "",
        justification="risk 1.0 % of 100000 would buy 2.35 BTC; the position cap allows 0.16211",
        quantity=Decimal(0) if denied else Decimal("0.16211"),
        reference_price=Decimal("61685.99"),
        equity=Decimal(100_000),
        checks=checks,
    )


def order(
    of: DecisionMade, purpose: OrderPurpose, updates: list[OrderStatus]
) -> list[OrderUpdated]:
    order_id = derive_id("trade.orders", ACCOUNT, of.event_time_ns, 0, of.id + purpose)
    stop = purpose is OrderPurpose.PROTECTIVE_STOP
    entry = purpose is OrderPurpose.ENTRY
    return [
        OrderUpdated(
            **OWNED,
            id=derive_id(order_id, ACCOUNT, of.event_time_ns + number, number, of.id),
            cause=of.id,
            order_id=order_id,
            client_order_id=client_order_id(order_id),
            decision_id=of.id,
            event_time_ns=of.event_time_ns + number,
            sequence=number,
            side=Side.BUY if entry else Side.SELL,
            kind=OrderKind.STOP if stop else OrderKind.MARKET,
            purpose=purpose,
            status=status,
            quantity=Decimal("0.16211"),
            filled_quantity=Decimal("0.16211") if status is OrderStatus.FILLED else Decimal(0),
            limit_price=None,
            stop_price=Decimal("61000.5") if stop else None,
            reduce_only=not entry,
            reason="",
        )
        for number, status in enumerate(updates)
    ]


def fill(of: OrderUpdated) -> OrderFilled:
    return OrderFilled(
        **OWNED,
        id=derive_id("trade.fills", of.order_id, of.event_time_ns, 0, of.order_id),
        cause=of.order_id,
        order_id=of.order_id,
        decision_id=of.decision_id,
        event_time_ns=of.event_time_ns,
        side=of.side,
        purpose=of.purpose,
        quantity=of.quantity,
        price=Decimal("61692.16"),
        fee=Decimal("10.00091586"),
        fee_currency="USDT",
        liquidity="taker",
        tick_price=Decimal("61685.99"),
        slippage_bps=1.0,
    )


def position(of: OrderFilled, quantity: Decimal) -> PositionChanged:
    return PositionChanged(
        **OWNED,
        id=derive_id("trade.positions", ACCOUNT, of.event_time_ns, 0, of.id),
        cause=of.id,
        event_time_ns=of.event_time_ns,
        quantity=quantity,
        average_price=of.price if quantity else Decimal(0),
        stop_price=Decimal("61000.5") if quantity else None,
        target_price=None,
        protected_quantity=quantity,
        realised_pnl=Decimal("-1E-8"),
        cash=Decimal("89988.99"),
        equity=Decimal("99988.99"),
        exposure=Decimal("10000.00"),
        peak_equity=Decimal(100_000),
        drawdown_pct=0.011,
    )


def outcome(entry: OrderFilled, exit_fill: OrderFilled) -> OutcomeClosed:
    return OutcomeClosed(
        **OWNED,
        id=derive_id("trade.outcomes", ACCOUNT, exit_fill.event_time_ns, 0, exit_fill.id),
        cause=exit_fill.id,
        event_time_ns=exit_fill.event_time_ns,
        entry_decision_id=entry.decision_id,
        exit_decision_id=exit_fill.decision_id,
        entry_time_ns=entry.event_time_ns,
        holding_ns=exit_fill.event_time_ns - entry.event_time_ns,
        quantity=entry.quantity,
        entry_price=entry.price,
        exit_price=exit_fill.price,
        gross_pnl=Decimal(0),
        fees=Decimal("20.00183172"),
        net_pnl=Decimal("-20.00183172"),
        return_pct=-0.2,
        exit_reason="exit",
        entry_fills=1,
        exit_fills=1,
    )


def closed_leg(open_time_ns: int = OPEN_NS) -> list[Struct]:
    """Return every record from the bar of the entry to the outcome of the exit."""
    found: list[Struct] = []
    fills: list[OrderFilled] = []
    steps = ((Action.ENTER, OrderPurpose.ENTRY), (Action.EXIT, OrderPurpose.EXIT))
    for hour, (action, purpose) in enumerate(steps, start=1):
        closed = bar(open_time_ns + hour * HOUR_NS, first_offset=10 * hour)
        vector = features(closed)
        opinion = signal(vector, action)
        made = decision(opinion)
        updates = order(made, purpose, [OrderStatus.SUBMITTED, OrderStatus.FILLED])
        fills.append(fill(updates[-1]))
        held = fills[-1].quantity if action is Action.ENTER else Decimal(0)
        found += [closed, vector, opinion, made, *updates, fills[-1], position(fills[-1], held)]
    return [*found, outcome(*fills)]


def denied_leg(open_time_ns: int) -> list[Struct]:
    """Return the records of a signal that was not traded."""
    closed = bar(open_time_ns + HOUR_NS)
    vector = features(closed)
    opinion = signal(vector, Action.ENTER)
    return [closed, vector, opinion, decision(opinion, Verdict.DENIED)]


def samples() -> list[Struct]:
    """Return one message of each contract class."""
    leg = {type(message): message for message in reversed(closed_leg())}
    others: list[Struct] = [
        TickLine(
            kind="trade",
            event_time_ns=OPEN_NS,
            venue=VENUE,
            symbol=SYMBOL,
            price=61685.99,
            size=0.25,
            side="buy",
            trade_id=3_734_567_890,
        ),
        InstrumentListed(
            id=f"instrument/{VENUE}/{SYMBOL}/{OPEN_NS}",
            venue=VENUE,
            symbol=SYMBOL,
            valid_from_ns=OPEN_NS,
            price_decimals=2,
            size_decimals=5,
            tick_size=Decimal("0.01"),
            lot_size=Decimal("0.00001"),
            notional_min=Decimal(5),
            maker_fee_bps=10.0,
            taker_fee_bps=10.0,
            quote_currency="USDT",
        ),
        TickLate(
            **PLACE,
            id=tick_id(2, 7, 1),
            cause="",
            event_time_ns=OPEN_NS,
            late_by_ns=5_000_000_000,
            partition=2,
            offset=7,
            line=1,
            price=61685.99,
            size=None,
        ),
        ControlCommanded(
            id="c" * 32,
            account=ACCOUNT,
            command=Command.HALT,
            reason="drill",
            issued_at_ns=OPEN_NS,
            signer="operator",
            signature="c2lnbmF0dXJl",
        ),
        ControlApplied(
            id="d" * 32,
            cause="c" * 32,
            account=ACCOUNT,
            command=Command.HALT,
            event_time_ns=OPEN_NS,
            reason="drill",
        ),
        ModelEventRecorded(
            id="1" * 32,
            cause="c" * 32,
            model="lightgbm",
            kind=ModelEventKind.ACTIVATED,
            version="2.bbbbbbbb",
            content_hash="b" * 64,
            previous_version="1.aaaaaaaa",
            partition=2,
            effective_from_ns=OPEN_NS + 1,
            weight_configured=0.25,
            weight_effective=None,
            scored_events=500,
            log_loss=1.0986,
            reason="drill",
            event_time_ns=OPEN_NS,
        ),
        ContextObserved(
            id="2" * 32,
            cause="c" * 32,
            venue=VENUE,
            symbol=SYMBOL,
            event_time_ns=OPEN_NS,
            kind="regime",
            regime=Regime.BULL_TRENDING,
            confidence=0.75,
            regime_since_ns=OPEN_NS - HOUR_NS,
            transitions=3,
            source="rule",
            version="1",
            content_hash="a" * 64,
            reason="slope 0.7 %; range ratio 1.1",
        ),
        OpinionPooled(
            id="3" * 32,
            cause="c" * 32,
            venue=VENUE,
            symbol=SYMBOL,
            event_time_ns=OPEN_NS,
            timeframe="1h",
            voters=["lightgbm", "river_logistic"],
            sell=[0.25, None],
            buy=[0.5, None],
            stances=["buy", "abstain"],
            weights=[1.0, 0.0],
            pooled_sell=0.25,
            pooled_buy=0.5,
            pooled_stance="buy",
            agreement="unanimous",
            agreeing=1,
            multiplier=1.02,
            edge_bps=3.5,
            threshold_bps=2.2,
            decided_stance="buy",
            bar_id="bar/1",
            provenance=Provenance.RECONSTRUCTED,
        ),
        SettingsPublished(id="e" * 12, settings_json='{"bars":{"lateness_ms":2000}}'),
        AlertRaised(
            id="f" * 32, cause="", kind="LAG", resolved=False, event_time_ns=OPEN_NS, text="behind"
        ),
        build_dead_letter("market.ticks", 2, 8, 3, "NOT_JSON", "expected '}'", b'{"kind":'),
        ProgressMarked(partition=2, complete_through_ns=OPEN_NS),
    ]
    return list((leg | {type(message): message for message in others}).values())


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for each in samples():
        file = GOLDEN / f"{type(each).__name__}.json"
        if not file.exists():
            file.write_bytes(encode(each) + b"\n")
    listed = GOLDEN / "fields.json"
    released = msgspec.json.decode(listed.read_bytes()) if listed.exists() else {}
    today = {each.__name__: describe_fields(each) for each in contract_classes()}
    listed.write_bytes(msgspec.json.format(msgspec.json.encode(today | released), indent=1) + b"\n")


if __name__ == "__main__":
    main()
