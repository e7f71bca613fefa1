"""Whatever is in a record: each of its lines is a tick or a dead letter, and the neighbours count."""

from base64 import b64decode
from hashlib import sha256

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.records import FetchedRecord
from infra.tick_encoder import encode_heartbeat, encode_records
from infra.tick_lines import split_lines
from schemas.ids import derive_id
from schemas.instruments import InstrumentBook
from schemas.ticks import (
    EVENT_TIME_MIN_NS,
    FUTURE_ALLOWANCE_NS,
    LINE_BYTES_MAX,
    RECORD_BYTES_MAX,
    TICK_FRAME,
)
from tests.infra.tick_records import (
    ARROW,
    FOREIGN,
    GOOD,
    HOME,
    NDJSON,
    NOW_MS,
    NOW_NS,
    PADDING,
    PARTITIONS,
    ROWS,
    decode,
    line,
    listing,
    quote,
    raw,
    reasons,
    record,
    stream,
    wire,
)  # fmt: skip


def both_ways(bad):
    """Decode `bad` among its neighbours and alone; return the one dead letter both must agree on."""
    crowd = decode(record(b"\n".join([*PADDING, bad, *PADDING])))
    alone = decode(record(bad))
    assert crowd.ticks.height == 2 * len(PADDING)
    assert alone.ticks.is_empty()
    (in_crowd,), (letter,) = crowd.dead_letters, alone.dead_letters
    assert (in_crowd.line, letter.line) == (len(PADDING), 0)
    assert (in_crowd.reason, in_crowd.detail) == (letter.reason, letter.detail)
    assert b64decode(letter.payload_base64) == bad[: 64 * 1024]
    assert letter.payload_bytes == len(bad)
    assert letter.payload_sha256 == sha256(bad).hexdigest()
    return letter


def test_a_trade_becomes_integers_of_its_last_decimal():
    batch = decode(record(line(side="sell", trade_id=7), offset=41))
    assert batch.ticks.schema == TICK_FRAME
    (tick,) = batch.ticks.to_dicts()
    assert tick == {
        "offset": 41,
        "line": 0,
        "kind": 1,
        "event_time_ns": NOW_NS,
        "instrument": 0,
        "price_units": 1025,
        "size_units": 500,
        "side": -1,
        "trade_id": 7,
        "bid_units": 0,
        "ask_units": 0,
        "provenance": 2,
    }
    assert (batch.partition, batch.next_offset, batch.dead_letters) == (HOME, 42, [])


def test_quotes_and_heartbeats_are_ticks():
    batch = decode(record(b"\n".join([quote(), encode_heartbeat(NOW_NS)])))
    assert batch.ticks["kind"].to_list() == [2, 0]
    assert batch.ticks["instrument"].to_list() == [0, -1]
    assert batch.ticks["bid_units"].to_list() == [1000, 0]
    assert batch.ticks["ask_units"].to_list() == [1050, 0]
    assert batch.ticks["trade_id"].to_list() == [-1, -1]


