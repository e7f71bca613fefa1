"""An Arrow record gives the ticks that its lines would give, or is one dead letter."""

import json
from base64 import b64decode

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.tick_streams import parse_streams
from schemas.ticks import TICK_WIRE
from tests.infra.tick_records import (
    ARROW,
    FOREIGN,
    GOOD,
    NOW_NS,
    ROWS,
    decode,
    line,
    quote,
    reasons,
    record,
    stream,
)


def test_an_arrow_stream_gives_the_same_ticks_as_its_lines():
    lines = decode(record(b"\n".join([GOOD, quote(), line(side="buy", trade_id=3)])))
    assert decode(record(stream(ROWS), headers=ARROW)).ticks.equals(lines.ticks)
    two = pa.concat_tables([ROWS.to_arrow()[:1], ROWS.to_arrow()[1:]])
    assert decode(record(stream(two), headers=ARROW)).ticks.equals(lines.ticks)


@pytest.mark.parametrize(
    "table",
    [
        ROWS.to_arrow(),
        ROWS.with_columns(extra=pl.lit([1, 2])).to_arrow(),
        ROWS.drop("bid_size", "ask_size").to_arrow(),
        ROWS.select(reversed(ROWS.columns)).to_arrow(),
        ROWS.with_columns(pl.col("venue", "symbol", "kind").cast(pl.Categorical)).to_arrow(),
        ROWS.with_columns(pl.col("trade_id").cast(pl.UInt32)).to_arrow(),
    ],
)
def test_arrow_columns_may_be_more_fewer_or_dictionaries(table):
    expected = decode(record(stream(ROWS), headers=ARROW)).ticks
    batch = decode(record(stream(table), headers=ARROW))
    assert batch.dead_letters == []
    assert batch.ticks.equals(expected)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (stream(ROWS)[:-1], "BROKEN_ARROW"),
        (stream(ROWS)[:-8], "BROKEN_ARROW"),
        (stream(ROWS)[:500], "BROKEN_ARROW"),
        (stream(ROWS) + stream(ROWS), "BROKEN_ARROW"),
        (b"ARROW1", "BROKEN_ARROW"),
        (GOOD, "BROKEN_ARROW"),
        (stream(ROWS.drop("kind")), "BROKEN_ARROW"),
        (stream(ROWS.with_columns(pl.col("price").cast(pl.Float32))), "BROKEN_ARROW"),
        (stream(ROWS.with_columns(pl.col("price").cast(pl.String))), "BROKEN_ARROW"),
        (stream(ROWS.with_columns(trade_id=pl.lit(2**64 - 1, pl.UInt64))), "BROKEN_ARROW"),
        (stream(ROWS.clear()), "EMPTY_RECORD"),
        (
            stream(
                pa.table({"kind": pa.nulls(10**6, pa.null()), "event_time_ns": pa.nulls(10**6)})
            ),
            "RECORD_TOO_LARGE",
        ),
    ],
)
def test_a_broken_stream_is_one_dead_letter(value, reason):
    fine = stream(ROWS)
    batch = decode(
        record(fine, 0, ARROW), record(value, 1, ARROW), record(fine, 2, ARROW), record(GOOD, 3)
    )
    assert batch.ticks["offset"].to_list() == [0, 0, 0, 2, 2, 2, 3]
    (letter,) = batch.dead_letters
    assert (letter.reason, letter.offset, letter.line) == (reason, 1, -1)


def test_rows_of_a_stream_are_judged_one_by_one():
    rows = pl.concat(
        [
            ROWS,
            ROWS[:1].with_columns(price=pl.lit(float("nan"))),
            ROWS[:1].with_columns(kind=pl.lit(None, pl.String)),
            ROWS[:1].with_columns(kind=pl.lit("bar")),
            ROWS[:1].with_columns(side=pl.lit("long")),
            ROWS[:1].with_columns(event_time_ns=pl.lit(None, pl.Int64)),
            ROWS[:1],
        ]
    )
    batch = decode(record(stream(rows), headers=ARROW))
    assert batch.ticks["line"].to_list() == [0, 1, 2, 8]
    assert reasons(batch) == [
        "NOT_FINITE", "MISSING_FIELD", "WRONG_TYPE", "WRONG_TYPE", "MISSING_FIELD",
    ]  # fmt: skip
    letter = batch.dead_letters[2]
    assert (letter.line, letter.detail) == (5, "kind='bar'")
    payload = json.loads(b64decode(letter.payload_base64))
    assert payload == {k: v for k, v in rows.to_dicts()[5].items() if v is not None}


