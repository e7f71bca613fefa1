"""A fetch of `market.ticks` as one columnar batch; what is no tick becomes a dead letter.

Every line of every record ends up exactly once: as a row of `TickBatch.ticks` or in a dead letter
(line -1 stands for all lines of a record that could not be taken apart). The result does not depend
on how the log was cut into fetches.
"""

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final, NamedTuple, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from infra.records import FetchedRecord, FetchedRecords
from infra.tick_columns import Integers, ParsedTicks, join_ticks
from infra.tick_lines import parse_lines, read_line, split_lines
from infra.tick_rows import Placed, TickRules, describe
from infra.tick_streams import parse_streams, read_rows
from schemas.batches import TickBatch
from schemas.fields import Provenance
from schemas.instruments import InstrumentBook
from schemas.operations import DeadLetterRecorded, build_dead_letter
from schemas.ticks import (
    CONTENT_ARROW,
    CONTENT_NDJSON,
    FUTURE_ALLOWANCE_NS,
    PROVENANCE_CODES,
    RECORD_BYTES_MAX,
    TICK_FRAME,
    DeadLetterReason,
)

SOURCE_TOPIC: Final = "market.ticks"
WHOLE_RECORD: Final = -1
_HEADERS_REMEMBERED_MAX: Final = 1024

Headers = tuple[tuple[str, bytes | None], ...]
Understood = tuple[str, int] | tuple[DeadLetterReason, str]
"""Content type and provenance code, or why the headers are not understood."""


class Parsed(NamedTuple):
    """Ticks of several records of a fetch, in log order."""

    ticks: ParsedTicks
    owners: Integers
    """Index of the record that each tick is from."""
    lines: Integers


class TickDecoder:
    """Decodes the records of one partition.

    `refresh` reads new instruments into `book` and returns whether there were any; it is called once
    for a fetch that names an instrument which is not listed.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        book: InstrumentBook,
        refresh: Callable[[], bool],
    ) -> None:
        self._partition = partition
        self._rules = TickRules(partition, partitions, book)
        self._refresh = refresh
        self._understood: dict[Headers, Understood] = {}

    def decode(self, records: Sequence[FetchedRecord], ingest_time_ns: int) -> TickBatch:
        """Return the ticks and dead letters of `records`, which follow each other in the log."""
        assert len(records), "a fetch holds at least one record"
        records = FetchedRecords.of(records)
        letters: list[DeadLetterRecorded] = []
        lines, streams, codes = self._sort_out(records, letters)
        ticks = self._judge(
            records,
            codes,
            self._parse_lines(records, lines, letters),
            self._parse_streams(records, streams, letters),
            letters,
        )
        letters.sort(key=lambda letter: (letter.offset, letter.line))
        return TickBatch(
            partition=self._partition,
            ticks=ticks,
            dead_letters=letters,
            next_offset=int(records.offsets[-1]) + 1,
            ingest_time_ns=ingest_time_ns,
        )

    def _sort_out(
        self, records: FetchedRecords, letters: list[DeadLetterRecorded]
    ) -> tuple[Sequence[int], Sequence[int], NDArray[np.int8]]:
        """Return the indices of NDJSON and of Arrow records, and every record's provenance code."""
        alike = self._sort_alike(records)
        if alike is not None:
            return alike
        lines: list[int] = []
        streams: list[int] = []
        codes = [0] * len(records)
        before: list[tuple[str, bytes | None]] | None = None
        content: DeadLetterReason | str = ""
        found: int | str = 0
        for index, (_, _, _, value, headers) in enumerate(records):
            if headers is None or headers != before:
                content, found = self._read_headers(headers)
                before = headers
            refused = _refuse_value(value, content, found)
            if refused is not None:
                record = records[index]
                letters.append(self._bury(record, WHOLE_RECORD, *refused, record.value))
                continue
            (lines if content == CONTENT_NDJSON else streams).append(index)
            codes[index] = int(found)
        return lines, streams, np.array(codes, dtype=np.int8)

    def _sort_alike(
        self, records: FetchedRecords
    ) -> tuple[Sequence[int], Sequence[int], NDArray[np.int8]] | None:
        """Return the same for NDJSON records with the same headers and nothing to refuse, else None.

        A feed of one tick a record is nothing else, and has no time for a look at each of them.
        """
        headers, values = records.headers, records.values
        content, found = self._read_headers(headers[0])
        if content != CONTENT_NDJSON or headers.count(headers[0]) < len(headers):
            return None
        # Nothing is as false as empty bytes.
        if not all(values) or max(map(len, cast("list[bytes]", values))) > RECORD_BYTES_MAX:
            return None
        codes = np.full(len(records), int(found), dtype=np.int8)
        return range(len(records)), [], codes

    def _read_headers(self, headers: list[tuple[str, bytes | None]] | None) -> Understood:
        known = tuple(headers or ())
        understood = self._understood.get(known)
        if understood is None:
            if len(self._understood) >= _HEADERS_REMEMBERED_MAX:
                self._understood.clear()
            understood = self._understood[known] = _understand(known)
        return understood

    def _parse_lines(
        self, records: FetchedRecords, chosen: Sequence[int], letters: list[DeadLetterRecorded]
    ) -> Parsed | None:
        if not chosen:
            return None
        whole = len(chosen) == len(records)
        values = records.values if whole else [records.values[index] for index in chosen]
        parsed = parse_lines(cast("list[bytes]", values))
        for refused in parsed.refused:
            record = records[chosen[refused.record]]
            letters.append(
                self._bury(record, refused.line, refused.reason, refused.detail, refused.payload)
            )
        for empty in np.flatnonzero(parsed.counts == 0).tolist():
            record, reason = records[chosen[empty]], DeadLetterReason.EMPTY_RECORD
            letters.append(
                self._bury(record, WHOLE_RECORD, reason, "the record has no line", record.value)
            )
        owners = parsed.records if whole else np.array(chosen, dtype=np.int64)[parsed.records]
        return Parsed(parsed.ticks, owners, parsed.lines)

    def _parse_streams(
        self, records: FetchedRecords, chosen: Sequence[int], letters: list[DeadLetterRecorded]
    ) -> Parsed | None:
        if not chosen:
            return None
        parsed = parse_streams([records.values[index] or b"" for index in chosen])
        for refused in parsed.refused:
            record = records[chosen[refused.record]]
            letters.append(
                self._bury(record, WHOLE_RECORD, refused.reason, refused.detail, record.value)
            )
        owners = np.array(chosen, dtype=np.int64)[parsed.records]
        return Parsed(parsed.ticks, owners, parsed.lines)

    def _judge(
        self,
        records: FetchedRecords,
        codes: NDArray[np.int8],
        lines: Parsed | None,
        streams: Parsed | None,
        letters: list[DeadLetterRecorded],
    ) -> pl.DataFrame:
        parsed = _join(lines, streams)
        if parsed is None or not len(parsed.owners):
            return pl.DataFrame(schema=TICK_FRAME)
        owners = parsed.owners
        latest_ns = records.timestamps_ms * 1_000_000 + FUTURE_ALLOWANCE_NS
        placed = Placed(
            records.offsets[owners], parsed.lines.astype(np.int32), codes[owners], latest_ns[owners]
        )
        accepted, refused = self._rules.judge(parsed.ticks, placed)
        unlisted = any(row.reason is DeadLetterReason.UNKNOWN_INSTRUMENT for row in refused)
        if unlisted and self._refresh():
            accepted, refused = self._rules.judge(parsed.ticks, placed)
        for owner, rows in groupby(refused, key=lambda refusal: int(owners[refusal.row])):
            of_record = list(rows)
            numbers = parsed.lines[[refusal.row for refusal in of_record]].tolist()
            again = self._read_again(records[owner], numbers)
            for refusal, number, (tick, payload) in zip(of_record, numbers, again, strict=True):
                detail = describe(refusal.reason, tick, int(latest_ns[owner]))
                letters.append(self._bury(records[owner], number, refusal.reason, detail, payload))
        return accepted

    def _read_again(
        self, record: FetchedRecord, numbers: list[int]
    ) -> list[tuple[dict[str, object], bytes]]:
        """Return the fields of some ticks of a record, and each as the bytes of a dead letter."""
        value = record.value or b""
        if self._read_headers(record.headers)[0] == CONTENT_ARROW:
            return [(tick, json.dumps(tick).encode()) for tick in read_rows(value, numbers)]
        lines = split_lines(value)
        return [(read_line(lines[number]), lines[number]) for number in numbers]

    def _bury(
        self,
        record: FetchedRecord,
        line: int,
        reason: DeadLetterReason,
        detail: str,
        payload: bytes | None,
    ) -> DeadLetterRecorded:
        return build_dead_letter(
            SOURCE_TOPIC, self._partition, record.offset, line, reason.value, detail, payload or b""
        )