@pytest.mark.acceptance(
    "I15", criterion="each kind of broken line is dead-lettered with its reason"
)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (GOOD[:-1], "NOT_JSON"),
        (GOOD[:30], "NOT_JSON"),
        (GOOD + b"}", "NOT_JSON"),
        (GOOD + GOOD, "NOT_JSON"),
        (GOOD + b",", "NOT_JSON"),
        (b"\xef\xbb\xbf" + GOOD, "NOT_JSON"),
        (b"tick", "NOT_JSON"),
        (GOOD.replace(b'"S"', b'"\xff"'), "NOT_JSON"),
        (GOOD.replace(b"{", b'{"x": "\xff", '), "NOT_JSON"),
        (raw("price", b"NaN"), "NOT_JSON"),
        (raw("price", b"Infinity"), "NOT_JSON"),
        (raw("price", b"-Infinity"), "NOT_JSON"),
        (raw("price", b"1_000"), "NOT_JSON"),
        (raw("price", b"01"), "NOT_JSON"),
        (raw("price", "１".encode()), "NOT_JSON"),
        (raw("price", b"1e400"), "NOT_FINITE"),
        (raw("price", b"1" * 5000), "LINE_TOO_LARGE"),
        (GOOD.replace(b": ", b":" + b" " * LINE_BYTES_MAX, 1), "LINE_TOO_LARGE"),
        (b"[" * 100_000, "LINE_TOO_LARGE"),
        (b'{"x":' * 100_000, "LINE_TOO_LARGE"),
        (raw("zone", b"[" * 900 + b"]" * 900), "WRONG_TYPE"),
        (b"5", "WRONG_TYPE"),
        (b"null", "WRONG_TYPE"),
        (b"[]", "WRONG_TYPE"),
        (b"{}", "MISSING_FIELD"),
        (line(price="10.25"), "WRONG_TYPE"),
        (line(price=True), "WRONG_TYPE"),
        (line(price=[1]), "WRONG_TYPE"),
        (line(price={"a": 1}), "WRONG_TYPE"),
        (line(price=None), "MISSING_FIELD"),
        (line(size=...), "MISSING_FIELD"),
        (line(kind=...), "MISSING_FIELD"),
        (line(kind=None), "WRONG_TYPE"),
        (line(kind="bar"), "WRONG_TYPE"),
        (line(side="long"), "WRONG_TYPE"),
        (line(symbol=5), "WRONG_TYPE"),
        (line(symbol=True), "WRONG_TYPE"),
        (line(venue=...), "MISSING_FIELD"),
        (line(event_time_ns=...), "MISSING_FIELD"),
        (line(event_time_ns=float(NOW_NS)), "WRONG_TYPE"),
        (line(event_time_ns=str(NOW_NS)), "WRONG_TYPE"),
        (line(trade_id=2**63), "WRONG_TYPE"),
        (line(trade_id=1.5), "WRONG_TYPE"),
        (line(price=-10.25), "NOT_POSITIVE"),
        (line(price=0), "NOT_POSITIVE"),
        (line(price=-0.0), "NOT_POSITIVE"),
        (line(size=0.0), "NOT_POSITIVE"),
        (raw("size", b"1e-400"), "NOT_POSITIVE"),
        (line(price=10.251), "OFF_GRID"),
        (line(size=0.0001), "OFF_GRID"),
        (line(price=1e17), "OFF_GRID"),
        (raw("price", b"9" * 300), "OFF_GRID"),
        (line(venue="w"), "UNKNOWN_INSTRUMENT"),
        (line(symbol="T"), "UNKNOWN_INSTRUMENT"),
        (line(symbol=""), "UNKNOWN_INSTRUMENT"),
        (line(symbol="a:{b}"), "UNKNOWN_INSTRUMENT"),
        (line(symbol=FOREIGN), "WRONG_PARTITION"),
        (line(event_time_ns=NOW_NS // 10**9), "TIME_UNIT"),
        (line(event_time_ns=NOW_NS // 10**6), "TIME_UNIT"),
        (line(event_time_ns=NOW_NS // 10**3), "TIME_UNIT"),
        (line(event_time_ns=NOW_NS * 1000), "TIME_UNIT"),
        (line(event_time_ns=-1), "TIME_UNIT"),
        (line(event_time_ns=EVENT_TIME_MIN_NS - 1), "TIME_UNIT"),
        (line(event_time_ns=NOW_NS + FUTURE_ALLOWANCE_NS + 1), "TIME_IN_FUTURE"),
        (GOOD.replace(b'"size"', b'"price": 11.0, "size"'), "DUPLICATE_KEY"),
        (GOOD.replace(b'"size"', b'"price": null, "size"'), "DUPLICATE_KEY"),
        (GOOD.replace(b'"price"', b'"price": null, "price"'), "DUPLICATE_KEY"),
        (GOOD.replace(b'"size"', b'"\\u0070rice": 11.0, "size"'), "DUPLICATE_KEY"),
        (quote(bid=10.75), "CROSSED_QUOTE"),
        (quote(bid=0.0), "NOT_POSITIVE"),
        (quote(ask=...), "MISSING_FIELD"),
        (quote(ask=10.501), "OFF_GRID"),
        (quote(bid_size=-1.0), "NOT_POSITIVE"),
        (b'{"kind":"heartbeat"}', "MISSING_FIELD"),
        (encode_heartbeat(NOW_NS + FUTURE_ALLOWANCE_NS + 1), "TIME_IN_FUTURE"),
        (encode_heartbeat(5), "TIME_UNIT"),
    ],
)
def test_a_broken_line_is_kept_apart_and_its_neighbours_count(bad, reason):
    assert both_ways(bad).reason == reason


@pytest.mark.parametrize(
    "good",
    [
        line(event_time_ns=NOW_NS + FUTURE_ALLOWANCE_NS),
        line(event_time_ns=EVENT_TIME_MIN_NS),
        line(side=None, trade_id=None, bid=None),
        line(side="buy"),
        line(price=10, size=3),
        raw("price", b"1025e-2"),
        line(extra={"a": [1, 2]}, note="x:y"),
        GOOD.replace(b'"S"', b'"\\u0053"'),
        GOOD + b"  ",
        GOOD + b"\r",
        quote(bid=10.5),
        quote(bid_size=0.1, ask_size=2.0),
        line(size=9_007_199_254_740.991),
    ],
)
def test_a_line_that_is_unusual_but_right_is_a_tick(good):
    alone = decode(record(good))
    crowd = decode(record(b"\n".join([*PADDING, good, *PADDING])))
    assert (alone.dead_letters, crowd.dead_letters) == ([], [])
    expected = alone.ticks.drop("line")
    assert crowd.ticks[len(PADDING)].drop("line").equals(expected)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"value": None}, "EMPTY_RECORD"),
        ({"value": b""}, "EMPTY_RECORD"),
        ({"value": b" \r\n\n"}, "EMPTY_RECORD"),
        ({"value": b"", "headers": ARROW}, "EMPTY_RECORD"),
        ({"value": b"x" * 5_000_000}, "RECORD_TOO_LARGE"),
        ({"headers": None}, "UNKNOWN_CONTENT_TYPE"),
        ({"headers": [("content-type", b"text/csv"), NDJSON[1]]}, "UNKNOWN_CONTENT_TYPE"),
        ({"headers": [("content-type", b"\xff"), NDJSON[1]]}, "UNKNOWN_CONTENT_TYPE"),
        ({"headers": NDJSON[:1]}, "UNKNOWN_PROVENANCE"),
        ({"headers": [NDJSON[0], ("provenance", None)]}, "UNKNOWN_PROVENANCE"),
        ({"headers": [NDJSON[0], ("provenance", b"rumour")]}, "UNKNOWN_PROVENANCE"),
        ({"timestamp_ms": -1}, "TIME_IN_FUTURE"),
    ],
)
def test_a_broken_record_leaves_its_neighbours(changed, reason):
    bad = record(**({"value": GOOD, "offset": 1} | changed))
    batch = decode(record(GOOD, 0), bad, record(GOOD, 2))
    assert batch.ticks["offset"].to_list() == [0, 2]
    (letter,) = batch.dead_letters
    assert (letter.reason, letter.offset, letter.source_topic) == (reason, 1, "market.ticks")
    assert letter.line == (0 if reason == "TIME_IN_FUTURE" else -1)
    assert letter.payload_bytes == len(bad.value or b"")
    assert b64decode(letter.payload_base64) == (bad.value or b"")[: 64 * 1024]
    assert letter.id == derive_id("ops.dead_letters", "market.ticks", 0, letter.line, f"{HOME}/1")


