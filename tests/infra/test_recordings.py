"""Recordings are told apart, described, listed, cut, merged and encoded without losing a tick."""

from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import infra.recordings as recordings_module
from infra.partitions import partition_of
from infra.recorded_instruments import decimals_of, venue_rules
from infra.recordings import (
    RECORDED_TICKS,
    list_instruments,
    merge_recordings,
    open_recording,
)
from infra.tick_encoder import (
    ENCODED_BYTES_MAX,
    encode_heartbeats,
    encode_records,
    final_heartbeat_ns,
    heartbeats,
)
from operators.reconstruct import rebuild_trades
from schemas.ticks import TICK_WIRE

SHIPPED = Path(__file__).parents[2] / "onnx_models" / "recordings"
DEMO = SHIPPED / "bars_5m_binance_spot_demo.parquet"
TRADES = SHIPPED / "trades_binance_spot_20240808.parquet"
START_NS = 1_717_200_000_000_000_000
MINUTES_5_NS = 300_000_000_000


def trade_rows(**changed):
    rows = {
        "ts_ns": [START_NS + 2, START_NS, START_NS + 1],
        "venue": ["v"] * 3,
        "symbol": ["BTCUSDT", "BTCUSDT", "ETHUSDT"],
        "price": [100.25, 100.5, 10.0],
        "size": [1.0, 0.125, 3.0],
        "side": ["buy", "sell", None],
        "trade_id": [3, 1, 2],
    }
    return pl.DataFrame(rows | changed, strict=False)


def written(tmp_path, frame, name="recording.parquet"):
    path = tmp_path / name
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


def whole(recording, chunk_rows=1000, **limits):
    return pl.concat([pl.DataFrame(schema=RECORDED_TICKS), *recording.ticks(chunk_rows, **limits)])


@pytest.mark.parametrize("name", ["trades.parquet", "trades.csv"])
def test_trades_come_in_the_order_of_event_time(tmp_path, name):
    recording = open_recording(written(tmp_path, trade_rows(), name))
    ticks = whole(recording, chunk_rows=2)
    assert ticks.schema == RECORDED_TICKS
    assert ticks["trade_id"].to_list() == [1, 2, 3]
    assert ticks["side"].to_list() == ["sell", None, "buy"]
    assert set(ticks["provenance"]) == {2}


def test_description_names_layout_rows_symbols_and_range(tmp_path):
    found = open_recording(written(tmp_path, trade_rows(ts_ns=[START_NS, None, START_NS + 9])))
    described = found.describe()
    assert (described.layout, described.provenance) == ("trades", "recorded")
    assert (described.rows, described.usable) == (3, 2)
    assert described.symbols == ["v:BTCUSDT", "v:ETHUSDT"]
    assert (described.start_ns, described.end_ns) == (START_NS, START_NS + 9)


def test_rows_that_cannot_be_ticks_are_counted(tmp_path):
    quotes = pl.DataFrame(
        {
            "ts_ns": [START_NS, None, START_NS, START_NS, START_NS],
            "venue": ["v", "v", "v", "v", None],
            "symbol": ["S"] * 5,
            "bid": [1.0, 1.0, None, 1.0, 1.0],
            "ask": [1.5] * 5,
            "bid_size": [0.5] * 5,
            "suspicious": [False, False, False, True, None],
        }
    )
    recording = open_recording(written(tmp_path, quotes))
    assert whole(recording).height == 1
    assert recording.skipped == {
        "no_time": 1, "one_sided": 1, "suspicious": 1, "no_instrument": 1,
    }  # fmt: skip


def test_another_time_column_is_event_time(tmp_path):
    rows = trade_rows(ts_ns=[None] * 3).with_columns(
        pl.col("ts_ns").cast(pl.Int64), recv_ns=pl.Series([7, 5, 6]) + START_NS
    )
    path = written(tmp_path, rows)
    ticks = whole(open_recording(path, time_column="recv_ns"))
    assert ticks["event_time_ns"].to_list() == [START_NS + 5, START_NS + 6, START_NS + 7]
    with pytest.raises(ValueError, match="must hold a row that can be published"):
        open_recording(path).describe()


def test_columns_without_a_layout_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"trades: ts_ns, venue.*found \['ts_ns', 'cost'\]"):
        open_recording(written(tmp_path, pl.DataFrame({"ts_ns": [1], "cost": [2]})))
    book = trade_rows().with_columns(msg_seq=1)
    with pytest.raises(ValueError, match="must have the columns of a layout"):
        open_recording(written(tmp_path, book))
    with pytest.raises(ValueError, match=r"Parquet or CSV file; found suffix '\.txt'"):
        open_recording(tmp_path / "recording.txt")
    with pytest.raises(ValueError, match="must have the time column 'recv_ns'"):
        open_recording(written(tmp_path, trade_rows()), time_column="recv_ns")