PRICES = st.sampled_from([10.25, 10.5, 11.0, None, 0.0, -1.0, 10.251, 1e17])
TICKS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["trade", "trade", "quote", "heartbeat"]),
        "event_time_ns": st.sampled_from([NOW_NS, NOW_NS - 1, NOW_NS + 10**12, 5]),
        "venue": st.sampled_from(["v", "v", "v", "w", "", None]),
        "symbol": st.sampled_from(["S", "S", "S", FOREIGN, "a name of many letters", "é", None]),
        "side": st.sampled_from(["buy", "sell", None]),
        "trade_id": st.sampled_from([7, 8, None]),
        **dict.fromkeys(("price", "size", "bid", "bid_size", "ask", "ask_size"), PRICES),
    }
)
FORMS = st.sampled_from(["plain", "chunks", "dictionaries", "views"])


def as_lines(ticks):
    return b"\n".join(
        json.dumps({name: value for name, value in tick.items() if value is not None}).encode()
        for tick in ticks
    )


def as_stream(ticks, form):
    rows = pl.DataFrame(ticks, schema=TICK_WIRE)
    if form == "dictionaries":
        rows = rows.with_columns(pl.col("kind", "venue", "symbol", "side").cast(pl.Categorical))
    newest = form == "views"
    table = rows.to_arrow(
        compat_level=pl.CompatLevel.newest() if newest else pl.CompatLevel.oldest()
    )
    if form == "chunks":
        table = pa.concat_tables([table[:1], table[1:]])
    return stream(table)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.lists(TICKS, min_size=1, max_size=9), st.booleans(), FORMS), min_size=1)
)
def test_streams_among_lines_say_what_lines_alone_would_say(records):
    lines = decode(*(record(as_lines(ticks), i) for i, (ticks, _, _) in enumerate(records)))
    mixed = decode(
        *(
            record(as_stream(ticks, form), i, ARROW) if arrow else record(as_lines(ticks), i)
            for i, (ticks, arrow, form) in enumerate(records)
        )
    )
    assert mixed.ticks.equals(lines.ticks)
    assert mixed.ticks.schema == lines.ticks.schema

    def told(batch):
        return [(each.offset, each.line, each.reason, each.detail) for each in batch.dead_letters]

    assert told(mixed) == told(lines)


def test_a_text_that_is_null_says_nothing_even_where_it_has_bytes():
    symbols = pa.array(["S", "S", "S"], pa.large_string())
    hidden = pa.Array.from_buffers(
        pa.large_string(), 3, [pa.py_buffer(b"\x05"), *symbols.buffers()[1:]]
    )
    table = ROWS.to_arrow(compat_level=pl.CompatLevel.oldest())
    place = table.schema.get_field_index("symbol")
    batch = decode(record(stream(table.set_column(place, "symbol", hidden)), headers=ARROW))
    assert batch.ticks["line"].to_list() == [0, 2]
    assert [letter.detail for letter in batch.dead_letters] == ["absent: symbol"]


def test_a_stream_may_name_an_instrument_for_every_tick():
    names = [f"S{number}" for number in range(40_000)]
    rows = pl.concat([ROWS[:1]] * len(names)).with_columns(symbol=pl.Series(names))
    parsed = parse_streams([stream(ROWS), stream(rows)])
    found = [parsed.ticks.names[pair] for pair in parsed.ticks.pairs.tolist()]
    assert found == [("v", "S")] * 3 + [("v", name) for name in names]


@pytest.mark.parametrize(("rows", "bits", "step"), [(ROWS, 0xFF, 3), (ROWS[:1], 0x01, 1)])
def test_a_flipped_byte_of_a_stream_never_harms_its_neighbours(rows, bits, step):
    value = stream(rows)
    for place in range(0, len(value), step):
        flipped = bytearray(value)
        flipped[place] ^= bits
        batch = decode(record(GOOD, 0), record(bytes(flipped), 1, ARROW), record(GOOD, 2))
        mine = batch.ticks.filter(pl.col("offset") != 1)
        assert mine["offset"].to_list() == [0, 2]
        assert all(letter.offset == 1 for letter in batch.dead_letters)
        assert batch.ticks.height > 2 or batch.dead_letters
