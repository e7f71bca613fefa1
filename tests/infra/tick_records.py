"""Records of ticks as feeds send them, and a decoder for them."""

import io
import json
from decimal import Decimal

import polars as pl
import pyarrow as pa

from infra.partitions import partition_of
from infra.records import FetchedRecord
from infra.tick_decoder import TickDecoder
from infra.tick_scan import FIELDS, FLOATS, KINDS, SIDES
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.ticks import CONTENT_ARROW, CONTENT_NDJSON, TICK_WIRE

NOW_NS = 1_723_161_600_000_000_000
NOW_MS = NOW_NS // 1_000_000
PARTITIONS = 4
HOME = partition_of("v", "S", PARTITIONS)
FOREIGN = next(f"F{i}" for i in range(99) if partition_of("v", f"F{i}", PARTITIONS) != HOME)
NDJSON = [("content-type", CONTENT_NDJSON.encode()), ("provenance", b"recorded")]
ARROW = [("content-type", CONTENT_ARROW.encode()), ("provenance", b"recorded")]


def listing(symbol, decimals=2):
    return InstrumentListed(
        id=symbol,
        venue="v",
        symbol=symbol,
        valid_from_ns=0,
        price_decimals=decimals,
        size_decimals=3,
        tick_size=Decimal(1).scaleb(-decimals),
        lot_size=Decimal("0.001"),
        notional_min=Decimal(5),
        maker_fee_bps=10.0,
        taker_fee_bps=10.0,
    )


def decoder(*, refresh=lambda: False, book=None):
    book = InstrumentBook([listing("S"), listing(FOREIGN)]) if book is None else book
    return TickDecoder(HOME, PARTITIONS, book, refresh)


def line(**changed):
    fields = {
        "kind": "trade",
        "event_time_ns": NOW_NS,
        "venue": "v",
        "symbol": "S",
        "price": 10.25,
        "size": 0.5,
    }
    fields |= changed
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def quote(**changed):
    fields = {"kind": "quote", "price": ..., "size": ..., "bid": 10.0, "ask": 10.5}
    return line(**(fields | changed))


def raw(name, text):
    return line(**{name: "@"}).replace(b'"@"', text)


def record(value, offset=0, headers=NDJSON, timestamp_ms=NOW_MS):
    return FetchedRecord(offset, timestamp_ms, None, value, headers)


def decode(*records, **kwargs):
    return decoder(**kwargs).decode(records, 0)


def reasons(batch):
    return [letter.reason for letter in batch.dead_letters]


GOOD = line()
PADDING = [line(trade_id=i) for i in range(200)]
"""Neighbours that must count whatever is between them."""


def ticks_of(parsed):
    """Return the fields that `parsed` (`ParsedTicks`) says are there, one dictionary a tick."""
    names = [parsed.names[pair] for pair in parsed.pairs.tolist()]
    columns = {
        "kind": [KINDS[code] for code in parsed.kinds.tolist()],
        "event_time_ns": parsed.times_ns.tolist(),
        "venue": [venue for venue, _ in names],
        "symbol": [symbol for _, symbol in names],
        "side": [SIDES[code] for code in parsed.sides.tolist()],
        "trade_id": parsed.trade_ids.tolist(),
        **{name: found.tolist() for name, found in zip(FLOATS, parsed.floats, strict=True)},
    }
    return [
        {name: columns[name][row] for place, name in enumerate(FIELDS) if bits >> place & 1}
        for row, bits in enumerate(parsed.present.tolist())
    ]


def stream(frame, *, options=None):
    table = (
        frame
        if isinstance(frame, pa.Table)
        else frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    )
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def wire(*lines):
    return pl.read_ndjson(b"\n".join(lines), schema=TICK_WIRE)


ROWS = wire(GOOD, quote(), line(side="buy", trade_id=3))