def test_two_timeframes_of_a_symbol_are_refused(tmp_path):
    bars = pl.read_parquet(DEMO).head(2).with_columns(timeframe=pl.Series(["1m", "5m"]))
    with pytest.raises(ValueError, match="must have one timeframe"):
        open_recording(written(tmp_path, bars))


def test_bars_need_a_rebuild():
    with pytest.raises(ValueError, match="must be rebuilt as trades"):
        next(open_recording(DEMO).ticks(1000))


def test_instruments_follow_from_the_values(tmp_path):
    first = open_recording(written(tmp_path, trade_rows()))
    finer = trade_rows(size=[0.001, 2.0, 2.0], ts_ns=[START_NS - 9] * 3)
    second = open_recording(written(tmp_path, finer, "finer.parquet"))
    bitcoin, ether = list_instruments([first, second], taker_fee_bps=7.5)
    assert (bitcoin.symbol, bitcoin.price_decimals, bitcoin.size_decimals) == ("BTCUSDT", 2, 3)
    assert (bitcoin.tick_size, bitcoin.lot_size) == (Decimal("0.01"), Decimal("0.001"))
    assert (bitcoin.maker_fee_bps, bitcoin.taker_fee_bps) == (10.0, 7.5)
    assert (bitcoin.notional_min, bitcoin.calendar, bitcoin.quote_currency) == (5, "24/7", "USDT")
    assert bitcoin.valid_from_ns == START_NS - 9
    assert (ether.price_decimals, ether.size_decimals) == (0, 0)
    assert venue_rules("us_equity").calendar == "XNYS"
    assert venue_rules("binance_usdm").taker_fee_bps == 5.0


@given(st.lists(st.decimals(0, 10**6, places=8), min_size=1, max_size=20))
def test_decimals_are_those_of_the_shortest_text(values):
    import numpy as np

    texts = [Decimal(repr(float(value))) for value in values]
    expected = max((-text.normalize().as_tuple().exponent for text in texts if text), default=0)
    assert decimals_of(np.array([float(value) for value in values])) == max(0, expected)


def test_bars_inside_the_range_are_rebuilt_and_others_left_out():
    recording = open_recording(DEMO, rebuild=rebuild_trades)
    end_ns = START_NS + 12 * MINUTES_5_NS + 1
    ticks = whole(recording, 1000, start_ns=START_NS + 1, end_ns=end_ns)
    assert ticks["event_time_ns"].min() == START_NS + MINUTES_5_NS
    assert ticks["event_time_ns"].max() < START_NS + 12 * MINUTES_5_NS
    assert ticks.height == 11 * 6 * 4
    assert set(ticks["provenance"]) == {1}


@pytest.mark.acceptance("I12", criterion="replayed bars rebuild every recorded bar exactly")
def test_every_shipped_bar_is_rebuilt(measured):
    recording = open_recording(DEMO, rebuild=rebuild_trades)
    described = recording.describe()
    ticks = whole(recording, 50_000)
    assert ticks["event_time_ns"].is_sorted()
    scale = pl.DataFrame(
        [(seen.symbol, 10**seen.size_decimals) for seen in recording.observed()],
        schema=["symbol", "scale"],
        orient="row",
    )
    bars = (
        ticks.join(scale, on="symbol")
        .group_by("symbol", ts_ns=pl.col("event_time_ns") // MINUTES_5_NS * MINUTES_5_NS)
        .agg(
            open=pl.col("price").sort_by("event_time_ns").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").sort_by("event_time_ns").last(),
            volume=(pl.col("size") * pl.col("scale")).round().cast(pl.Int64).sum()
            / pl.col("scale").first(),
        )
        .sort("symbol", "ts_ns")
    )
    assert bars.equals(pl.read_parquet(DEMO).select(bars.columns).sort("symbol", "ts_ns"))
    assert recording.skipped == {}
    assert described.end_ns == bars["ts_ns"].max() + MINUTES_5_NS
    measured(f"{bars.height} bars")


@pytest.mark.parametrize("chunk_rows", [1, 7, 100_000])
def test_chunk_size_never_changes_the_ticks(chunk_rows):
    recording = open_recording(DEMO, rebuild=rebuild_trades)
    limits = {"end_ns": START_NS + 20 * MINUTES_5_NS}
    cut = whole(recording, chunk_rows, **limits)
    assert cut.rows() == whole(recording, 480, **limits).rows()
    assert all(chunk.height <= chunk_rows for chunk in recording.ticks(chunk_rows, **limits))


def test_a_large_file_must_be_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings_module, "ROWS_IN_MEMORY_MAX", 1)
    rows = trade_rows()
    assert whole(open_recording(written(tmp_path, rows.sort("ts_ns")))).height == 3
    with pytest.raises(ValueError, match="must be sorted by 'ts_ns' because it has more than 1"):
        whole(open_recording(written(tmp_path, rows)))


