import pickle
from decimal import Decimal

import polars as pl
import pytest

from operators.bars import BarMachine
from operators.screen import TickScreen
from schemas.frames import to_messages
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed
from schemas.ticks import TICK_FRAME
from tests.conftest import EXCERPTS
from tests.operators.tick_streams import (
    DAY_NS,
    HOUR_NS,
    LATENESS_NS,
    MINUTE_NS,
    SESSIONS,
    START_NS,
    build_bars,
    build_book,
    heartbeat,
    list_instrument,
    quote,
    to_frame,
    to_log,
    trade,
)

FIVE_NS = 5 * MINUTE_NS


def close_all(rows, timeframes=("5m",), book=None, until_ns=START_NS + 30 * DAY_NS):
    """Return the bars of these rows as messages after a heartbeat far ahead."""
    log = to_log([*rows, heartbeat(until_ns)])
    return to_messages(BarClosed, build_bars(log, [(0, len(log))], book, timeframes))


def read_recorded_trades():
    """Return recorded spot trades of [23:55, 24:00) as a frame with its book."""
    recorded = pl.read_parquet(EXCERPTS / "trades_binance_spot_20240808.parquet")
    book = InstrumentBook(
        list_instrument("binance_spot", symbol, decimals, size_decimals)
        for symbol, decimals, size_decimals in (("BTCUSDT", 2, 5), ("ETHUSDT", 2, 4))
    )
    scale = pl.col("symbol").replace_strict({"BTCUSDT": 100_000, "ETHUSDT": 10_000})
    ticks = recorded.select(
        offset=pl.int_range(pl.len()) // 700,
        line=pl.int_range(pl.len()) % 700,
        kind=pl.lit(1),
        event_time_ns="ts_ns",
        instrument=pl.col("symbol").replace_strict({"BTCUSDT": 0, "ETHUSDT": 1}),
        price_units=(pl.col("price") * 100).round(),
        size_units=(pl.col("size") * scale).round(),
        side=pl.when(pl.col("side") == "buy").then(1).otherwise(-1),
        trade_id="trade_id",
        bid_units=pl.lit(0),
        ask_units=pl.lit(0),
        provenance=pl.lit(2),
    ).cast(dict(TICK_FRAME))
    return recorded, ticks, book


@pytest.mark.parametrize("batch_rows", [137, 100_000])
def test_recorded_trades_give_exactly_the_bar_that_the_exchange_published(batch_rows):
    recorded, ticks, book = read_recorded_trades()
    screen, machine = TickScreen(0, 2_000_000_000), BarMachine(0, ("5m", "1h", "1d"), {})
    frames = []
    end = to_frame([{"offset": 99, "line": 0} | heartbeat(1_723_161_602_000_000_000)])
    for batch in [*ticks.iter_slices(batch_rows), end]:
        screened = screen.on_ticks(batch, book)
        assert screened.late.is_empty()
        assert screened.duplicates.is_empty()
        frames.append(
            machine.on_ticks(screened.accepted, screened.duplicates, screened.watermark_ns, book)
        )

    bars = pl.concat(frames)

    prices = ("symbol", "open", "high", "low", "close", "volume")
    expected = [
        ("BTCUSDT", 61828.0, 61860.8, 61583.22, 61685.99, 199.42863),
        ("ETHUSDT", 2682.97, 2685.37, 2679.0, 2682.5, 2091.5828),
    ]
    assert bars["timeframe"].to_list() == ["5m", "5m", "1h", "1h", "1d", "1d"]
    assert bars.filter(timeframe="5m").select(prices).rows() == expected
    for symbol, trades, bought in bars.filter(timeframe="5m")[
        ["symbol", "trades", "buy_volume"]
    ].rows():
        mine = recorded.filter(symbol=symbol)
        sizes = mine.filter(side="buy")["size"].to_list()
        assert trades == mine.height
        assert Decimal(str(bought)) == sum(Decimal(str(size)) for size in sizes)


def test_a_bar_holds_its_open_and_not_its_close():
    bars = close_all([trade(START_NS), trade(START_NS + FIVE_NS)])

    assert [(bar.open_time_ns, bar.close_time_ns) for bar in bars] == [
        (START_NS, START_NS + FIVE_NS),
        (START_NS + FIVE_NS, START_NS + 2 * FIVE_NS),
    ]


