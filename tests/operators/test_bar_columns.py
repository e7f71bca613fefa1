import pickle

import numpy as np
import polars as pl
import pytest

from operators.bar_columns import BarColumns
from schemas.frames import polars_schema
from schemas.market import BarClosed
from tests.operators.tick_streams import (
    HOUR_NS,
    MINUTE_NS,
    START_NS,
    build_bars,
    heartbeat,
    to_log,
    trade,
)


@pytest.fixture
def frame() -> pl.DataFrame:
    """Two bars of one symbol, the first of which has a trade without a side."""
    rows = [trade(START_NS, side=0), trade(START_NS + 1), trade(START_NS + MINUTE_NS)]
    log = to_log([*rows, heartbeat(START_NS + HOUR_NS)])
    bars = build_bars(log, [(0, len(log))], timeframes=("1m",))
    assert bars.height == 2
    return bars


def test_what_is_null_in_a_frame_is_nan_in_a_column(frame):
    found = BarColumns.of(frame).floats("buy_volume")
    assert np.isnan(found).tolist() == frame["buy_volume"].is_null().to_list() == [True, False]


def test_columns_become_the_frame_that_they_were_read_from(frame):
    bars = BarColumns.of(frame)
    columns = {name: bars.column(name) for name in frame.columns}
    again = BarColumns(frame.height, columns).build()
    assert again.equals(frame)
    assert again.schema == polars_schema(BarClosed)


def test_a_time_that_is_not_known_is_refused(frame):
    bars = BarColumns.of(frame.with_columns(close_time_ns=pl.lit(None, dtype=pl.Int64)))
    with pytest.raises(ValueError, match="`close_time_ns` of a bar must be set; found 2 nulls"):
        bars.integers("close_time_ns")


def test_a_column_that_is_not_there_is_a_key_error(frame):
    assert "rsi_14" not in BarColumns.of(frame)
    with pytest.raises(KeyError):
        BarColumns.of(frame).floats("rsi_14")


@pytest.mark.parametrize("read", [True, False])
def test_chosen_bars_keep_every_column(frame, read):
    bars = BarColumns.of(frame).joined({"rsi_14": np.array([30.0, 70.0])})
    if read:
        bars.floats("close")
    last = bars.take([1])
    assert last.height == 1
    assert last.floats("rsi_14").tolist() == [70.0]
    assert last.floats("close").tolist() == frame["close"].to_list()[1:]
    assert last.keys() == bars.keys()[1:]


def test_bars_of_the_wanted_timeframes_are_chosen(frame):
    bars = BarColumns.of(frame.with_columns(timeframe=pl.Series(["1m", "5m"])))
    assert bars.select({"1m", "5m", "1h"}) is bars
    assert bars.select({"5m"}).texts("timeframe") == ["5m"]
    assert bars.select({"1h"}).height == 0


def test_columns_survive_a_snapshot(frame):
    bars = BarColumns.of(frame).joined({"rsi_14": np.array([30.0, np.nan])})
    again = pickle.loads(pickle.dumps(bars))
    assert again.build().equals(frame)
    assert again.floats("rsi_14").tolist()[0] == 30.0
