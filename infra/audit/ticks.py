"""Every line of `market.ticks`: taken apart again, and looked for where it must have gone (I1).

A line is in the table of ticks or in `ops.dead_letters`, once, and never in both. What was accepted
must be a tick by the rules of `schemas.ticks`; what was refused must be there with its exact bytes.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from infra.audit.log import TICKS, LogRecord, TickRow
from infra.audit.report import Check, Place
from schemas.checked import convert, decoder
from schemas.ddl import TICK_SIDES
from schemas.fields import Provenance
from schemas.market import InstrumentListed
from schemas.operations import DeadLetterRecorded
from schemas.ticks import (
    CONTENT_ARROW,
    CONTENT_NDJSON,
    EVENT_TIME_MIN_NS,
    FUTURE_ALLOWANCE_NS,
    KIND_HEARTBEAT,
    KIND_QUOTE,
    KIND_TRADE,
    PROVENANCE_CODES,
    TICK_WIRE,
    TickLine,
)

WHOLE_RECORD = -1
Market = tuple[str, str]
"""Venue and symbol."""

_BLANK = b" \t\r\n"
_KINDS = {"heartbeat": KIND_HEARTBEAT, "trade": KIND_TRADE, "quote": KIND_QUOTE}
_EXACT: dict[float, Decimal] = {}
_EXACT_MAX = 500_000
_decode_line = decoder(TickLine).decode


class Tick(NamedTuple):
    """An accepted line."""

    partition: int
    offset: int
    line: int
    kind: int
    time_ns: int
    market: Market
    price: Decimal
    size: Decimal
    side: str
    trade_id: int
    bid: Decimal
    ask: Decimal
    provenance: int


class Line(NamedTuple):
    """One line of a record: a tick, or why it is none."""

    number: int
    tick: TickLine | None
    problem: str
    raw: bytes | None


TableRow = tuple[Any, ...]
"""offset, line, kind, venue, symbol, event time, price, size, side, trade id, bid, ask, provenance."""

ZERO = Decimal(0)


def exact(value: float) -> Decimal:
    """Return the shortest decimal that reads as `value`."""
    found = _EXACT.get(value)
    if found is None:
        if len(_EXACT) >= _EXACT_MAX:
            _EXACT.clear()
        found = _EXACT[value] = Decimal(repr(value))
    return found


def parse_record(record: LogRecord) -> list[Line] | str:
    """Return the lines of a record, or why none of it may be read; synthetic data never is."""
    headers = record.headers or {}
    content = headers.get("content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    provenance = headers.get("provenance", b"").decode("latin-1")
    if provenance not in PROVENANCE_CODES or provenance == Provenance.SYNTHETIC:
        return f"provenance {headers.get('provenance')!r}"
    if isinstance(record.message, list):
        return [_row_line(row) for row in record.message]
    value = record.value or b""
    if content == CONTENT_NDJSON:
        lines = [line for line in value.split(b"\n") if line.strip(_BLANK)]
        return [_text_line(number, line) for number, line in enumerate(lines)] or "no line"
    if content == CONTENT_ARROW:
        return _stream_lines(value)
    return f"content type {content!r}"


def _text_line(number: int, line: bytes) -> Line:
    try:
        return Line(number, _decode_line(line), "", line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Line(number, None, str(error), line)


def _row_line(row: TickRow) -> Line:
    fields = {name: row.fields.get(name) for name in TICK_WIRE}
    try:
        return Line(row.line, convert(fields, TickLine), "", None)
    except msgspec.ValidationError as error:
        return Line(row.line, None, str(error), None)


def _stream_lines(value: bytes) -> list[Line] | str:
    try:
        rows = pa.ipc.open_stream(pa.BufferReader(value)).read_all().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        return str(error)
    lines = [_row_line(TickRow(number, "", row)) for number, row in enumerate(rows)]
    return lines or "no row"


def find_fault(tick: TickLine, timestamp_ms: int, listing: InstrumentListed | None) -> str:
    """Return which rule of an accepted tick is broken, or nothing."""
    if tick.event_time_ns < EVENT_TIME_MIN_NS:
        return "event time before 2000"
    if tick.event_time_ns > timestamp_ms * 1_000_000 + FUTURE_ALLOWANCE_NS:
        return "event time in the future of the record"
    if tick.kind == "heartbeat":
        return ""
    first, second = (tick.price, tick.size) if tick.kind == "trade" else (tick.bid, tick.ask)
    if tick.venue is None or tick.symbol is None or first is None or second is None:
        return "a required field is absent"
    if not (0 < first < math.inf and 0 < second < math.inf):
        return "a price or size is not finite and positive"
    if listing is None:
        return "the instrument is not listed"
    if tick.kind == "quote" and first > second:
        return "the quote is crossed"
    return ""


class TickAudit:
    """Goes through the records of `market.ticks` and yields what was accepted."""

    def __init__(
        self,
        check: Check,
        dead_letters: Iterable[DeadLetterRecorded],
        listings: dict[Market, InstrumentListed],
    ) -> None:
        self._check, self._listings = check, listings
        self._dead: dict[tuple[int, int], dict[int, DeadLetterRecorded]] = defaultdict(dict)
        for letter in dead_letters:
            if letter.source_topic == TICKS:
                self._dead[letter.partition, letter.offset][letter.line] = letter
        self.holes = 0
        """Offsets without a record: markers of transactions take one each."""

    def accepted(
        self,
        partition: int,
        records: Iterable[LogRecord],
        start: int,
        rows: Iterator[TableRow] | None,
    ) -> Iterator[Tick]:
        """Yield the accepted ticks of a partition; `rows` are its table rows in log order, if any.

        Violations are recorded on the way: read to the end.
        """
        table = _TableRows(rows, start)
        expected = start
        for record in records:
            offset = record.place.offset
            self.holes += offset - expected
            expected = offset + 1
            table.refuse_before(self._check, partition, offset)
            yield from self._of_record(partition, record, table)
        table.refuse_before(self._check, partition, 2**62)
        for dead_partition, offset in sorted(self._dead):
            if dead_partition == partition and offset >= expected:
                self._violate(
                    "dead letter names a record of the log", partition, offset, -1, "", ""
                )

    def _of_record(self, partition: int, record: LogRecord, table: "_TableRows") -> Iterator[Tick]:
        offset = record.place.offset
        dead = self._dead.get((partition, offset), {})
        parsed = parse_record(record)
        self._check.rows += 1 if isinstance(parsed, str) else len(parsed)
        if WHOLE_RECORD in dead:
            self._check_bytes(dead[WHOLE_RECORD], record.value or b"")
            for line in sorted(dead.keys() - {WHOLE_RECORD}):
                rule = "a record that was refused as a whole has no dead lines"
                self._violate(rule, partition, offset, line, "1 dead letter", "2")
            return
        if isinstance(parsed, str):
            rule = "a record that cannot be read is in ops.dead_letters"
            self._violate(rule, partition, offset, WHOLE_RECORD, "a dead letter", parsed)
            return
        provenance = PROVENANCE_CODES.index((record.headers or {})["provenance"].decode())
        for line in sorted(dead.keys() - {found.number for found in parsed}):
            rule = "dead letter names a line of the record"
            self._violate(rule, partition, offset, line, f"{len(parsed)} lines", line)
        for found in parsed:
            letter = dead.get(found.number)
            if letter is not None:
                if found.raw is not None:
                    self._check_bytes(letter, found.raw)
                continue
            tick = self._accept(partition, record, found, provenance)
            if tick is not None:
                table.expect(self._check, tick)
                yield tick

    def _accept(
        self, partition: int, record: LogRecord, line: Line, provenance: int
    ) -> Tick | None:
        offset, tick = record.place.offset, line.tick
        fault = line.problem
        if tick is not None:
            listing = self._listings.get((tick.venue or "", tick.symbol or ""))
            fault = find_fault(tick, record.timestamp_ms, listing)
        if fault or tick is None:
            rule = "a line that is no tick is in ops.dead_letters"
            self._violate(rule, partition, offset, line.number, "a dead letter", fault)
            return None
        kind = _KINDS[tick.kind]
        trade, quote = kind == KIND_TRADE, kind == KIND_QUOTE
        return Tick(
            partition,
            offset,
            line.number,
            kind,
            tick.event_time_ns,
            (tick.venue or "", tick.symbol or "") if kind != KIND_HEARTBEAT else ("", ""),
            exact(tick.price or 0.0) if trade else ZERO,
            exact(tick.size or 0.0) if trade else ZERO,
            (tick.side or "") if trade else "",
            tick.trade_id if trade and tick.trade_id is not None else -1,
            exact(tick.bid or 0.0) if quote else ZERO,
            exact(tick.ask or 0.0) if quote else ZERO,
            provenance,
        )

    def _check_bytes(self, letter: DeadLetterRecorded, raw: bytes) -> None:
        expected = (len(raw), sha256(raw).hexdigest())
        found = (letter.payload_bytes, letter.payload_sha256)
        if expected != found:
            rule = "a dead letter holds the exact bytes"
            self._violate(rule, letter.partition, letter.offset, letter.line, expected, found)

    def _violate(
        self, rule: str, partition: int, offset: int, line: int, expected: object, found: object
    ) -> None:
        key = f"{partition}/{offset}/{line}"
        self._check.violate(rule, Place(TICKS, partition, offset), key, expected, found)


class _TableRows:
    """Rows of the tick table in log order, held against the ticks as they come by."""

    def __init__(self, rows: Iterator[TableRow] | None, start: int) -> None:
        self._rows = rows
        self._row = self._next()
        while self._row is not None and self._row[0] < start:  # Older than the log's own memory.
            self._row = self._next()

    def _next(self) -> TableRow | None:
        return next(self._rows, None) if self._rows is not None else None

    def refuse_before(self, check: Check, partition: int, offset: int, line: int = 0) -> None:
        """Record every row before a place: no accepted line claimed it."""
        while self._row is not None and (self._row[0], self._row[1]) < (offset, line):
            key = f"{partition}/{self._row[0]}/{self._row[1]}"
            place = Place("market_ticks", partition, self._row[0])
            rule = "a row of market_ticks is an accepted line of the log, once"
            check.violate(rule, place, key, "no row", self._row)
            self._row = self._next()

    def expect(self, check: Check, tick: Tick) -> None:
        """Compare the next row with `tick`."""
        if self._rows is None:
            return
        self.refuse_before(check, tick.partition, tick.offset, tick.line)
        expected = _table_row(tick)
        key = f"{tick.partition}/{tick.offset}/{tick.line}"
        place = Place(TICKS, tick.partition, tick.offset)
        if self._row is None or self._row[:2] != expected[:2]:
            rule = "an accepted line is a row of market_ticks or a dead letter"
            check.violate(rule, place, key, expected, "no row and no dead letter")
            return
        if self._row != expected:
            rule = "a row of market_ticks says what the line says"
            check.violate(rule, place, key, expected, self._row)
        self._row = self._next()


def _table_row(tick: Tick) -> TableRow:
    trade, quote = tick.kind == KIND_TRADE, tick.kind == KIND_QUOTE
    kind = "trade" if trade else "quote" if quote else "heartbeat"
    assert tick.side in TICK_SIDES
    return (
        tick.offset,
        tick.line,
        kind,
        *tick.market,
        tick.time_ns,
        float(tick.price) if trade else None,
        float(tick.size) if trade else None,
        tick.side,
        tick.trade_id if tick.trade_id >= 0 else None,
        float(tick.bid) if quote else None,
        float(tick.ask) if quote else None,
        PROVENANCE_CODES[tick.provenance],
    )
