import base64

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clickhouse.client import connect
from infra.clickhouse.errors import StoreRefusedError, StoreUnavailableError
from infra.clickhouse.migrations import prepare_database
from infra.clickhouse.reader import read_messages
from infra.clickhouse.rows import rows_of
from infra.clickhouse.writer import ArchiveWriter, RecordBatch, tick_rows
from infra.stack.process import find_free_port
from schemas.batches import ProgressMarked, TickBatch
from schemas.codec import decode, encode, schema_header
from schemas.ddl import TICK_COLUMNS, clickhouse_columns
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed, InstrumentListed
from schemas.settings import StoreSettings
from schemas.ticks import TICK_FRAME
from schemas.topics import TOPICS
from schemas.trading import PositionChanged
from tests.contracts.samples import GOLDEN, HOUR_NS, OPEN_NS, bar, closed_leg, samples
from tests.infra.clickhouse.records import Record, batches_of
from tests.stack_fixtures import end, start_store

ARCHIVED = [each for each in samples() if hasattr(each, "id")]
LISTED = next(each for each in samples() if isinstance(each, InstrumentListed))
BARS = [bar(OPEN_NS + hour * HOUR_NS) for hour in range(1, 30)]


def count(client, table, final="FINAL"):
    return client.command(f"SELECT count() FROM {table} {final}")


@pytest.mark.stack
@pytest.mark.parametrize("message", ARCHIVED, ids=lambda each: type(each).__name__)
def test_every_message_comes_back_as_it_was(client, as_record, message):
    written = ArchiveWriter(client).write([RecordBatch(message.topic, 0, [as_record(message, 0)])])
    assert (written.rows, written.skipped, written.invalid, written.inserts) == (1, 0, [], 1)
    assert read_messages(client, type(message), "1", {}) == [message]


@pytest.mark.stack
@pytest.mark.parametrize("name", sorted(each.topic for each in ARCHIVED))
def test_records_of_an_older_writer_get_todays_defaults(client, name):
    message = TOPICS[name].message
    value = (GOLDEN / f"{message.__name__}.json").read_bytes()
    required = {field.name for field in msgspec.structs.fields(message) if field.required}
    older = {k: v for k, v in msgspec.json.decode(value).items() if k in required}
    ArchiveWriter(client).write(
        [RecordBatch(name, 0, [Record(0, msgspec.json.encode(older), None)])]
    )
    assert read_messages(client, message, "1", {}) == [decode(message, msgspec.json.encode(older))]


@pytest.mark.stack
def test_place_in_the_log_and_headers_become_columns(client, as_record):
    record = as_record(BARS[0], 41, config="abc", epoch=9, ingest_ns=OPEN_NS, emit_ns=OPEN_NS + 7)
    ArchiveWriter(client).write([RecordBatch("market.bars", 3, [record])])
    row = client.query(
        "SELECT _topic_partition, _offset, _version, _config, _epoch, "
        "toUnixTimestamp64Nano(_ingest_ns), toUnixTimestamp64Nano(_emit_ns), "
        "toUnixTimestamp64Nano(close_time_ns) FROM market_bars"
    ).result_rows[0]
    assert row == (3, 41, 41, "abc", 9, OPEN_NS, OPEN_NS + 7, BARS[0].close_time_ns)


@pytest.mark.stack
def test_missing_or_broken_headers_cost_no_row(client):
    headers = [("epoch", b"x"), ("ingest-ns", b"-1"), ("emit-ns", b"9" * 30), ("config", b"\xff")]
    records = [Record(0, encode(BARS[0]), None), Record(1, encode(BARS[1]), headers)]
    assert ArchiveWriter(client).write([RecordBatch("market.bars", 0, records)]).rows == 2
    rows = client.query("SELECT _epoch, _ingest_ns, _emit_ns FROM market_bars").result_rows
    assert rows == [(0, None, None)] * 2


@pytest.mark.stack
def test_what_is_written_twice_counts_once(client, as_record):
    batches = batches_of(closed_leg(), as_record)
    writer = ArchiveWriter(client)
    first = writer.write(batches)
    writer.write(batches)
    writer.write([batch._replace(records=batch.records[:1]) for batch in batches])
    total = 0
    for batch in batches:
        table = batch.topic.replace(".", "_")
        assert count(client, table) == len(batch.records)
        total += count(client, table)
        client.command(f"OPTIMIZE TABLE {table} FINAL")
        assert count(client, table, "") == len(batch.records)
    assert first.rows == total
    assert first.inserts == len(batches)


@pytest.mark.stack
def test_of_two_records_with_one_key_the_later_in_the_log_counts(client, as_record):
    later = msgspec.structs.replace(BARS[0], trades=99)
    writer = ArchiveWriter(client)
    writer.write([RecordBatch("market.bars", 0, [as_record(later, 8)])])
    writer.write([RecordBatch("market.bars", 0, [as_record(BARS[0], 7)])])
    assert [each.trades for each in read_messages(client, BarClosed, "1", {})] == [99]


