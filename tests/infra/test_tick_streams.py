"""An Arrow record gives the ticks that its lines would give, or is one dead letter."""

import json
from base64 import b64decode

import polars as pl
import pyarrow as pa
import pytest

from tests.infra.tick_records import ARROW, GOOD, ROWS, decode, line, quote, reasons, record, stream


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
    payload = json.loads(b64decode(batch.dead_letters[2].payload_base64))
    assert payload == {k: v for k, v in rows.to_dicts()[5].items() if v is not None}


def test_a_flipped_byte_of_a_stream_never_harms_its_neighbours():
    value = stream(ROWS)
    for place in range(0, len(value), 3):
        flipped = bytearray(value)
        flipped[place] ^= 0xFF
        batch = decode(record(GOOD, 0), record(bytes(flipped), 1, ARROW), record(GOOD, 2))
        mine = batch.ticks.filter(pl.col("offset") != 1)
        assert mine["offset"].to_list() == [0, 2]
        assert all(letter.offset == 1 for letter in batch.dead_letters)
        assert batch.ticks.height > 2 or batch.dead_letters