def test_a_bar_closes_when_the_watermark_reaches_its_close_and_not_a_nanosecond_earlier():
    book, machine = build_book(), BarMachine(0, ("5m",), {})
    ticks, nothing = to_frame(to_log([trade(START_NS)])), to_frame([])
    duplicates = nothing.select("instrument", "event_time_ns")

    before = machine.on_ticks(ticks, duplicates, START_NS + FIVE_NS - 1, book)
    at = machine.on_ticks(nothing, duplicates, START_NS + FIVE_NS, book)
    after = machine.on_ticks(nothing, duplicates, START_NS + DAY_NS, book)

    assert [before.height, at.height, after.height] == [0, 1, 0]


def test_a_heartbeat_closes_the_bar_of_a_symbol_that_fell_quiet():
    rows = [trade(START_NS, instrument=1), heartbeat(START_NS + FIVE_NS + LATENESS_NS)]

    bars = build_bars(to_log(rows), [(0, 1), (1, 2)], timeframes=("5m",))

    assert bars["symbol"].to_list() == ["BTCUSDT"]


def test_a_busy_symbol_closes_the_bar_of_a_quiet_one():
    rows = [trade(START_NS, instrument=1), trade(START_NS + FIVE_NS + LATENESS_NS, instrument=0)]

    bars = build_bars(to_log(rows), [(0, 2)], timeframes=("5m",))

    assert bars["symbol"].to_list() == ["BTCUSDT"]


def test_no_bar_is_invented_where_nothing_traded():
    bars = close_all([trade(START_NS), heartbeat(START_NS + HOUR_NS), trade(START_NS + DAY_NS)])

    assert [bar.open_time_ns for bar in bars] == [START_NS, START_NS + DAY_NS]
    assert [bar.gap_bars for bar in bars] == [0, 287]


def test_gaps_are_counted_per_symbol_and_timeframe_across_batches():
    rows = [
        trade(START_NS, instrument=0),
        trade(START_NS, instrument=1),
        trade(START_NS + FIVE_NS, instrument=1),
        trade(START_NS + 3 * FIVE_NS, instrument=0),
        heartbeat(START_NS + DAY_NS),
    ]

    bars = build_bars(to_log(rows), [(row, row + 1) for row in range(5)], timeframes=("1m", "5m"))

    gaps = bars.group_by("symbol", "timeframe", maintain_order=True).agg("gap_bars")
    assert sorted(gaps.rows()) == [
        ("BTCUSDT", "1m", [0, 4]),
        ("BTCUSDT", "5m", [0, 0]),
        ("ETHBTC", "1m", [0, 14]),
        ("ETHBTC", "5m", [0, 2]),
    ]


def test_quotes_alone_make_no_bar():
    assert close_all([quote(START_NS, 99, 101), quote(START_NS + 1, 99, 101)]) == []


def test_a_late_tick_never_reopens_a_closed_bar():
    rows = [
        trade(START_NS, 100),
        heartbeat(START_NS + FIVE_NS + LATENESS_NS),
        trade(START_NS + 1, 999),
        heartbeat(START_NS + DAY_NS),
    ]

    bars = build_bars(to_log(rows), [(0, 2), (2, 4)], timeframes=("5m",))

    assert bars["high"].to_list() == [0.001]


def test_open_is_the_earliest_trade_and_of_equal_times_the_log_decides():
    rows = [
        trade(START_NS + 5, 300),
        trade(START_NS + 1, 100),
        trade(START_NS + 1, 200),
        trade(START_NS + 5, 400),
        trade(START_NS + 3, 500),
    ]

    (bar,) = close_all([row | {"instrument": 1} for row in rows])

    assert (bar.open, bar.high, bar.low, bar.close) == (1.0, 5.0, 1.0, 4.0)


def test_buy_volume_is_null_as_soon_as_one_trade_does_not_state_its_side():
    stated = [trade(START_NS, size=3, instrument=1), trade(START_NS, size=4, instrument=1, side=-1)]
    silent = trade(START_NS, size=5, instrument=1, side=0)

    (with_sides,) = close_all(stated)
    (without,) = close_all([*stated, silent])

    assert (with_sides.volume, with_sides.buy_volume) == (0.007, 0.003)
    assert (without.volume, without.buy_volume) == (0.012, None)


def test_the_spread_is_the_mean_over_the_quotes_of_the_bar():
    rows = [trade(START_NS), quote(START_NS, 99, 101), quote(START_NS + 1, 199, 201)]

    (bar,) = close_all(rows)

    assert bar.spread_bps_mean == 150.0


def test_duplicates_are_counted_in_the_bar_of_their_event_time():
    rows = [
        trade(START_NS, trade_id=1),
        trade(START_NS + FIVE_NS, trade_id=2),
        trade(START_NS + FIVE_NS - 1, trade_id=1),
        trade(START_NS + FIVE_NS, trade_id=2),
        trade(START_NS + FIVE_NS, trade_id=2),
    ]

    assert [bar.duplicates for bar in close_all(rows)] == [1, 2]