def chunks(times, source):
    for part in times:
        yield pl.DataFrame({"event_time_ns": part, "source": [source] * len(part)})


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 7),
)
def test_merge_is_stable_and_complete(sources, size, chunk_rows):
    streams, expected = [], []
    for number, times in enumerate(sources):
        ordered = sorted(times)
        parts = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        streams.append(chunks(parts, number))
        expected += [(time, number) for time in ordered]
    merged = list(merge_recordings(streams, chunk_rows))
    assert [row for chunk in merged for row in chunk.rows()] == sorted(expected)
    assert all(0 < chunk.height <= chunk_rows for chunk in merged)


def test_partition_is_that_of_the_java_client():
    # Values of org.apache.kafka.common.utils.Utils.murmur2, as its own test lists them.
    from infra.partitions import murmur2

    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for text, signed in known.items():
        assert murmur2(text) == signed % 2**32
    assert partition_of("foo", "bar", 7) == (murmur2(b"foo:bar") & 0x7FFFFFFF) % 7


@pytest.mark.parametrize("encoding", ["ndjson", "arrow"])
@pytest.mark.parametrize("batch", [1, 7, 700])
def test_records_hold_every_tick_once_in_order(encoding, batch):
    ticks = pl.concat([*open_recording(TRADES).ticks(400)][:3])
    found = []
    for record in encode_records(ticks, 4, encoding, batch):
        if encoding == "arrow":
            rows = pl.read_ipc_stream(record.value)
        else:
            rows = pl.read_ndjson(record.value, schema=TICK_WIRE)
        assert 0 < rows.height <= batch
        assert record.key.decode() == f"{rows['venue'][0]}:{rows['symbol'][0]}"
        assert {partition_of(*pair, 4) for pair in rows.select("venue", "symbol").rows()} == {
            record.partition
        }
        assert dict(record.headers)["provenance"] == b"recorded"
        found.append(rows.with_columns(partition=record.partition))
    read = pl.concat(found)
    for partition, rows in read.group_by("partition"):
        symbols = [
            s for s in ("BTCUSDT", "ETHUSDT") if partition_of("binance_spot", s, 4) == partition[0]
        ]
        expected = ticks.filter(pl.col("symbol").is_in(symbols)).select(TICK_WIRE.names())
        assert rows.drop("partition").equals(expected)
    assert read.height == ticks.height


def test_a_record_has_one_provenance_and_no_null_field():
    ticks = pl.concat([*open_recording(TRADES).ticks(4)][:1])
    mixed = ticks.with_columns(
        provenance=pl.Series([2, 2, 1, 1], dtype=pl.Int8),
        side=pl.Series(["buy", None, None, "sell"]),
    )
    records = encode_records(mixed, 1, "ndjson", 100)
    assert [dict(record.headers)["provenance"] for record in records] == [
        b"recorded", b"reconstructed",
    ]  # fmt: skip
    assert not any(b"null" in record.value for record in records)


@pytest.mark.parametrize("encoding", ["ndjson", "arrow"])
def test_a_record_is_never_larger_than_its_limit(encoding):
    ticks = pl.concat([*open_recording(TRADES).ticks(20_000)])
    records = encode_records(ticks, 1, encoding, 1_000_000)
    assert len(records) > 1
    assert max(len(record.value) for record in records) <= ENCODED_BYTES_MAX


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1 tick; found 0"):
        encode_records(pl.DataFrame(schema=RECORDED_TICKS), 1, "ndjson", 0)


def test_heartbeats_follow_the_period_and_the_last_tick():
    chunk = pl.DataFrame({"event_time_ns": [10, 15, 20, 47]})
    assert heartbeats(chunk, 10) == [(2, 20), (3, 40), (4, 47)]
    assert heartbeats(chunk[:0], 10) == []
    records = encode_heartbeats(47, 3, "recorded")
    assert [record.partition for record in records] == [0, 1, 2]
    assert {record.value for record in records} == {b'{"kind":"heartbeat","event_time_ns":47}'}
    described = [open_recording(DEMO).describe(), open_recording(TRADES).describe()]
    assert final_heartbeat_ns(described[:1], 5) == 1_723_161_600_000_000_000 + 6
    assert final_heartbeat_ns(described, 5) == described[1].end_ns + 6


def test_shipped_recordings_match_their_checksums():
    lines = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    found = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = sorted(SHIPPED.glob("*.parquet"))
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in files} == found
    assert sum(path.stat().st_size for path in files) <= 9 * 1024 * 1024