def test_blank_lines_are_skipped_and_not_numbered():
    batch = decode(record(b"\n\n" + GOOD + b"\n \r\n" + b"bad" + b"\n\n" + GOOD + b"\n"))
    assert batch.ticks["line"].to_list() == [0, 2]
    assert [letter.line for letter in batch.dead_letters] == [1]


def test_a_content_type_may_carry_parameters():
    headers = [("content-type", b"Application/X-NDJSON; charset=utf-8"), NDJSON[1]]
    assert decode(record(GOOD, headers=headers)).ticks.height == 1


def test_an_instrument_listed_meanwhile_is_found_by_one_refresh():
    book = InstrumentBook([])
    calls = []

    def refresh():
        calls.append(1)
        book.add(listing("S"))
        return True

    batch = decode(record(b"\n".join([GOOD, line(symbol="T")])), book=book, refresh=refresh)
    assert (batch.ticks.height, reasons(batch), len(calls)) == (1, ["UNKNOWN_INSTRUMENT"], 1)


BROKEN = [b"bad", GOOD[:-1], line(price=-1.0), line(symbol="T"), line(price="1"), b"{}", b"[1]"]
BROKEN += [line(price=10.251), GOOD.replace(b'"size"', b'"price": 1.0, "size"'), line(symbol=5)]
LINES = st.one_of(
    st.sampled_from([GOOD, quote(), line(trade_id=9), encode_heartbeat(NOW_NS), b"", b"\r"]),
    st.sampled_from(BROKEN),
    st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"")),
)
RECORDS = st.one_of(
    st.lists(LINES, max_size=6).map(lambda lines: (b"\n".join(lines), NDJSON)),
    st.sampled_from([(None, NDJSON), (b"", NDJSON), (GOOD, []), (b"junk", ARROW)]),
    st.sampled_from([(stream(ROWS), ARROW), (stream(ROWS)[:-9], ARROW)]),
    st.sampled_from([(b"\n".join(PADDING[:90]), NDJSON)]),
)


