"""Streams of ticks for tests: a book, frames from rows, random logs, and cuts into batches."""

from decimal import Decimal

import numpy as np
import polars as pl
from hypothesis import strategies as st

from operators.bars import BarMachine
from operators.screen import TickScreen
from operators.sessions import SessionTable
from schemas.frames import polars_schema
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, InstrumentListed
from schemas.ticks import TICK_FRAME

MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
LATENESS_NS = 30_000_000_000
START_NS = 1_381_152_000_000_000_000
"""2013-10-07 13:20 UTC, ten minutes before New York opens."""

# Short sessions and a weekend: a random stream sees before, inside, between and after.
_EDGES_NS = [(10 * MINUTE_NS, 4 * HOUR_NS), (5 * HOUR_NS, 8 * HOUR_NS), (3 * DAY_NS, 4 * DAY_NS)]
SESSIONS = {
    "TEST": SessionTable(
        calendar="TEST",
        open_ns=np.array([START_NS + open_ns for open_ns, _ in _EDGES_NS]),
        close_ns=np.array([START_NS + close_ns for _, close_ns in _EDGES_NS]),
        covers_from_ns=START_NS - 10 * DAY_NS,
        covers_until_ns=START_NS + 10 * DAY_NS,
    )
}


def list_instrument(venue, symbol, price_decimals=2, size_decimals=3, calendar="24/7", **others):
    return InstrumentListed(
        id=f"{venue}:{symbol}",
        venue=venue,
        symbol=symbol,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        calendar=calendar,
        tick_size=Decimal(1).scaleb(-price_decimals),
        lot_size=Decimal(1).scaleb(-size_decimals),
        notional_min=Decimal(5),
        maker_fee_bps=1.0,
        taker_fee_bps=1.0,
        **{"valid_from_ns": 0, **others},
    )


LISTINGS = (
    list_instrument("kraken", "ETHBTC", 5, 8),
    list_instrument("binance", "BTCUSDT"),
    list_instrument("exchange", "SPY", 4, 0, "TEST"),
)


def build_book(reverse=False):
    return InstrumentBook(reversed(LISTINGS) if reverse else LISTINGS)


def trade(event_time_ns, price=100, size=1, instrument=0, trade_id=-1, side=1, provenance=2):
    return {
        "kind": 1,
        "event_time_ns": event_time_ns,
        "instrument": instrument,
        "price_units": price,
        "size_units": size,
        "side": side,
        "trade_id": trade_id,
        "bid_units": 0,
        "ask_units": 0,
        "provenance": provenance,
    }


def quote(event_time_ns, bid, ask, instrument=0, provenance=2):
    row = trade(event_time_ns, 0, 0, instrument, side=0, provenance=provenance)
    return row | {"kind": 2, "bid_units": bid, "ask_units": ask}


def heartbeat(event_time_ns):
    return trade(event_time_ns, 0, 0, -1, side=0) | {"kind": 0}


def to_log(rows, lines_per_record=3):
    """Give every row its place in the log."""
    return [
        {"offset": 10 + place // lines_per_record, "line": place % lines_per_record} | row
        for place, row in enumerate(rows)
    ]


def to_frame(rows):
    return pl.DataFrame(rows, schema=TICK_FRAME)


def renumber(frame, old, new):
    """Return `frame` with the instrument numbers of another book."""
    names = [(old[number].venue, old[number].symbol) for number in range(len(old))]
    numbers = [new.number_of(*name) for name in names] + [-1]
    return frame.with_columns(
        instrument=pl.Series(
            [numbers[number] for number in frame["instrument"].to_list()], dtype=pl.Int32
        )
    )


def build_bars(log, batches, book=None, timeframes=("1m", "5m", "1h", "1d")):
    """Return the bars that come out when the log arrives in these batches."""
    book = build_book() if book is None else book
    screen = TickScreen(2, LATENESS_NS)
    machine = BarMachine(2, timeframes, SESSIONS)
    frames = [pl.DataFrame(schema=polars_schema(BarClosed))]
    for start, stop in batches:
        ticks = screen.on_ticks(to_frame(log[start:stop]), book)
        frames.append(machine.on_ticks(ticks.accepted, ticks.duplicates, ticks.watermark_ns, book))
    return pl.concat(frames)


@st.composite
def logs(draw, rows_max=60):
    """Out of order, with heartbeats, quotes, late ticks, duplicates, gaps and unsided trades."""
    rows = []
    clock_ns = START_NS
    for _ in range(draw(st.integers(1, rows_max))):
        step_ns = draw(st.sampled_from([0, 1, 1_000_000_000, 20_000_000_000, MINUTE_NS, HOUR_NS]))
        clock_ns += step_ns
        # Coarse jitter makes ticks with equal times, which the log order must decide.
        event_time_ns = clock_ns - draw(st.integers(0, 12)) * 10_000_000_000
        kind = draw(st.sampled_from("tttttqqh"))
        instrument = draw(st.integers(0, 2))
        provenance = draw(st.integers(0, 3))
        if kind == "h":
            rows.append(heartbeat(event_time_ns))
        elif kind == "q":
            bid = draw(st.integers(1, 10_000))
            ask = bid + draw(st.integers(0, 50))
            rows.append(quote(event_time_ns, bid, ask, instrument, provenance))
        else:
            rows.append(
                trade(
                    event_time_ns,
                    draw(st.integers(1, 10_000)),
                    draw(st.one_of(st.integers(1, 9), st.integers(1, 2**53 - 1))),
                    instrument,
                    draw(st.integers(-1, 30)),
                    draw(st.sampled_from([1, 1, 1, -1, -1, 0])),
                    provenance,
                )
            )
    return to_log(rows)


@st.composite
def cuts(draw, length):
    """Cut `length` rows into batches, some of them empty; yields (start, stop)."""
    edges = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    return list(zip([0, *edges], [*edges, length], strict=True))
