"""A bar and the trades that rebuild it say the same, digit for digit."""

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.reconstruct import BAR_COLUMNS, rebuild_trades, timeframe_ns
from schemas.ticks import TICK_WIRE

MINUTES_5_NS = 300_000_000_000
START_NS = 1_717_200_000_000_000_000


def bar(number=0, **changed):
    values = {
        "ts_ns": START_NS + number * MINUTES_5_NS,
        "venue": "v",
        "symbol": "S",
        "timeframe": "5m",
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 1.1,
        "size_decimals": 1,
    }
    return values | changed


def frame(*bars):
    return pl.DataFrame(list(bars), schema=BAR_COLUMNS, orient="row")


def rebuilt(*bars):
    return rebuild_trades(frame(*bars))


def exact(value):
    return Decimal(repr(value))


def test_a_bar_that_closes_higher_visits_its_low_first():
    trades, skipped = rebuilt(bar())
    assert trades["price"].to_list() == [10.0, 9.0, 12.0, 11.0]
    assert trades["size"].to_list() == [0.3, 0.3, 0.3, 0.2]
    quarter = MINUTES_5_NS // 4
    assert trades["event_time_ns"].to_list() == [START_NS + i * quarter for i in range(4)]
    assert trades.schema == TICK_WIRE
    assert skipped.is_empty()


def test_a_bar_that_closes_at_its_open_visits_its_low_first():
    trades, _ = rebuilt(bar(close=10.0))
    assert trades["price"].to_list() == [10.0, 9.0, 12.0, 10.0]


def test_a_bar_that_closes_lower_visits_its_high_first():
    trades, _ = rebuilt(bar(close=9.5))
    assert trades["price"].to_list() == [10.0, 12.0, 9.0, 9.5]


def test_a_bar_of_few_units_gets_one_trade_a_price_change():
    trades, skipped = rebuilt(bar(low=10.0, close=12.0, volume=0.2))
    assert trades["price"].to_list() == [10.0, 12.0]
    assert trades["size"].to_list() == [0.1, 0.1]
    assert skipped.is_empty()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"volume": 0.0}, "zero_volume"),
        ({"volume": None}, "null_volume"),
        ({"volume": 0.3}, "unrebuildable"),
        ({"volume": 0.25}, "volume_off_grid"),
        ({"volume": -1.0}, "volume_off_grid"),
        ({"volume": 1e18}, "volume_off_grid"),
        ({"low": 10.5}, "inconsistent_prices"),
        ({"high": float("inf")}, "inconsistent_prices"),
        ({"open": None}, "inconsistent_prices"),
        ({"close": float("nan")}, "inconsistent_prices"),
        ({"low": 0.0}, "inconsistent_prices"),
    ],
)
def test_a_bar_that_gives_no_trade_is_named_and_leaves_its_neighbour(changed, reason):
    trades, skipped = rebuilt(bar(**changed), bar(1))
    assert skipped.rows() == [(START_NS, "v", "S", reason)]
    assert trades.height == 4


def test_trades_are_sorted_by_time_venue_symbol_and_sequence():
    hour = bar(symbol="A", timeframe="1h")
    trades, _ = rebuilt(bar(1, symbol="B"), bar(0, symbol="B"), hour, bar(0, venue="u", symbol="Z"))
    assert trades.rows() == trades.sort("event_time_ns", "venue", "symbol").rows()
    assert trades.height == 16


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "5x", "05m", "1w"])
def test_a_timeframe_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="timeframe of a bar must be"):
        timeframe_ns(text)


def test_no_bars_give_no_trades():
    trades, skipped = rebuild_trades(frame())
    assert trades.is_empty()
    assert trades.schema == TICK_WIRE
    assert skipped.is_empty()


@st.composite
def bars(draw):
    decimals = draw(st.integers(0, 8))
    prices = sorted(draw(st.lists(st.integers(1, 10**9), min_size=4, max_size=4)))
    first, last = draw(st.permutations(prices[1:3]))
    return bar(
        open=first / 1e4,
        close=last / 1e4,
        low=prices[0] / 1e4,
        high=prices[3] / 1e4,
        volume=draw(st.integers(0, 10**13)) / 10.0**decimals,
        size_decimals=decimals,
    )


@given(st.lists(bars(), max_size=8))
def test_rebuilt_trades_give_back_the_bar_exactly(given_bars):
    numbered = [row | {"ts_ns": START_NS + i * MINUTES_5_NS} for i, row in enumerate(given_bars)]
    trades, skipped = rebuild_trades(frame(*numbered))
    unseen = set(skipped["ts_ns"])
    for row in numbered:
        end = row["ts_ns"] + MINUTES_5_NS
        inside = trades.filter(pl.col("event_time_ns").is_between(row["ts_ns"], end, closed="left"))
        assert (row["ts_ns"] in unseen) == inside.is_empty()
        if inside.is_empty():
            assert row["volume"] * 10 ** row["size_decimals"] < 4
            continue
        prices = inside["price"].to_list()
        assert (prices[0], max(prices), min(prices), prices[-1]) == (
            row["open"],
            row["high"],
            row["low"],
            row["close"],
        )
        assert sum(map(exact, inside["size"])) == exact(row["volume"])
        assert inside["size"].min() > 0