@pytest.mark.acceptance(
    "I1", criterion="I1: every line is a tick or a dead letter, once, in any cut"
)
@settings(max_examples=60)
@given(st.lists(RECORDS, min_size=1, max_size=8), st.data())
def test_every_line_is_accounted_for_however_the_log_is_cut(parts, data):
    records = [record(value, 10 + i, headers) for i, (value, headers) in enumerate(parts)]
    whole = decode(*records)
    seen = [*whole.ticks.select("offset", "line").rows()]
    seen += [(letter.offset, letter.line) for letter in whole.dead_letters]
    lines = set()
    for item in records:
        count = 3 if item.headers is ARROW and item.value == stream(ROWS) else 0
        if item.headers is NDJSON:
            count = len(split_lines(item.value or b""))
        numbers = range(count) if count else [-1]
        lines |= {(item.offset, number) for number in numbers}
    assert len(seen) == len(set(seen))
    assert set(seen) == lines
    cut = data.draw(st.integers(0, len(records)))
    pieces = [piece for piece in (records[:cut], records[cut:]) if piece]
    batches = [decode(*piece) for piece in pieces]
    assert pl.concat([batch.ticks for batch in batches]).equals(whole.ticks)
    assert [letter for batch in batches for letter in batch.dead_letters] == whole.dead_letters
    assert batches[-1].next_offset == whole.next_offset


def test_what_is_encoded_is_decoded():
    ticks = wire(*[line(trade_id=i, price=10 + i / 4, event_time_ns=NOW_NS - i) for i in range(50)])
    chunk = ticks.with_columns(provenance=pl.lit(1, pl.Int8))
    quotes = wire(*[quote(event_time_ns=NOW_NS - i) for i in range(50)])
    other = quotes.with_columns(provenance=pl.lit(1, pl.Int8))
    rows = [(chunk, other)[i % 2][i // 2] for i in range(100)]
    chunk = pl.concat(rows)
    found = []
    for encoding in ("ndjson", "arrow"):
        encoded = encode_records(chunk, PARTITIONS, encoding, 7)
        records = [
            FetchedRecord(i, NOW_MS, item.key, item.value, item.headers)
            for i, item in enumerate(encoded)
        ]
        batch = decode(*records)
        assert batch.dead_letters == []
        assert set(batch.ticks["provenance"]) == {1}
        found.append(batch.ticks)
    assert found[0].equals(found[1])
    assert found[0]["trade_id"].to_list() == [i // 2 if i % 2 == 0 else -1 for i in range(100)]
    assert found[0]["kind"].to_list() == [1, 2] * 50


def test_limits_are_inclusive():
    padded = line(note="x" * 10)
    padded = padded.replace(b"x" * 10, b"x" * (10 + LINE_BYTES_MAX - len(padded)))
    assert decode(record(padded)).ticks.height == 1
    assert reasons(decode(record(padded.replace(b"xx", b"xxx", 1)))) == ["LINE_TOO_LARGE"]
    largest = (GOOD + b"\n") * (RECORD_BYTES_MAX // (len(GOOD) + 1))
    largest += b" " * (RECORD_BYTES_MAX - len(largest))
    assert decode(record(largest)).dead_letters == []
    assert reasons(decode(record(largest + b" "))) == ["RECORD_TOO_LARGE"]
