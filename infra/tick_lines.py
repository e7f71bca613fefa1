"""JSON lines of many records, parsed in one vectorised call that hides nothing.

`polars.read_ndjson` is strict about numbers, but it keeps the first of duplicate keys, turns `5` into
`"5"` where text is expected, and fails as a whole. So its answer counts only if the characters of the
buffer add up: one `{`, `}` and line a row, one colon for each value that came out, two quotes for each
key and each text. Any other buffer is halved until the part that does not add up is small, and that
part is decoded line by line, which finds the broken lines and keeps their neighbours. Which of the
two ways a line takes never changes what becomes of it.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.ticks import LINE_BYTES_MAX, TICK_WIRE, DeadLetterReason, TickLine

BLANK: Final = b" \t\r\n"
"""What JSON counts as white space; a line of nothing else is no line."""

_BY_LINE_BYTES: Final = 16 * 1024
"""Below this size decoding line by line is as fast as one vectorised call."""

_NESTED_MAX: Final = 32
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_TEXTS: Final = tuple(name for name, dtype in TICK_WIRE.items() if dtype == pl.String)
_decoder = msgspec.json.Decoder(TickLine)

Integers = NDArray[np.int64]


class RefusedLine(NamedTuple):
    """A line that is no tick."""

    record: int
    """Index into the parsed values."""
    line: int
    reason: DeadLetterReason
    detail: str


class ParsedLines(NamedTuple):
    """The ticks (`TICK_WIRE`) of several records, where each stood, and the lines that are none."""

    ticks: pl.DataFrame
    records: Integers
    lines: Integers
    refused: list[RefusedLine]


def split_lines(value: bytes) -> list[bytes]:
    """Return the lines of a record's value that are not blank, each with its exact bytes."""
    return [line for line in value.split(b"\n") if line.strip(BLANK)]


def parse_lines(values: Sequence[bytes]) -> ParsedLines:
    """Return the ticks in `values`, each the NDJSON of one record with at least one line."""
    stripped = [value.strip(BLANK) for value in values]
    ends = np.cumsum(list(map(len, stripped)))
    parts: list[ParsedLines] = []
    pending = [(0, len(stripped))]
    while pending:
        first, last = pending.pop()
        size = int(ends[last - 1] - (ends[first - 1] if first else 0))
        small = size <= _BY_LINE_BYTES
        parsed = None if small else _parse_together(stripped[first:last], first)
        if parsed is not None:
            parts.append(parsed)
        elif small or last - first == 1:
            parts.append(_parse_by_line(values[first:last], first))
        else:
            middle = (first + last) // 2
            pending += [(middle, last), (first, middle)]
    if len(parts) == 1:
        return parts[0]
    return ParsedLines(
        pl.concat([part.ticks for part in parts]),
        np.concatenate([part.records for part in parts]),
        np.concatenate([part.lines for part in parts]),
        [line for part in parts for line in part.refused],
    )


def _parse_together(values: Sequence[bytes], first: int) -> ParsedLines | None:
    """Return the ticks of `values`, or None unless all of them are beyond doubt."""
    buffer = b"\n".join(values)
    rows = _count_plain_lines(buffer)
    if rows is None:
        return None
    try:
        ticks = pl.read_ndjson(buffer, schema=TICK_WIRE)
    except pl.exceptions.PolarsError:
        return None
    if ticks.height != rows or not _adds_up(buffer, ticks):
        return None
    places = np.arange(first, first + len(values))
    if rows == len(values):  # Every value has a line, so each has exactly one.
        return ParsedLines(ticks, places, np.zeros(rows, dtype=np.int64), [])
    counts = np.array([value.count(b"\n") + 1 for value in values], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    records = np.repeat(places, counts)
    return ParsedLines(ticks, records, np.arange(rows) - np.repeat(starts, counts), [])


def _count_plain_lines(buffer: bytes) -> int | None:
    """Return the lines of `buffer` if each is one flat object of plain ASCII, else None."""
    if not buffer.isascii() or b"[" in buffer or b"\\" in buffer:
        return None
    characters = np.frombuffer(buffer, dtype=np.uint8)
    breaks = np.flatnonzero(characters == ord("\n"))
    rows = len(breaks) + 1
    plain = (
        np.count_nonzero(characters < ord(" ")) == len(breaks)
        and np.count_nonzero(characters == ord("{")) == rows
        and np.count_nonzero(characters == ord("}")) == rows
        and buffer.startswith(b"{")
        and buffer.endswith(b"}")
        and bool((characters[breaks - 1] == ord("}")).all())
        and bool((characters[breaks + 1] == ord("{")).all())
    )
    lengths = np.diff(breaks, prepend=-1, append=len(buffer)) - 1
    return rows if plain and int(lengths.max()) <= LINE_BYTES_MAX else None


def _adds_up(buffer: bytes, ticks: pl.DataFrame) -> bool:
    """Return whether `ticks` holds every key and value of `buffer`, each once and of its own type."""
    characters = np.frombuffer(buffer, dtype=np.uint8)
    present = {name: ticks.height - ticks[name].null_count() for name in ticks.columns}
    colons = np.count_nonzero(characters == ord(":"))
    quotes = np.count_nonzero(characters == ord('"'))
    return bool(
        colons == sum(present.values())
        and quotes == 2 * (colons + sum(present[name] for name in _TEXTS))
        and present["kind"] == present["event_time_ns"] == ticks.height
        and ticks["kind"].is_in(["trade", "quote", "heartbeat"]).all()
        and ticks["side"].is_in(["buy", "sell"]).all()
    )


def _parse_by_line(values: Sequence[bytes], first: int) -> ParsedLines:
    ticks: list[TickLine] = []
    records: list[int] = []
    lines: list[int] = []
    refused: list[RefusedLine] = []
    for record, value in enumerate(values, start=first):
        for number, line in enumerate(split_lines(value)):
            found = _decode_line(line)
            if isinstance(found, TickLine):
                ticks.append(found)
                records.append(record)
                lines.append(number)
            else:
                refused.append(RefusedLine(record, number, *found))
    frame = pl.DataFrame(
        [
            pl.Series(name, [getattr(tick, name) for tick in ticks], dtype)
            for name, dtype in TICK_WIRE.items()
        ]
    )
    return ParsedLines(
        frame, np.array(records, dtype=np.int64), np.array(lines, dtype=np.int64), refused
    )


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
