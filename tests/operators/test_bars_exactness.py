"""Bars against an independent loop, and under every cut of the log."""

import pickle
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators._bar_cells import to_quantity
from operators.bars import BarMachine
from operators.screen import TickScreen
from schemas.frames import polars_schema
from schemas.ids import bar_id
from schemas.market import BarClosed
from schemas.settings import TIMEFRAME_NS
from schemas.ticks import PROVENANCE_CODES
from tests.operators.test_screen import screen_plainly
from tests.operators.tick_streams import (
    LATENESS_NS,
    LISTINGS,
    SESSIONS,
    build_bars,
    build_book,
    cuts,
    logs,
    renumber,
    to_frame,
)

TIMEFRAMES = ("1m", "5m", "1h", "1d")


def find_interval(event_time_ns, timeframe, calendar):
    """Return open and close of the bar that holds an instant, or None."""
    if timeframe == "1d" and calendar != "24/7":
        table = SESSIONS[calendar]
        for open_ns, close_ns in zip(table.open_ns.tolist(), table.close_ns.tolist(), strict=True):
            if open_ns <= event_time_ns < close_ns:
                return open_ns, close_ns
        return None
    open_ns = event_time_ns // TIMEFRAME_NS[timeframe] * TIMEFRAME_NS[timeframe]
    return open_ns, open_ns + TIMEFRAME_NS[timeframe]


def count_missed(before, open_ns, timeframe, calendar):
    if before is None:
        return 0
    if timeframe == "1d" and calendar != "24/7":
        opens = SESSIONS[calendar].open_ns.tolist()
        return opens.index(open_ns) - opens.index(before) - 1
    return (open_ns - before) // TIMEFRAME_NS[timeframe] - 1


def build_bars_plainly(log, partition, timeframes, watermark_ns):
    """Bars as messages by a loop over rows in Decimal, in the order of emission."""
    verdicts, _ = screen_plainly(log)
    bars = defaultdict(lambda: {"ticks": [], "duplicates": 0})
    for row, verdict in zip(log, verdicts, strict=True):
        if verdict not in {"accepted", "duplicate"}:
            continue
        listing = LISTINGS[row["instrument"]]
        for timeframe in timeframes:
            interval = find_interval(row["event_time_ns"], timeframe, listing.calendar)
            if interval is None:
                continue
            key = (interval[1], TIMEFRAME_NS[timeframe], listing.venue, listing.symbol)
            bar = bars[key]
            bar.update(timeframe=timeframe, interval=interval, listing=listing)
            if verdict == "duplicate":
                bar["duplicates"] += 1
            else:
                bar["ticks"].append(row)
    previous, messages = {}, []
    for (close_ns, _, venue, symbol), bar in sorted(bars.items(), key=lambda item: item[0]):
        trades = [row for row in bar["ticks"] if row["kind"] == 1]
        if close_ns > watermark_ns or not trades:
            continue
        listing, timeframe, open_ns = bar["listing"], bar["timeframe"], bar["interval"][0]
        missed = count_missed(
            previous.get((venue, symbol, timeframe)), open_ns, timeframe, listing.calendar
        )
        previous[venue, symbol, timeframe] = open_ns
        messages.append(describe_plainly(bar, trades, partition, missed))
    return messages


def describe_plainly(bar, trades, partition, missed):
    listing, timeframe, (open_ns, close_ns) = bar["listing"], bar["timeframe"], bar["interval"]
    by_time = sorted(trades, key=lambda row: row["event_time_ns"])
    prices = [Decimal(row["price_units"]).scaleb(-listing.price_decimals) for row in by_time]
    spreads = [
        round(
            Fraction(20_000 * (row["ask_units"] - row["bid_units"]))
            * 10**6
            / (row["ask_units"] + row["bid_units"])
        )
        for row in bar["ticks"]
        if row["kind"] == 2
    ]
    first, last = bar["ticks"][0], bar["ticks"][-1]
    bought = [row for row in trades if row["side"] == 1]
    return {
        "id": bar_id(listing.venue, listing.symbol, timeframe, close_ns),
        "cause": f"tick/{partition}/{last['offset']}/{last['line']}",
        "venue": listing.venue,
        "symbol": listing.symbol,
        "timeframe": timeframe,
        "open_time_ns": open_ns,
        "close_time_ns": close_ns,
        "open": float(prices[0]),
        "high": float(max(prices)),
        "low": float(min(prices)),
        "close": float(prices[-1]),
        "volume": sum(row["size_units"] for row in trades),
        "buy_volume": sum(row["size_units"] for row in bought)
        if all(row["side"] for row in trades)
        else None,
        "trades": len(trades),
        "spread_bps_mean": float(Fraction(sum(spreads), 10**6 * len(spreads))) if spreads else None,
        "gap_bars": missed,
        "duplicates": bar["duplicates"],
        "partition": partition,
        "first_offset": first["offset"],
        "first_line": first["line"],
        "last_offset": last["offset"],
        "last_line": last["line"],
        "provenance": PROVENANCE_CODES[min(row["provenance"] for row in bar["ticks"])],
    }


