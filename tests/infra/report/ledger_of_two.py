"""A session small enough to add up by hand: three closed legs and two signals that were denied.

| leg | strategy | symbol | quantity | bought | sold | fees | net |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | rsi_mean_reversion | BTCUSDT | 2 | 100 | 110 | 0.5 + 0.5 | +19 |
| 2 | rsi_mean_reversion | BTCUSDT | 1 | 100 | 95 (stop) | 0.25 + 0.25 | -5.5 |
| 3 | ma_crossover | ETHUSDT | 10 | 10 | 12 (target) | 0.1 + 0.4 | +19.5 |
"""

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from schemas.fields import Action, Provenance, Side
from schemas.ids import bar_id, derive_id
from schemas.trading import OrderPurpose, OrderStatus, Verdict
from tests.contracts import samples

HOUR_NS = samples.HOUR_NS
START_NS = samples.OPEN_NS
CASH = Decimal(1000)
BTC, ETH = "BTCUSDT", "ETHUSDT"
RSI, CROSSOVER = "rsi_mean_reversion", "ma_crossover"

CLOSES = {BTC: (100.0, 110.0, 120.0, 100.0, 95.0, 120.0), ETH: (10.0, 10.0, 12.0, 12.0, 11.0, 15.0)}
"""Close of each hourly bar; the first closes one hour after the start."""


def bars() -> list[Struct]:
    """Return the hourly bars of both symbols."""
    template = samples.bar(START_NS + HOUR_NS)
    return [
        replace(
            template,
            id=bar_id(samples.VENUE, symbol, "1h", START_NS + hour * HOUR_NS),
            symbol=symbol,
            open_time_ns=START_NS + (hour - 1) * HOUR_NS,
            close_time_ns=START_NS + hour * HOUR_NS,
            open=close,
            high=close + 1,
            low=close - 1,
            close=close,
            provenance=Provenance.RECONSTRUCTED,
        )
        for symbol, closes in CLOSES.items()
        for hour, close in enumerate(closes, start=1)
    ]


def signal(strategy: str, symbol: str, hour: int, action: Action = Action.ENTER) -> Struct:
    """Return a signal on the close of `hour`; its horizon is one bar."""
    time_ns = START_NS + hour * HOUR_NS
    template = samples.signal(samples.features(samples.bar(time_ns)), action)
    return replace(
        template,
        id=derive_id("trade.signals", f"{strategy}:{symbol}", time_ns, 0, action),
        strategy=strategy,
        symbol=symbol,
        close=CLOSES[symbol][hour - 1],
        horizon_bars=1,
    )


def decision(of, verdict: Verdict = Verdict.APPROVED, denial: str = "") -> Struct:
    """Return the decision on a signal."""
    made = samples.decision(of, verdict)
    return replace(made, strategy=of.strategy, symbol=of.symbol, denial=denial)


def trade(
    of, purpose: OrderPurpose, quantity: str, price: str, fee: str, tick: str
) -> list[Struct]:
    """Return an order of a decision with its fill: submitted update, filled update, fill."""
    updates = [
        replace(update, strategy=of.strategy, symbol=of.symbol, quantity=Decimal(quantity))
        for update in samples.order(of, purpose, [OrderStatus.SUBMITTED, OrderStatus.FILLED])
    ]
    filled = replace(
        samples.fill(updates[-1]),
        strategy=of.strategy,
        symbol=of.symbol,
        side=Side.BUY if purpose is OrderPurpose.ENTRY else Side.SELL,
        quantity=Decimal(quantity),
        price=Decimal(price),
        fee=Decimal(fee),
        tick_price=Decimal(tick),
        slippage_bps=2.0 if purpose is OrderPurpose.ENTRY else -1.0,
        provenance=Provenance.RECONSTRUCTED,
    )
    return [*updates, filled]


def outcome(entry, exit_fill, gross: str) -> Struct:
    """Return the closed leg between two fills."""
    fees = entry.fee + exit_fill.fee
    net = Decimal(gross) - fees
    return replace(
        samples.outcome(entry, exit_fill),
        strategy=entry.strategy,
        symbol=entry.symbol,
        gross_pnl=Decimal(gross),
        fees=fees,
        net_pnl=net,
        return_pct=float(net * 100 / (entry.quantity * entry.price)),
        holding_ns=2 * HOUR_NS,
        exit_reason=exit_fill.purpose.value,
    )


def leg(strategy, symbol, hours, quantity, entry, leaving, gross) -> list[Struct]:
    """Return every record of one leg; `entry` and `leaving` are (price, fee, tick)."""
    opening = signal(strategy, symbol, hours[0])
    approved = decision(opening)
    bought = trade(approved, OrderPurpose.ENTRY, quantity, *entry)
    purpose, *sold_at = leaving
    records: list[Struct] = [opening, approved, *bought]
    behind = approved
    if purpose is OrderPurpose.EXIT:
        closing = signal(strategy, symbol, hours[1], Action.EXIT)
        behind = decision(closing)
        records += [closing, behind]
    moved = replace(behind, event_time_ns=START_NS + hours[1] * HOUR_NS)
    sold = trade(moved, purpose, quantity, *sold_at)
    return [*records, *sold, outcome(bought[-1], sold[-1], gross)]


def mark(hour: int, equity: str, exposure: str = "0", drawdown_pct: float = 0.0) -> Struct:
    """Return an hourly mark of the account."""
    time_ns = START_NS + hour * HOUR_NS
    first = samples.closed_leg()
    template = next(row for row in first if type(row).__name__ == "PositionChanged")
    return replace(
        template,
        id=derive_id("trade.positions", "marks", time_ns, 0, ""),
        cause=f"mark/{time_ns}",
        strategy="",
        venue="",
        symbol="",
        event_time_ns=time_ns,
        quantity=Decimal(0),
        stop_price=None,
        equity=Decimal(equity),
        exposure=Decimal(exposure),
        drawdown_pct=drawdown_pct,
    )


def session_records() -> list[Struct]:
    """Return the whole session."""
    stop, target = OrderPurpose.PROTECTIVE_STOP, OrderPurpose.TARGET
    late = signal(CROSSOVER, BTC, 4)
    early = signal(CROSSOVER, BTC, 1)
    repeated = signal(CROSSOVER, ETH, 3)
    return [
        *bars(),
        early,
        decision(early, Verdict.DENIED, "WARMING_UP"),
        *leg(
            RSI, BTC, (1, 2), "2", ("100", "0.5", "99.5"),
            (OrderPurpose.EXIT, "110", "0.5", "110.25"), "20",
        ),
        *leg(RSI, BTC, (4, 5), "1", ("100", "0.25", "100"), (stop, "95", "0.25", "94"), "-5"),
        *leg(CROSSOVER, ETH, (2, 3), "10", ("10", "0.1", "10"), (target, "12", "0.4", "12.5"), "20"),
        late,
        decision(late, Verdict.DENIED, "CASH"),
        repeated,
        decision(repeated, Verdict.DENIED, "CASH"),
        mark(1, "1000"),
        mark(2, "1019", "100"),
        mark(3, "1038.5", "0"),
        mark(4, "990", "495", drawdown_pct=4.67),
        mark(5, "1033"),
    ]  # fmt: skip
