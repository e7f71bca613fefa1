"""JSON lines of many records, parsed in one compiled pass that hides nothing.

`infra.tick_scan` reads the plain lines, which are all that a feed sends on a good day. Every line that
it has a doubt about is decoded by itself, which finds the broken ones and keeps their neighbours. Which of the
two ways a line takes never changes what becomes of it.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from infra.tick_scan import FIELDS, FLOATS, KINDS, SIDES, Scanned, scan_lines
from schemas.checked import decoder
from schemas.ticks import LINE_BYTES_MAX, TICK_WIRE, DeadLetterReason, TickLine

BLANK: Final = b" \t\r\n"
"""What JSON counts as white space; a line of nothing else is no line."""

_NESTED_MAX: Final = 32
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_decoder = decoder(TickLine)

Integers = NDArray[np.int64]


class RefusedLine(NamedTuple):
    """A line that is no tick."""

    record: int
    """Index into the parsed values."""
    line: int
    reason: DeadLetterReason
    detail: str
    payload: bytes


class ParsedLines(NamedTuple):
    """The ticks (`TICK_WIRE`) of several records, where each stood, and the lines that are none."""

    ticks: pl.DataFrame
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
    ticks = _frame_of(buffer, scanned)
    if not len(scanned.doubtful):
        return ParsedLines(ticks, scanned.records, scanned.lines, [], scanned.counts)
    others, places, refused = _decode_doubtful(buffer, scanned.doubtful)
    records = np.concatenate([scanned.records, places[:, 0]])
    lines = np.concatenate([scanned.lines, places[:, 1]])
    order = np.lexsort((lines, records))
    ticks = pl.concat([ticks, others])[order]
    return ParsedLines(ticks, records[order], lines[order], refused, scanned.counts)


def _frame_of(buffer: bytes, scanned: Scanned) -> pl.DataFrame:
    """Return the plain lines as `TICK_WIRE`."""
    pairs = scanned.pair_spans.tolist()
    columns: dict[str, pl.Series] = {
        "kind": _texts(KINDS, scanned.kinds),
        "event_time_ns": pl.Series(scanned.times_ns),
        "venue": _texts([_text(buffer, at, size) for at, size, _, _ in pairs], scanned.pairs),
        "symbol": _texts([_text(buffer, at, size) for _, _, at, size in pairs], scanned.pairs),
        "side": _texts(SIDES, scanned.sides),
        "trade_id": pl.Series(scanned.trade_ids),
        **{name: pl.Series(row) for name, row in zip(FLOATS, scanned.floats, strict=True)},
    }
    return pl.DataFrame([_shown(scanned, name, columns[name]) for name in FIELDS])


def _shown(scanned: Scanned, name: str, values: pl.Series) -> pl.Series:
    """Return `values` of field `name`, null where a line does not have it."""
    # That a venue or a symbol is absent is told by the pair that a line belongs to.
    absent = scanned.present >> FIELDS.index(name) & 1 == 0
    if name in {"venue", "symbol"} or not absent.any():
        return values.alias(name)
    if absent.all():
        return pl.repeat(None, len(absent), dtype=TICK_WIRE[name], eager=True).alias(name)
    return values.set(pl.Series(absent), None).alias(name)


def _text(buffer: bytes, at: int, size: int) -> str | None:
    return None if size < 0 else buffer[at : at + size].decode()


def _texts(texts: Sequence[str | None], codes: NDArray[np.int8] | NDArray[np.int32]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String).gather(codes)


def _decode_doubtful(
    buffer: bytes, doubtful: Integers
) -> tuple[pl.DataFrame, Integers, list[RefusedLine]]:
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
    frame = pl.DataFrame(
        [
            pl.Series(name, [getattr(tick, name) for tick in ticks], dtype)
            for name, dtype in TICK_WIRE.items()
        ]
    )
    return frame, np.array(places, dtype=np.int64).reshape(-1, 2), refused


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
