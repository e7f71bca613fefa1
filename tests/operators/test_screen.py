import pickle

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.screen import GAPS_MAX, NOTHING_SEEN_NS, ScreenState, TickScreen
from schemas.frames import polars_schema, to_messages
from schemas.market import TickLate
from schemas.ticks import TICK_FRAME
from tests.operators.tick_streams import (
    LATENESS_NS,
    START_NS,
    build_book,
    cuts,
    heartbeat,
    logs,
    quote,
    renumber,
    to_frame,
    to_log,
    trade,
)

SECOND_NS = 1_000_000_000


def screen_plainly(log):
    """Judge one row after the other with sets: no vectors, no gaps, no memory bound."""
    newest_ns, seen = None, {}
    verdicts = []
    for row in log:
        watermark_ns = None if newest_ns is None else newest_ns - LATENESS_NS
        ids = seen.setdefault(row["instrument"], set())
        if row["kind"] == 0:
            verdicts.append("heartbeat")
        elif watermark_ns is not None and row["event_time_ns"] < watermark_ns:
            verdicts.append("late")
        elif row["kind"] == 1 and row["trade_id"] >= 0 and row["trade_id"] in ids:
            verdicts.append("duplicate")
        else:
            verdicts.append("accepted")
            if row["kind"] == 1 and row["trade_id"] >= 0:
                ids.add(row["trade_id"])
        newest_ns = max(row["event_time_ns"], newest_ns or 0)
    return verdicts, newest_ns - LATENESS_NS


def accepted_ids(*batches, **first):
    """Return the trade ids that are accepted when these lists of ids arrive one after the other."""
    screen, book = TickScreen(0, 0), build_book()
    kept = []
    for batch in batches:
        ticks = to_frame(to_log([trade(START_NS, trade_id=found, **first) for found in batch]))
        kept.append(screen.on_ticks(ticks, book).accepted["trade_id"].to_list())
    return kept


@given(log=logs(), draw=st.data())
def test_every_row_lands_in_the_one_group_that_a_plain_loop_gives_however_the_log_is_cut(log, draw):
    verdicts, watermark_ns = screen_plainly(log)
    screen, book = TickScreen(3, LATENESS_NS), build_book()
    accepted, late, duplicates, heartbeats = [], [], [], 0

    for start, stop in draw.draw(cuts(len(log))):
        batch = screen.on_ticks(to_frame(log[start:stop]), book)
        groups = (batch.accepted.height, batch.late.height, batch.duplicates.height)
        assert sum(groups) + batch.heartbeats == stop - start
        accepted.append(batch.accepted)
        late.append(batch.late)
        duplicates.append(batch.duplicates)
        heartbeats += batch.heartbeats

    found = {
        name: [row for row, verdict in zip(log, verdicts, strict=True) if verdict == name]
        for name in ("accepted", "late", "duplicate", "heartbeat")
    }
    assert pl.concat(accepted).equals(to_frame(found["accepted"]))
    assert [(row["offset"], row["line"]) for row in found["late"]] == pl.concat(late).select(
        "offset", "line"
    ).rows()
    assert [(row["instrument"], row["event_time_ns"]) for row in found["duplicate"]] == pl.concat(
        duplicates
    ).rows()
    assert heartbeats == len(found["heartbeat"])
    assert batch.watermark_ns == watermark_ns


@given(log=logs(), draw=st.data())
def test_a_screen_restored_from_pickled_state_under_other_numbers_goes_on_as_if_nothing_happened(
    log, draw
):
    book, other = build_book(), build_book(reverse=True)
    middle = draw.draw(st.integers(0, len(log)))
    whole, first = TickScreen(0, LATENESS_NS), TickScreen(0, LATENESS_NS)
    whole.on_ticks(to_frame(log[:middle]), book)
    first.on_ticks(to_frame(log[:middle]), book)
    second = TickScreen(0, LATENESS_NS, pickle.loads(pickle.dumps(first.snapshot())))
    rest = to_frame(log[middle:])

    expected = whole.on_ticks(rest, book)
    found = second.on_ticks(renumber(rest, book, other), other)

    assert renumber(found.accepted, other, book).equals(expected.accepted)
    assert found.late.equals(expected.late)
    assert renumber(found.duplicates, other, book).equals(expected.duplicates)
    assert (found.watermark_ns, found.id_gaps) == (expected.watermark_ns, expected.id_gaps)