def test_a_bar_names_its_first_and_last_tick_in_the_log_and_is_caused_by_the_last():
    rows = [
        trade(START_NS + 9),
        trade(START_NS, instrument=1),
        quote(START_NS + 1, 1, 2),
        trade(START_NS + 2),
    ]

    bar = next(bar for bar in close_all(rows) if bar.symbol == "ETHBTC")

    assert (bar.first_offset, bar.first_line, bar.last_offset, bar.last_line) == (10, 0, 11, 0)
    assert bar.cause == "tick/2/11/0"
    assert bar.id == f"bar/kraken/ETHBTC/5m/{START_NS + FIVE_NS}"


def test_a_bar_is_as_trustworthy_as_its_least_trustworthy_tick():
    rows = [trade(START_NS, provenance=3), quote(START_NS, 1, 2, provenance=1)]

    assert close_all(rows)[0].provenance == "reconstructed"


def test_bars_come_by_close_then_length_then_venue_then_symbol():
    midnight_ns = START_NS // DAY_NS * DAY_NS + DAY_NS
    rows = [
        trade(midnight_ns - FIVE_NS - 1, instrument=0),
        trade(midnight_ns - 1, instrument=0),
        trade(midnight_ns - 1, instrument=1),
    ]

    bars = close_all(rows, ("1d", "5m", "1h"))

    assert [(bar.timeframe, bar.venue) for bar in bars] == [
        ("5m", "kraken"),
        ("5m", "binance"),
        ("5m", "kraken"),
        ("1h", "binance"),
        ("1h", "kraken"),
        ("1d", "binance"),
        ("1d", "kraken"),
    ]


def test_ticks_outside_sessions_are_in_hourly_bars_but_in_no_daily_one():
    open_ns, close_ns = SESSIONS["TEST"].open_ns[0], SESSIONS["TEST"].close_ns[0]
    rows = [
        trade(int(event_time_ns), price, instrument=2)
        for event_time_ns, price in (
            (open_ns - 1, 10_000),
            (open_ns, 20_000),
            (close_ns - 1, 30_000),
            (close_ns, 40_000),
        )
    ]

    bars = close_all(rows, ("1h", "1d"), until_ns=START_NS + 5 * DAY_NS)

    (daily,) = [bar for bar in bars if bar.timeframe == "1d"]
    assert (daily.open_time_ns, daily.close_time_ns) == (open_ns, close_ns)
    assert (daily.open, daily.close, daily.trades) == (2.0, 3.0, 2)
    assert sum(bar.trades for bar in bars if bar.timeframe == "1h") == 4


def test_gaps_of_daily_bars_count_sessions_and_not_days():
    first, second, third = SESSIONS["TEST"].open_ns.tolist()

    every = close_all([trade(at_ns, instrument=2) for at_ns in (first, second, third)], ("1d",))
    some = close_all([trade(at_ns, instrument=2) for at_ns in (first, third)], ("1d",))

    assert [bar.gap_bars for bar in every] == [0, 0, 0]
    assert [bar.gap_bars for bar in some] == [0, 1]


def test_an_instrument_that_moves_to_an_exchange_calendar_counts_only_missed_sessions():
    book = InstrumentBook([list_instrument("exchange", "SPY", 4, 0)])
    machine, screen, frames = BarMachine(0, ("1d",), SESSIONS), TickScreen(0, 0), []
    for row in (
        trade(START_NS - 2 * DAY_NS),
        trade(int(SESSIONS["TEST"].open_ns[1])),
        heartbeat(START_NS + 2 * DAY_NS),
    ):
        batch = screen.on_ticks(to_frame(to_log([row])), book)
        frames.append(machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book))
        book.add(list_instrument("exchange", "SPY", 4, 0, "TEST"))

    assert pl.concat(frames)["gap_bars"].to_list() == [0, 1]


def test_a_calendar_that_was_not_loaded_stops_the_daily_bars_by_name():
    book, machine = build_book(), BarMachine(0, ("1d",), {})
    batch = TickScreen(0, 0).on_ticks(to_frame(to_log([trade(START_NS, instrument=2)])), book)

    with pytest.raises(ValueError, match="sessions of calendar 'TEST'; must be loaded"):
        machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book)


