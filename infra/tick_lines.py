"""JSON lines of many records, parsed in one compiled pass that hides nothing.

`infra.tick_scan` reads the plain lines, which are all that a feed sends on a good day. Every line that
it has a doubt about is decoded by itself, which finds the broken ones and keeps their neighbours. Which of the
two ways a line takes never changes what becomes of it.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from infra.tick_columns import Integers, ParsedTicks, join_ticks
from infra.tick_scan import FIELDS, FLOATS, KINDS, SIDES, scan_lines
from schemas.checked import decoder
from schemas.ticks import LINE_BYTES_MAX, TICK_WIRE, DeadLetterReason, TickLine

BLANK: Final = b" \t\r\n"
"""What JSON counts as white space; a line of nothing else is no line."""

_NESTED_MAX: Final = 32
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_decoder = decoder(TickLine)


class RefusedLine(NamedTuple):
    """A line that is no tick."""

    record: int
    """Index into the parsed values."""
    line: int
    reason: DeadLetterReason
    detail: str
    payload: bytes


class ParsedLines(NamedTuple):
    """The ticks of several records, where each stood, and the lines that are none."""

    ticks: ParsedTicks
    records: Integers
    lines: Integers
    refused: list[RefusedLine]
    counts: Integers
    """Lines of each record, blank ones not counted."""


def split_lines(value: bytes) -> list[bytes]:
    """Return the lines of a record's value that are not blank, each with its exact bytes."""
    return [line for line in value.split(b"\n") if line.strip(BLANK)]


def parse_lines(values: Sequence[bytes]) -> ParsedLines:
    """Return the ticks in `values`, each the NDJSON of one record."""
    buffer = b"\n".join([*values, b""])
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)) + 1)
    scanned = scan_lines(buffer, ends)
    if not len(scanned.doubtful):
        return ParsedLines(scanned.ticks, scanned.records, scanned.lines, [], scanned.counts)
    others, places, refused = _decode_doubtful(buffer, scanned.doubtful)
    records = np.concatenate([scanned.records, places[:, 0]])
    lines = np.concatenate([scanned.lines, places[:, 1]])
    order = np.lexsort((lines, records))
    ticks = join_ticks(scanned.ticks, others, order)
    return ParsedLines(ticks, records[order], lines[order], refused, scanned.counts)


def _decode_doubtful(
    buffer: bytes, doubtful: Integers
) -> tuple[ParsedTicks, Integers, list[RefusedLine]]:
    """Return the ticks among the lines that are not plain, their record and number, and the rest."""
    ticks: list[TickLine] = []
    places: list[tuple[int, int]] = []
    refused: list[RefusedLine] = []
    for record, number, begin, end in doubtful.tolist():
        line = buffer[begin:end]
        found = _decode_line(line)
        if isinstance(found, TickLine):
            ticks.append(found)
            places.append((record, number))
        else:
            refused.append(RefusedLine(record, number, *found, line))
    return _columns_of(ticks), np.array(places, dtype=np.int64).reshape(-1, 2), refused


def _columns_of(ticks: list[TickLine]) -> ParsedTicks:
    def column(name: str, absent: float, dtype: type[np.generic]) -> NDArray[Any]:
        values = [getattr(tick, name) for tick in ticks]
        return np.array([absent if value is None else value for value in values], dtype=dtype)

    present = [
        sum((getattr(tick, name) is not None) << place for place, name in enumerate(FIELDS))
        for tick in ticks
    ]
    return ParsedTicks(
        np.array(present, dtype=np.int16),
        np.array([KINDS.index(tick.kind) for tick in ticks], dtype=np.int8),
        np.array([SIDES.index(tick.side or SIDES[0]) for tick in ticks], dtype=np.int8),
        column("event_time_ns", 0, np.int64),
        column("trade_id", -1, np.int64),
        [column(name, 1.0, np.float64) for name in FLOATS],
        np.arange(len(ticks), dtype=np.int32),
        [(tick.venue, tick.symbol) for tick in ticks],
    )


def read_line(line: bytes) -> dict[str, object]:
    """Return the fields that are not null of a line that `parse_lines` read as a tick."""
    tick = _decode_line(line)
    assert isinstance(tick, TickLine), tick
    fields = {name: getattr(tick, name) for name in FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def _decode_line(line: bytes) -> TickLine | tuple[DeadLetterReason, str]:
    if len(line.strip(BLANK)) > LINE_BYTES_MAX:
        return DeadLetterReason.LINE_TOO_LARGE, f"bytes={len(line)} limit={LINE_BYTES_MAX}"
    if line.count(b"{") + line.count(b"[") > _NESTED_MAX:
        return DeadLetterReason.WRONG_TYPE, "a tick is a flat object; found deep nesting"
    try:
        line.decode()
        tick = _decoder.decode(line)
    except UnicodeDecodeError as error:
        return DeadLetterReason.NOT_JSON, f"not UTF-8: {error.reason} at byte {error.start}"
    except msgspec.ValidationError as error:
        return _judge_message(str(error)), str(error)
    except msgspec.DecodeError as error:
        return DeadLetterReason.NOT_JSON, str(error)
    return _judge_decoded(line, tick)


def _judge_message(message: str) -> DeadLetterReason:
    if "missing required field" in message:
        return DeadLetterReason.MISSING_FIELD
    if "out of range" in message:
        return DeadLetterReason.NOT_FINITE
    return DeadLetterReason.WRONG_TYPE


def _judge_decoded(line: bytes, tick: TickLine) -> TickLine | tuple[DeadLetterReason, str]:
    if not _INT64_MIN <= tick.event_time_ns <= _INT64_MAX:
        return DeadLetterReason.TIME_UNIT, f"event_time_ns={tick.event_time_ns!r}"
    if tick.trade_id is not None and not _INT64_MIN <= tick.trade_id <= _INT64_MAX:
        return DeadLetterReason.WRONG_TYPE, f"trade_id={tick.trade_id!r}"
    present = sum(getattr(tick, name) is not None for name in TICK_WIRE)
    # A colon for each value and none besides: no key can be there twice.
    if line.count(b":") == present and b"\\" not in line:
        return tick
    keys = [key for key, _ in json.loads(line, object_pairs_hook=list, parse_int=str)]
    repeated = sorted({key for key in keys if key in TICK_WIRE and keys.count(key) > 1})
    if repeated:
        return DeadLetterReason.DUPLICATE_KEY, f"repeated: {', '.join(repeated)}"
    return tick
