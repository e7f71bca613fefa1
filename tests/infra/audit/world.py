"""A small market session written by hand, record by record, and ways to put it where it is audited.

One symbol, three minutes: a quote, a repeated trade, a late one, two refused lines; an entry, its
stop, an hour mark while it is open, an exit that closes it, and an entry refused while halted.
"""

from decimal import Decimal
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import polars as pl

from infra.audit.chain import ENTRY_CHECKS
from infra.audit.log import LogRecord
from infra.audit.report import Place
from infra.settings import Settings, settings_hash, settings_json
from schemas.codec import Origin, build_headers, encode
from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Action, Provenance, Side, Stance
from schemas.ids import bar_id, client_order_id, derive_id, features_id, tick_id
from schemas.market import BarClosed, FeaturesComputed, InstrumentListed, TickLate
from schemas.operations import (
    Command,
    ControlApplied,
    ControlCommanded,
    SettingsPublished,
    build_dead_letter,
)
from schemas.settings import BarSettings, PaperSettings, PortfolioSettings
from schemas.signals import SignalEmitted, Vote
from schemas.ticks import CONTENT_ARROW, CONTENT_NDJSON, TICK_WIRE
from schemas.topics import TOPICS, record_key
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

SECOND_NS = 1_000_000_000
T0 = 1_723_075_200_000_000_000 + 58 * 60 * SECOND_NS
"""Two minutes before a full hour."""

D = Decimal
ACCOUNT, STRATEGY, VENUE, SYMBOL = "PAPER-1", "rule", "binance_spot", "BTCUSDT"
RECORDED = Provenance.RECORDED
PARTITIONS = 2
SETTINGS = Settings(
    bars=BarSettings(timeframes=("1m",), lateness_ms=2_000),
    models={},
    strategies={},
    portfolio=PortfolioSettings(position_notional_max_pct=D(10), gross_notional_max_pct=D(100)),
    paper=PaperSettings(latency_ms=250, participation_max=D("0.25")),
)
CONFIG = settings_hash(SETTINGS)
PLACE: dict[str, Any] = {"venue": VENUE, "symbol": SYMBOL, "provenance": RECORDED}
OWNED: dict[str, Any] = {**PLACE, "account": ACCOUNT, "strategy": STRATEGY}


def at(seconds: float) -> int:
    return T0 + int(seconds * SECOND_NS)