@given(log=logs(), timeframes=st.sets(st.sampled_from(TIMEFRAMES), min_size=1), draw=st.data())
def test_any_cut_into_batches_gives_the_same_bars_in_the_same_order(log, timeframes, draw):
    expected = build_bars(log, [(0, len(log))], timeframes=sorted(timeframes))

    found = build_bars(log, draw.draw(cuts(len(log))), timeframes=sorted(timeframes))
    one_by_one = build_bars(log, [(row, row + 1) for row in range(len(log))], timeframes=timeframes)

    assert found.equals(expected)
    assert one_by_one.equals(expected)


@given(log=logs(), timeframes=st.sets(st.sampled_from(TIMEFRAMES), min_size=1))
def test_bars_equal_those_of_a_plain_loop_in_decimal(log, timeframes):
    watermark_ns = screen_plainly(log)[1]
    expected = build_bars_plainly(log, 2, timeframes, watermark_ns)

    found = build_bars(log, [(0, len(log))], timeframes=timeframes).to_dicts()

    scale = {listing.symbol: Decimal(10) ** listing.size_decimals for listing in LISTINGS}
    for message in expected:
        for name in ("volume", "buy_volume"):
            units = message[name]
            if units is not None:
                message[name] = pytest.approx(float(units / scale[message["symbol"]]), rel=1e-15)
        if message["spread_bps_mean"] is not None:
            message["spread_bps_mean"] = pytest.approx(message["spread_bps_mean"], abs=2e-6)
    assert found == expected


@given(log=logs(), draw=st.data())
def test_a_machine_restored_from_pickled_state_under_other_numbers_gives_the_same_bars(log, draw):
    book, other = build_book(), build_book(reverse=True)
    middle = draw.draw(st.integers(0, len(log)))
    expected = build_bars(log, [(0, middle), (middle, len(log))])
    screen, machine = TickScreen(2, LATENESS_NS), BarMachine(2, TIMEFRAMES, SESSIONS)
    frames = []

    for frame, numbering in ((log[:middle], book), (log[middle:], other)):
        ticks = renumber(to_frame(frame), book, numbering)
        batch = screen.on_ticks(ticks, numbering)
        frames.append(
            machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, numbering)
        )
        screen = TickScreen(2, LATENESS_NS, pickle.loads(pickle.dumps(screen.snapshot())))
        state = pickle.loads(pickle.dumps(machine.snapshot()))
        machine = BarMachine(2, TIMEFRAMES, SESSIONS, state)

    assert pl.concat(frames).equals(expected)


@given(log=logs(), draw=st.data())
def test_open_and_closed_bars_together_hold_every_accepted_trade(log, draw):
    screen, machine, book = TickScreen(2, LATENESS_NS), BarMachine(2, ("5m",), {}), build_book()
    closed, trades = 0, 0
    for start, stop in draw.draw(cuts(len(log))):
        batch = screen.on_ticks(to_frame(log[start:stop]), book)
        trades += batch.accepted.filter(pl.col("kind") == 1).height
        closed += machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book)[
            "trades"
        ].sum()

    still_open = machine.open_bars_frame()

    assert still_open.schema == polars_schema(BarClosed)
    assert closed + still_open["trades"].sum() == trades


@given(units=st.integers(0, 2**53 - 1), decimals=st.integers(0, 12))
def test_a_sum_of_sizes_becomes_the_float_whose_text_is_its_decimal(units, decimals):
    high, low = np.array([units >> 32]), np.array([units & 0xFFFFFFFF])

    found = to_quantity(high, low, np.array([10.0**decimals]))

    assert float(found[0]) == float(Decimal(units).scaleb(-decimals))