@pytest.mark.stack
def test_a_batch_may_span_years(client, as_record):
    far = [bar(OPEN_NS + month * 31 * 24 * HOUR_NS) for month in range(150)]
    assert ArchiveWriter(client).write(batches_of(far, as_record)).rows == 150
    assert count(client, "market_bars") == 150


@pytest.mark.stack
def test_a_table_that_lacks_a_column_is_named(own_client, as_record):
    own_client.command("ALTER TABLE market_bars DROP COLUMN trades")
    with pytest.raises(StoreRefusedError, match="insert into 'market_bars' must be accepted"):
        ArchiveWriter(own_client).write(batches_of(BARS[:1], as_record))


def test_progress_and_tombstones_are_skipped_and_counted(as_record):
    progress = ProgressMarked(partition=0, complete_through_ns=OPEN_NS)
    mark = Record(1, encode(progress), [("schema", schema_header(ProgressMarked))])
    found = rows_of(
        "market.bars", BarClosed, [(0, [as_record(BARS[0], 0), mark, Record(2, None, None)])]
    )
    assert (found.frame.height, found.skipped, found.invalid) == (1, 2, [])


BROKEN = {
    "empty": b"",
    "truncated": encode(BARS[0])[:-9],
    "no object": b"[1]",
    "two objects": encode(BARS[0]) + b"," + encode(BARS[1]),
    "wrong type": encode(BARS[0]).replace(b'"trades":4', b'"trades":"4"'),
    "missing field": encode(BARS[0]).replace(b'"trades":4,', b""),
    "null": encode(BARS[0]).replace(b'"trades":4', b'"trades":null'),
    "not finite": encode(BARS[0]).replace(b'"high":61860.8', b'"high":NaN'),
    "too large": encode(BARS[0]).replace(b'"trades":4', b'"trades":%d' % 10**30),
    "invalid UTF-8": encode(BARS[0]).replace(b"BTCUSDT", b"\xff\xfe"),
    "nested": b'{"added":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "unknown provenance": encode(BARS[0]).replace(b'"recorded"', b'"invented"'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_becomes_a_dead_letter_and_its_neighbours_stay(as_record, name):
    records = [as_record(BARS[0], 10), Record(11, BROKEN[name], None), as_record(BARS[1], 12)]
    found = rows_of("market.bars", BarClosed, [(4, records)])
    assert found.frame["_offset"].to_list() == [10, 12]
    (letter,) = found.invalid
    assert (letter.source_topic, letter.partition, letter.offset) == ("market.bars", 4, 11)
    assert (letter.reason, letter.line) == ("UNDECODABLE", -1)
    assert base64.b64decode(letter.payload_base64) == BROKEN[name][: 64 * 1024]
    assert letter.detail


@pytest.mark.parametrize(
    "amount", ["0.0000000000001", "1e-13", "12345678901234567890123456789", "NaN"]
)
def test_an_amount_that_fits_no_column_is_never_rounded(as_record, amount):
    sample = next(each for each in samples() if isinstance(each, PositionChanged))
    wrong = encode(sample).replace(b'"cash":"89988.99"', f'"cash":"{amount}"'.encode())
    records = [as_record(sample, 0), Record(1, wrong, None), as_record(sample, 2)]
    found = rows_of("trade.positions", PositionChanged, [(0, records)])
    assert found.frame["_offset"].to_list() == [0, 2]
    assert [each.offset for each in found.invalid] == [1]


@pytest.mark.parametrize(
    "amount", ["1E-12", "-1E-8", "1.50000000000000000", "1e3", "99999999999999999999999999"]
)
def test_an_amount_in_any_notation_is_exact(as_record, amount):
    sample = next(each for each in samples() if isinstance(each, PositionChanged))
    value = encode(sample).replace(b'"cash":"89988.99"', f'"cash":"{amount}"'.encode())
    found = rows_of("trade.positions", PositionChanged, [(0, [Record(0, value, None)])])
    assert found.frame["cash"].to_list() == [decode(PositionChanged, value).cash]


def test_line_feeds_between_tokens_are_no_row_ends(as_record):
    pretty = msgspec.json.format(encode(BARS[0]), indent=2)
    found = rows_of(
        "market.bars", BarClosed, [(0, [Record(0, pretty, None), as_record(BARS[1], 1)])]
    )
    assert found.frame["close_time_ns"].dt.timestamp("ns").to_list() == [
        each.close_time_ns for each in BARS[:2]
    ]


def test_a_record_of_another_message_is_refused(as_record):
    stranger = as_record(next(each for each in ARCHIVED if each.topic == "trade.fills"), 0)
    found = rows_of("market.bars", BarClosed, [(0, [stranger])])
    assert found.frame.columns == list(clickhouse_columns(BarClosed))
    assert "must name 'BarClosed'" in found.invalid[0].detail


VALUES = st.one_of(
    st.sampled_from([encode(each) for each in BARS]),
    st.sampled_from(sorted(BROKEN.values())).filter(lambda value: len(value) < 10_000),
    st.binary(max_size=40),
)


@settings(max_examples=60)
@given(values=st.lists(VALUES, max_size=30), cut=st.integers(0, 30))
def test_every_record_is_a_row_or_a_dead_letter_however_the_log_is_cut(values, cut):
    records = [Record(offset, value, None) for offset, value in enumerate(values)]
    whole = rows_of("market.bars", BarClosed, [(0, records)])
    parts = [
        rows_of("market.bars", BarClosed, [(0, part)]) for part in (records[:cut], records[cut:])
    ]
    placed = whole.frame["_offset"].to_list() + [each.offset for each in whole.invalid]
    assert sorted(placed) == list(range(len(values)))
    assert pl.concat([part.frame for part in parts]).equals(whole.frame)
    assert [each for part in parts for each in part.invalid] == whole.invalid


def ticks(rows):
    columns = {name: [row[place] for row in rows] for place, name in enumerate(TICK_FRAME)}
    return pl.DataFrame(columns, schema=TICK_FRAME)


TICKS = TickBatch(
    partition=2,
    ticks=ticks(
        [
            (7, 0, 1, OPEN_NS + 1, 1, 6168599, 25000, 1, 77, 0, 0, 2),
            (7, 1, 2, OPEN_NS + 2, 0, 0, 0, 0, -1, 6168598, 6168601, 3),
            (8, 0, 0, OPEN_NS + 3, -1, 0, 0, 0, -1, 0, 0, 1),
            (9, 0, 1, OPEN_NS + 4, 0, 6168600, 1, -1, -1, 0, 0, 0),
        ]
    ),
    dead_letters=[],
    next_offset=10,
    ingest_time_ns=1_800_000_000_000_000_000,
)
BOOK = InstrumentBook([LISTED, msgspec.structs.replace(LISTED, symbol="ETHUSDT", size_decimals=4)])


def test_ticks_get_their_names_and_prices_back():
    rows = tick_rows(TICKS, BOOK)
    assert rows.columns == list(TICK_COLUMNS)
    assert rows.select(pl.exclude("event_time_ns", "_ingest_ns")).rows() == [
        (
            2,
            7,
            0,
            "trade",
            "binance_spot",
            "ETHUSDT",
            61685.99,
            2.5,
            "buy",
            77,
            None,
            None,
            "recorded",
        ),
        (
            2,
            7,
            1,
            "quote",
            "binance_spot",
            "BTCUSDT",
            None,
            None,
            "",
            None,
            61685.98,
            61686.01,
            "live",
        ),
        (2, 8, 0, "heartbeat", "", "", None, None, "", None, None, None, "reconstructed"),
        (
            2,
            9,
            0,
            "trade",
            "binance_spot",
            "BTCUSDT",
            61686.0,
            0.00001,
            "sell",
            None,
            None,
            None,
            "synthetic",
        ),
    ]
    assert rows["event_time_ns"].dt.timestamp("ns").to_list() == [OPEN_NS + n for n in (1, 2, 3, 4)]


@pytest.mark.stack
def test_ticks_written_twice_count_once(client):
    writer = ArchiveWriter(client)
    written = writer.write_ticks([TICKS, TICKS], BOOK)
    writer.write_ticks([TICKS], BOOK)
    assert (written.rows, written.inserts) == (8, 1)
    found = client.query(
        "SELECT partition, offset, line, symbol, price FROM market_ticks FINAL ORDER BY offset, line"
    ).result_rows
    assert found == [
        (2, 7, 0, "ETHUSDT", 61685.99),
        (2, 7, 1, "BTCUSDT", None),
        (2, 8, 0, "", None),
        (2, 9, 0, "BTCUSDT", 61686.0),
    ]


@pytest.mark.stack
def test_nothing_to_write_is_no_insert(client):
    empty = TickBatch(
        partition=0, ticks=ticks([]), dead_letters=[], next_offset=0, ingest_time_ns=0
    )
    writer = ArchiveWriter(client)
    assert writer.write_ticks([empty], BOOK) == writer.write([]) == (0, 0, [], 0)


def test_ticks_are_no_messages():
    with pytest.raises(KeyError, match="call write_ticks"):
        ArchiveWriter(None).write([RecordBatch("market.ticks", 0, [])])


@pytest.mark.stack
def test_rows_survive_an_outage_of_the_store(tmp_path, as_record):
    port = find_free_port()
    running, address = start_store(tmp_path, port, "secret")
    settings = StoreSettings(url=address.url, user=address.user, password="secret")
    opened = connect(settings)
    prepare_database(opened, "outage")
    batches = batches_of(BARS, as_record)
    running.stop()
    writer = ArchiveWriter(opened)
    with pytest.raises(StoreUnavailableError, match="insert into 'market_bars' must be answered"):
        writer.write(batches)
    again, _ = start_store(tmp_path, port, "secret")
    try:
        writer.write(batches)
        assert read_messages(opened, BarClosed, "1", {}, order_by="close_time_ns") == BARS
    finally:
        opened.close()
        end(again)