class Written(NamedTuple):
    """One record before it is published."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    message: Any = None


def tick_line(seconds: float, **fields: Any) -> bytes:
    line = {"kind": "trade", "event_time_ns": at(seconds), "venue": VENUE, "symbol": SYMBOL}
    return msgspec.json.encode(line | fields)


def tick_record(value: bytes, content: str = CONTENT_NDJSON, partition: int = 0) -> Written:
    headers = [("content-type", content.encode()), ("provenance", b"recorded")]
    return Written("market.ticks", partition, b"k", value, headers)


def arrow(rows: list[dict[str, Any]]) -> bytes:
    import io

    out = io.BytesIO()
    base = {"kind": "trade", "venue": VENUE, "symbol": SYMBOL}
    frame = pl.DataFrame([base | row for row in rows], schema=TICK_WIRE)
    frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def heartbeat(seconds: float, partition: int) -> Written:
    value = msgspec.json.encode({"kind": "heartbeat", "event_time_ns": at(seconds)})
    return tick_record(value, partition=partition)


BROKEN = b'{"kind":"trade",'


def ticks() -> list[Written]:
    seen = tick_line(30, price=101.0, size=1.5, side="sell", trade_id=2)
    quote = {"kind": "quote", "price": None, "bid": 100.99, "ask": 101.01}
    return [
        tick_record(tick_line(1, price=100.0, size=2, side="buy", trade_id=1) + b"\n" + seen),
        tick_record(BROKEN + b"\n\n" + seen + b"\r\n" + tick_line(31, **quote) + b"\n"),
        tick_record(
            arrow(
                [
                    {"event_time_ns": at(61), "price": 102.0, "size": 400.0, "trade_id": 3},
                    {"event_time_ns": at(62), "price": 99.5, "size": 1.0, "trade_id": 4},
                ]
            ),
            CONTENT_ARROW,
        ),
        tick_record(tick_line(10, price=100.0, size=1, trade_id=5)),
        tick_record(b""),
        tick_record(tick_line(121, price=105.0, size=1000, side="buy", trade_id=6)),
        heartbeat(185, 0),
        heartbeat(185, 1),
    ]


def bar(minute: int, prices: str, volume: float, **fields: Any) -> BarClosed:
    opened, high, low, close = map(float, prices.split())
    close_ns = at(60 * minute)
    last = (fields["last_offset"], fields["last_line"])
    return BarClosed(
        **PLACE,
        id=bar_id(VENUE, SYMBOL, "1m", close_ns),
        cause=tick_id(0, *last),
        timeframe="1m",
        open_time_ns=at(60 * (minute - 1)),
        close_time_ns=close_ns,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        partition=0,
        gap_bars=0,
        **{"buy_volume": None, "spread_bps_mean": None, "duplicates": 0, "first_line": 0} | fields,
    )


def bars() -> list[BarClosed]:
    quoted = {"spread_bps_mean": 1.980198, "duplicates": 1, "buy_volume": 2.0, "trades": 2}
    first = {"first_offset": 0, "last_offset": 1, "last_line": 2}
    second = {"first_offset": 2, "last_offset": 2, "last_line": 1, "trades": 2}
    third = {"first_offset": 5, "last_offset": 5, "last_line": 0, "trades": 1}
    return [
        bar(1, "100 101 100 101", 3.5, **quoted, **first),
        bar(2, "102 102 99.5 99.5", 401.0, **second),
        bar(3, "105 105 105 105", 1000.0, buy_volume=1000.0, **third),
    ]


def features(of: BarClosed) -> FeaturesComputed:
    schema = FEATURE_SCHEMAS["fs34"]
    return FeaturesComputed(
        **PLACE,
        id=features_id(VENUE, SYMBOL, "1m", of.close_time_ns),
        cause=of.id,
        timeframe="1m",
        close_time_ns=of.close_time_ns,
        schema_name="fs34",
        schema_hash=schema.schema_hash,
        vector=[None, *([0.5] * (len(schema) - 1))],
        missing_mask=1,
        partition=0,
        first_offset=of.first_offset,
        last_offset=of.last_offset,
    )


def signal(of: FeaturesComputed, action: Action, close: float) -> SignalEmitted:
    entering = action is Action.ENTER
    sequence = crc32(f"{STRATEGY}/{action.value}".encode())
    vote = Vote(
        voter=STRATEGY,
        kind="rule",
        version="1",
        content_hash="a" * 64,
        stance=Stance.BUY,
        probability_sell=None,
        probability_hold=None,
        probability_buy=0.5,
        weight=1.0,
        reason="because",
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
        votes=[vote],
        reason="because",
        bar_id=of.cause,
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


def fill(of: OrderUpdated, seconds: float, price: str, fee: str, tick_price: str) -> OrderFilled:
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
        slippage_bps=1.0,
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
    bought = fill(sent, 61, "102.01", "5.1005", "102.00")
    leaving = update(leave, exit_, event_time_ns=at(120), sequence=0, status=submitted)
    sold = fill(leaving, 121, "104.99", "5.2495", "105.00")
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


def write(message: Any, epoch: int = 1) -> Written:
    """Return the record of a message, as a sink would write it."""
    topic = TOPICS[message.topic]
    origin = Origin(config_hash=CONFIG, epoch=epoch)
    provenance = getattr(message, "provenance", "")
    headers = build_headers(type(message), message.id, message.cause, provenance, origin)
    stamps = [("emit-ns", b"%d" % at(7)), ("ingest-ns", b"%d" % at(5))]
    partition = getattr(message, "partition", 0) if topic.partitioned else 0
    key = record_key(message).encode()
    return Written(topic.name, partition, key, encode(message), headers + stamps, message)


def session() -> list[Written]:
    """Return every record of the session."""
    closing = bars()
    vectors = [features(each) for each in closing]
    listing = InstrumentListed(
        id="listing",
        venue=VENUE,
        symbol=SYMBOL,
        valid_from_ns=T0,
        price_decimals=2,
        size_decimals=5,
        tick_size=D("0.01"),
        lot_size=D("0.00001"),
        notional_min=D(5),
        maker_fee_bps=10.0,
        taker_fee_bps=10.0,
    )
    late = TickLate(
        **PLACE,
        id="late/0/3/0",
        cause=tick_id(0, 3, 0),
        event_time_ns=at(10),
        late_by_ns=50 * SECOND_NS,
        partition=0,
        offset=3,
        line=0,
        price=100.0,
        size=1.0,
    )
    messages = [
        SettingsPublished(id=CONFIG, settings_json=settings_json(SETTINGS)),
        listing,
        build_dead_letter("market.ticks", 0, 1, 0, "NOT_JSON", "cut off", BROKEN),
        build_dead_letter("market.ticks", 0, 4, -1, "EMPTY_RECORD", "no value", b""),
        late,
        *closing,
        *vectors,
        *trading(vectors),
    ]
    return [*ticks(), *(write(message) for message in messages)]


class ListedLog:
    """A log in memory: records in the order of the list, offsets by partition."""

    has_headers = True
    has_ticks = True

    def __init__(
        self, records: list[Written], timestamp_ms: int = T0 // 1_000_000 + 200_000
    ) -> None:
        self._records: dict[tuple[str, int], list[LogRecord]] = {}
        for topic in TOPICS.values():
            for partition in range(PARTITIONS if topic.partitioned else 1):
                self._records[topic.name, partition] = []
        for record in records:
            listed = self._records[record.topic, record.partition]
            place = Place(record.topic, record.partition, len(listed))
            headers = dict(reversed(record.headers))
            listed.append(LogRecord(place, timestamp_ms, record.key, headers, record.value))

    def partitions(self, topic: str) -> list[int]:
        return [partition for name, partition in self._records if name == topic]

    def start(self, topic: str, partition: int) -> int:
        return 0

    def records(self, topic: str, partition: int):
        return iter(self._records[topic, partition])

    def total(self) -> int:
        return sum(map(len, self._records.values()))

    def moved(self) -> str:
        return ""

    def close(self) -> None:
        pass
