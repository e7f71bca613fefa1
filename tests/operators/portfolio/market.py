"""A small market for the portfolio tests: instruments, ticks, signals and ways to feed them."""

from decimal import Decimal

import polars as pl

from operators.portfolio import Portfolio
from schemas.batches import AccountInput, ControlReceived
from schemas.fields import Action, Provenance, Stance
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.operations import Command, ControlCommanded
from schemas.settings import PaperSettings, PortfolioSettings, VoteSettings
from schemas.signals import SignalEmitted
from schemas.ticks import TICK_FRAME

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
START = 1_704_067_200 * SECOND  # 2024-01-01T00:00:00Z
RECONSTRUCTED, RECORDED = 1, 2


def listing(symbol="AAA", **changes):
    fields = {
        "id": f"instrument/{symbol}",
        "venue": "spot",
        "symbol": symbol,
        "valid_from_ns": START,
        "price_decimals": 2,
        "size_decimals": 3,
        "tick_size": Decimal("0.01"),
        "lot_size": Decimal("0.001"),
        "notional_min": Decimal(5),
        "maker_fee_bps": 10.0,
        "taker_fee_bps": 10.0,
        "quote_currency": "USDT",
    }
    return InstrumentListed(**{**fields, **changes})


def book_of(*symbols):
    return InstrumentBook([listing(symbol) for symbol in (symbols or ("AAA",))])


def ticks_frame(rows):
    """Build a frame of (time, instrument, price, size, provenance) or quote (…, bid, ask) rows."""
    columns = {name: [] for name in TICK_FRAME}
    for offset, row in enumerate(rows):
        time_ns, instrument, price, size, provenance = row[:5]
        bid, ask = row[5:] if len(row) > 5 else (0, 0)
        values = (offset, 0, 2 if bid else 1, time_ns, instrument, price, size, 0, -1, bid, ask)
        for name, value in zip(TICK_FRAME, (*values, provenance), strict=True):
            columns[name].append(value)
    return pl.DataFrame(columns, schema=TICK_FRAME)


def signal(time_ns, symbol="AAA", action="enter", strategy="rule", **changes):
    entering = action == "enter"
    fields = {
        "id": f"signal/{strategy}/{symbol}/{time_ns}/{action}",
        "cause": "features/x",
        "venue": "spot",
        "symbol": symbol,
        "event_time_ns": time_ns,
        "strategy": strategy,
        "timeframe": "1h",
        "action": Action(action),
        "stance": Stance.BUY if entering else Stance.SELL,
        "close": 100.0,
        "stop_price": 95.0 if entering else None,
        "target_price": None,
        "trail_distance": None,
        "horizon_bars": 4,
        "score": 0.5,
        "probability_sell": 0.125,
        "probability_hold": 0.25,
        "probability_buy": 0.625,
        "votes": [],
        "reason": "RSI 30 below 35",
        "bar_id": "bar/x",
        "provenance": Provenance.RECORDED,
    }
    return SignalEmitted(**{**fields, **changes})


def command(name, identity="c1", issued_at_ns=0, account="paper"):
    return ControlCommanded(
        id=identity,
        account=account,
        command=Command(name),
        reason="test",
        issued_at_ns=issued_at_ns,
        signer="operator",
        signature="",
    )


def control(name, effective_ns=None, identity="c1"):
    return ControlReceived(command=command(name, identity), effective_ns=effective_ns)


def settings(**changes):
    fields = {"position_notional_max_pct": Decimal(10)}
    return PortfolioSettings(**{**fields, **changes})


def paper(**changes):
    fields = {"latency_ms": 0, "half_spread_bps": Decimal(0), "participation_max": Decimal(1)}
    return PaperSettings(**{**fields, **changes})


def portfolio(partitions=(0,), portfolio_settings=None, paper_settings=None, vote=None):
    return Portfolio(
        "paper",
        list(partitions),
        portfolio_settings or settings(),
        paper_settings or paper(),
        vote or VoteSettings(),
        models_enabled=True,
    )


def feed(target, rows=(), signals=(), through=None, book=None, controls=()):
    """Give everything at once and let the watermarks pass it."""
    times = [row[0] for row in rows] + [given.event_time_ns for given in signals]
    through = through or max(times) + 1
    given = AccountInput(
        partition=0,
        ticks=ticks_frame(rows) if rows else None,
        signals=list(signals),
        tick_watermark_ns=through,
        signal_watermark_ns=through,
        controls=list(controls),
    )
    return target.advance([given], book or book_of())


def of(kind, records):
    return [record for record in records if isinstance(record, kind)]