def _join(one: Parsed | None, other: Parsed | None) -> Parsed | None:
    """Return the ticks of both in log order; no record has ticks in both."""
    if one is None or other is None:
        return one or other
    owners = np.concatenate([one.owners, other.owners])
    lines = np.concatenate([one.lines, other.lines])
    order = np.argsort(owners, kind="stable")
    return Parsed(join_ticks(one.ticks, other.ticks, order), owners[order], lines[order])


def _refuse_value(
    value: bytes | None, content: DeadLetterReason | str, found: int | str
) -> tuple[DeadLetterReason, str] | None:
    if not value:
        return DeadLetterReason.EMPTY_RECORD, "the record has no value"
    if len(value) > RECORD_BYTES_MAX:
        return DeadLetterReason.RECORD_TOO_LARGE, f"bytes={len(value)} limit={RECORD_BYTES_MAX}"
    if isinstance(content, DeadLetterReason):
        return content, str(found)
    return None


def _understand(headers: Headers) -> Understood:
    found = {name: value for name, value in reversed(headers) if value is not None}
    content = found.get("content-type", b"").split(b";")[0].strip().lower().decode(errors="replace")
    provenance = found.get("provenance", b"").decode(errors="replace")
    if content not in {CONTENT_NDJSON, CONTENT_ARROW}:
        return DeadLetterReason.UNKNOWN_CONTENT_TYPE, f"content-type={content!r}"
    if provenance not in PROVENANCE_CODES:
        return DeadLetterReason.UNKNOWN_PROVENANCE, f"provenance={provenance!r}"
    if provenance == Provenance.SYNTHETIC:
        # Nothing synthetic reaches a bar, a stop or a mark: it could move money without a signal.
        return DeadLetterReason.SYNTHETIC, f"provenance={provenance!r}"
    return content, PROVENANCE_CODES.index(provenance)