def test_an_instrument_listed_with_more_or_fewer_decimals_goes_on_in_the_same_bar():
    book = InstrumentBook([list_instrument("binance", "BTCUSDT", 2, 3)])
    machine, screen, frames = BarMachine(0, ("5m",), {}), TickScreen(0, 0), []
    for decimals, price, size in ((2, 10_050, 1_500), (4, 1_010_000, 25_000), (1, 1_015, 5)):
        book.add(
            list_instrument("binance", "BTCUSDT", decimals, decimals + 1 if decimals != 1 else 1)
        )
        rows = [trade(START_NS + len(frames), price, size)]
        if len(frames) == 2:
            rows.append(heartbeat(START_NS + DAY_NS))
        batch = screen.on_ticks(to_frame(to_log(rows)), book)
        frames.append(machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book))

    (bar,) = to_messages(BarClosed, pl.concat(frames))
    assert (bar.open, bar.high, bar.low, bar.close) == (100.5, 101.5, 100.5, 101.5)
    assert bar.volume == 1.5 + 0.25 + 0.5


def test_a_long_sum_of_sizes_survives_a_listing_with_more_decimals():
    largest, book = 2**32 - 1, InstrumentBook([list_instrument("binance", "BTCUSDT", 2, 3)])
    machine, screen = BarMachine(0, ("5m",), {}), TickScreen(0, 0)
    for size_decimals, sizes in ((3, [largest] * 5_000), (9, [500_000_000])):
        book.add(list_instrument("binance", "BTCUSDT", 2, size_decimals))
        ticks = to_frame(to_log([trade(START_NS, size=size) for size in sizes]))
        batch = screen.on_ticks(ticks, book)
        machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book)

    assert machine.open_bars_frame()["volume"].to_list() == [5_000 * largest / 1000 + 0.5]


def test_units_that_no_longer_fit_after_a_new_listing_are_refused():
    book = InstrumentBook([list_instrument("binance", "BTCUSDT", 0, 0)])
    machine, screen = BarMachine(0, ("5m",), {}), TickScreen(0, 0)
    batch = screen.on_ticks(to_frame(to_log([trade(START_NS, price=2**52)])), book)
    machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book)
    book.add(list_instrument("binance", "BTCUSDT", 12, 0))

    with pytest.raises(OverflowError, match="must fit into 64 bits"):
        machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, book)


def test_one_machine_and_one_screen_may_be_given_another_numbering_at_any_batch():
    book, other = build_book(), build_book(reverse=True)
    machine, screen = BarMachine(0, ("5m",), {}), TickScreen(0, 0)
    for number, numbering in ((0, book), (2, other), (0, other)):
        ticks = to_frame(to_log([trade(START_NS, trade_id=7, instrument=number)]))
        batch = screen.on_ticks(ticks, numbering)
        machine.on_ticks(batch.accepted, batch.duplicates, batch.watermark_ns, numbering)

    found = machine.open_bars_frame().select("symbol", "trades", "duplicates")
    assert found.sort("symbol").rows() == [("ETHBTC", 1, 1), ("SPY", 1, 0)]


def test_volume_may_exceed_64_bits_in_the_last_decimal():
    largest = 2**53 - 1
    rows = [trade(START_NS, size=largest, instrument=1) for _ in range(5_000)]

    (bar,) = close_all(rows)

    assert bar.volume == pytest.approx(5_000 * largest / 1000, rel=1e-15)


def test_neither_a_snapshot_nor_the_state_a_machine_began_with_is_changed_by_later_ticks():
    book, machine = build_book(), BarMachine(0, ("5m",), {})
    nothing = to_frame([]).select("instrument", "event_time_ns")
    machine.on_ticks(to_frame(to_log([trade(START_NS)])), nothing, START_NS, book)
    state = machine.snapshot()
    before = pickle.dumps(state)
    later = to_frame(to_log([trade(START_NS + DAY_NS)]))

    for one in (machine, BarMachine(0, ("5m",), {}, state)):
        assert one.on_ticks(later, nothing, START_NS + DAY_NS, book).height == 1

    assert pickle.dumps(state) == before


@pytest.mark.parametrize("timeframes", [(), ("5m", "7m")])
def test_unknown_or_no_timeframes_are_refused(timeframes):
    with pytest.raises(ValueError, match=r"bar timeframes; must be some of .*correct `bars"):
        BarMachine(0, timeframes, {})


def test_state_of_other_timeframes_is_refused():
    state = BarMachine(0, ("5m",), {}).snapshot()

    with pytest.raises(
        ValueError, match=r"must hold the timeframes \['1m', '5m'\]; found \['5m'\]"
    ):
        BarMachine(0, ("1m", "5m"), {}, state)
