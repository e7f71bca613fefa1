"""The wire format of `market.ticks` and the columnar frame it is decoded into.

A record of `market.ticks` holds one or many JSON lines (`content-type: application/x-ndjson`) or one
Arrow IPC stream (`content-type: application/vnd.apache.arrow.stream`) with the columns of `TICK_WIRE`.
The header `provenance` says where the ticks come from. All symbols of a record belong to the record's
partition: murmur2 of `venue:symbol` modulo the partition count, as Kafka's own default partitioner.
"""

from enum import StrEnum
from typing import Literal

import polars as pl
from msgspec import Struct

CONTENT_NDJSON = "application/x-ndjson"
CONTENT_ARROW = "application/vnd.apache.arrow.stream"

LINE_BYTES_MAX = 4096
"""A tick is a flat JSON object; a longer line is not one."""

RECORD_BYTES_MAX = 4 * 1024 * 1024
"""A larger record is dead-lettered before it is parsed."""

EVENT_TIME_MIN_NS = 946_684_800_000_000_000
"""2000-01-01: an earlier time was sent in seconds, milliseconds or microseconds."""

FUTURE_ALLOWANCE_NS = 60_000_000_000
"""How much later than the record's Kafka timestamp a tick may be."""


class TickLine(Struct, frozen=True, kw_only=True):
    """One line of `market.ticks`: a trade, a quote, or a heartbeat that carries only a time."""

    kind: Literal["trade", "quote", "heartbeat"]
    event_time_ns: int
    venue: str | None = None
    symbol: str | None = None
    price: float | None = None
    size: float | None = None
    side: Literal["buy", "sell"] | None = None
    trade_id: int | None = None
    bid: float | None = None
    bid_size: float | None = None
    ask: float | None = None
    ask_size: float | None = None


TICK_WIRE = pl.Schema(
    {
        "kind": pl.String(),
        "event_time_ns": pl.Int64(),
        "venue": pl.String(),
        "symbol": pl.String(),
        "price": pl.Float64(),
        "size": pl.Float64(),
        "side": pl.String(),
        "trade_id": pl.Int64(),
        "bid": pl.Float64(),
        "bid_size": pl.Float64(),
        "ask": pl.Float64(),
        "ask_size": pl.Float64(),
    }
)
"""Columns of an Arrow record, and of the frame that NDJSON is decoded into. Null where absent."""

TICK_FRAME = pl.Schema(
    {
        "offset": pl.Int64(),
        "line": pl.Int32(),
        "kind": pl.Int8(),
        "event_time_ns": pl.Int64(),
        "instrument": pl.Int32(),
        "price_units": pl.Int64(),
        "size_units": pl.Int64(),
        "side": pl.Int8(),
        "trade_id": pl.Int64(),
        "bid_units": pl.Int64(),
        "ask_units": pl.Int64(),
        "provenance": pl.Int8(),
    }
)
"""A validated fetch of one partition, in log order.

`kind`: 0 heartbeat, 1 trade, 2 quote. `instrument`: index into the `InstrumentBook`, -1 for a
heartbeat. Prices and sizes are integers in units of the instrument's last decimal
(`price = price_units / 10 ** price_decimals`), so sums and comparisons are exact. `side`: 1 the
buyer took, -1 the seller took, 0 unknown. `trade_id`: -1 if the feed has none. `bid_units` and
`ask_units`: 0 for trades. `provenance`: index into `PROVENANCE_CODES`. Quote sizes are not used.
"""

KIND_HEARTBEAT, KIND_TRADE, KIND_QUOTE = 0, 1, 2
PROVENANCE_CODES = ("synthetic", "reconstructed", "recorded", "live")
"""From the least to the most trustworthy: the minimum of several ticks is the honest one."""


class DeadLetterReason(StrEnum):
    """Why a record or a line was not accepted."""

    EMPTY_RECORD = "EMPTY_RECORD"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    LINE_TOO_LARGE = "LINE_TOO_LARGE"
    UNKNOWN_CONTENT_TYPE = "UNKNOWN_CONTENT_TYPE"
    UNKNOWN_PROVENANCE = "UNKNOWN_PROVENANCE"
    SYNTHETIC = "SYNTHETIC"
    NOT_JSON = "NOT_JSON"
    WRONG_TYPE = "WRONG_TYPE"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    BROKEN_ARROW = "BROKEN_ARROW"
    MISSING_FIELD = "MISSING_FIELD"
    NOT_FINITE = "NOT_FINITE"
    NOT_POSITIVE = "NOT_POSITIVE"
    CROSSED_QUOTE = "CROSSED_QUOTE"
    UNKNOWN_INSTRUMENT = "UNKNOWN_INSTRUMENT"
    WRONG_PARTITION = "WRONG_PARTITION"
    OFF_GRID = "OFF_GRID"
    TIME_UNIT = "TIME_UNIT"
    TIME_IN_FUTURE = "TIME_IN_FUTURE"
    UNDECODABLE = "UNDECODABLE"
    BAD_SIGNATURE = "BAD_SIGNATURE"