def test_a_snapshot_is_not_changed_by_later_ticks():
    screen, book = TickScreen(0, 0), build_book()
    screen.on_ticks(to_frame(to_log([trade(START_NS, trade_id=5)])), book)
    state = screen.snapshot()
    before = pickle.dumps(state)

    screen.on_ticks(to_frame(to_log([trade(START_NS + 1, trade_id=3)])), book)

    assert pickle.dumps(state) == before


def test_nothing_is_late_and_no_time_is_reached_before_the_first_tick():
    screen = TickScreen(0, 0)

    empty = screen.on_ticks(to_frame([]), build_book())

    assert empty.watermark_ns == NOTHING_SEEN_NS
    assert screen.watermark_ns == NOTHING_SEEN_NS
    assert empty.accepted.schema == TICK_FRAME
    assert empty.late.schema == polars_schema(TickLate)


def test_a_tick_exactly_at_the_watermark_is_accepted_and_one_nanosecond_before_is_late():
    rows = [trade(START_NS + LATENESS_NS), trade(START_NS), trade(START_NS - 1)]

    batch = TickScreen(0, LATENESS_NS).on_ticks(to_frame(to_log(rows)), build_book())

    assert batch.accepted["event_time_ns"].to_list() == [START_NS + LATENESS_NS, START_NS]
    assert batch.late["late_by_ns"].to_list() == [1]


def test_a_tick_is_judged_by_what_came_before_it_not_by_what_follows_in_its_batch():
    rows = [trade(START_NS), trade(START_NS + 10 * LATENESS_NS)]

    batch = TickScreen(0, LATENESS_NS).on_ticks(to_frame(to_log(rows)), build_book())

    assert batch.accepted.height == 2
    assert batch.watermark_ns == START_NS + 9 * LATENESS_NS


def test_a_heartbeat_moves_the_watermark_and_an_old_one_does_not_move_it_back():
    screen, book = TickScreen(0, LATENESS_NS), build_book()

    screen.on_ticks(to_frame(to_log([heartbeat(START_NS)])), book)
    screen.on_ticks(to_frame(to_log([heartbeat(START_NS - 100 * LATENESS_NS)])), book)

    assert screen.watermark_ns == START_NS - LATENESS_NS


def test_a_late_tick_says_which_tick_it_was_and_how_late():
    rows = [
        heartbeat(START_NS + 5 * SECOND_NS),
        trade(START_NS, 12_345_678, 250_000_000, instrument=0, provenance=0),
        quote(START_NS + SECOND_NS, 10, 11, instrument=1),
    ]

    late = TickScreen(7, 2 * SECOND_NS).on_ticks(to_frame(to_log(rows)), build_book()).late

    assert to_messages(TickLate, late) == [
        TickLate(
            id="late/7/10/1",
            cause="tick/7/10/1",
            venue="kraken",
            symbol="ETHBTC",
            event_time_ns=START_NS,
            late_by_ns=3 * SECOND_NS,
            partition=7,
            offset=10,
            line=1,
            price=123.45678,
            size=2.5,
            provenance="synthetic",
        ),
        TickLate(
            id="late/7/10/2",
            cause="tick/7/10/2",
            venue="binance",
            symbol="BTCUSDT",
            event_time_ns=START_NS + SECOND_NS,
            late_by_ns=2 * SECOND_NS,
            partition=7,
            offset=10,
            line=2,
            price=None,
            size=None,
            provenance="recorded",
        ),
    ]


def test_ids_fill_their_gap_once_and_only_once():
    assert accepted_ids([10, 15], [12, 12, 15, 10, 11, 13, 14], [11, 12, 13, 14, 16]) == [
        [10, 15],
        [12, 11, 13, 14],
        [16],
    ]


def test_ids_below_the_first_one_seen_are_new_until_they_are_seen():
    assert accepted_ids([10], [9, 0, 9], [0, 5]) == [[10], [9, 0], [5]]


def test_an_id_of_one_instrument_says_nothing_about_another():
    rows = [trade(START_NS, trade_id=4, instrument=number) for number in (0, 1, 2, 1)]

    batch = TickScreen(0, 0).on_ticks(to_frame(to_log(rows)), build_book())

    assert batch.accepted["instrument"].to_list() == [0, 1, 2]
    assert batch.duplicates["instrument"].to_list() == [1]


def test_trades_without_ids_and_quotes_are_never_duplicates():
    rows = [trade(START_NS)] * 3 + [quote(START_NS, 1, 2) | {"trade_id": 9}] * 2

    batch = TickScreen(0, 0).on_ticks(to_frame(to_log(rows)), build_book())

    assert batch.accepted.height == 5


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_only_the_newest_gaps_are_remembered_however_the_ids_were_cut(batch_size):
    screen, book = TickScreen(0, 0), build_book()
    ids = list(range(0, 4 * GAPS_MAX, 2))
    log = to_log([trade(START_NS, trade_id=found) for found in ids])
    for start in range(0, len(log), batch_size):
        screen.on_ticks(to_frame(log[start : start + batch_size]), book)

    (seen,) = screen.snapshot().seen_ids.values()
    newest = [found - 1 for found in ids[-GAPS_MAX:]]
    assert seen.gaps == [(gap, gap) for gap in newest]
    forgotten, remembered = newest[0] - 2, newest[0]
    again = to_frame(to_log([trade(START_NS, trade_id=found) for found in (forgotten, remembered)]))
    assert screen.on_ticks(again, book).accepted["trade_id"].to_list() == [remembered]


@given(ids=st.lists(st.integers(0, 300), max_size=150), draw=st.data())
def test_memory_of_ids_is_bounded_and_independent_of_the_cut(ids, draw):
    book = build_book()
    log = to_log([trade(START_NS, trade_id=found) for found in ids])
    one_by_one, cut = TickScreen(0, 0), TickScreen(0, 0)
    expected = [one_by_one.on_ticks(to_frame([row]), book) for row in log]
    found = [
        cut.on_ticks(to_frame(log[start:stop]), book) for start, stop in draw.draw(cuts(len(log)))
    ]

    assert one_by_one.snapshot() == cut.snapshot()
    assert sum(batch.id_gaps for batch in expected) == sum(batch.id_gaps for batch in found)
    for seen in cut.snapshot().seen_ids.values():
        assert len(seen.gaps) <= GAPS_MAX
        assert seen.gaps == sorted(seen.gaps)


def test_jumps_of_ids_are_counted_but_not_the_first_id():
    screen, book = TickScreen(0, 0), build_book()
    ids = [100, 101, 103, 102, 110]

    batch = screen.on_ticks(
        to_frame(to_log([trade(START_NS, trade_id=found) for found in ids])), book
    )

    assert batch.id_gaps == 2


def test_a_batch_without_anything_to_drop_is_passed_on_without_a_copy():
    ticks = to_frame(to_log([trade(START_NS + step, trade_id=step) for step in range(5)]))

    assert TickScreen(0, 0).on_ticks(ticks, build_book()).accepted is ticks


def test_a_negative_lateness_is_refused():
    with pytest.raises(ValueError, match=r"must not be negative; found -1; set `bars.lateness_ms`"):
        TickScreen(0, -1)


def test_an_empty_state_is_the_start():
    assert TickScreen(0, 0).snapshot() == ScreenState()
