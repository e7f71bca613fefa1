"""Arrow IPC streams of ticks: checked, brought to one schema, joined."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from infra.tick_columns import Integers, ParsedTicks
from infra.tick_scan import FIELDS, FLOATS, scan_texts
from schemas.ticks import RECORD_BYTES_MAX, TICK_WIRE, DeadLetterReason

_END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_ROWS_MAX: Final = RECORD_BYTES_MAX // 8
"""Every tick has a time of 8 bytes; more rows than fit a record were compressed to be a burden."""

_CANONICAL: Final = pa.schema(
    [
        (name, {pl.String(): pa.large_string(), pl.Int64(): pa.int64()}.get(dtype, pa.float64()))
        for name, dtype in TICK_WIRE.items()
    ]
)
_REQUIRED: Final = frozenset({"kind", "event_time_ns"})
_TEXTS: Final = ("kind", "venue", "symbol", "side")
"""In the order of `scan_texts`."""


class RefusedStream(NamedTuple):
    """A record that is no stream of ticks."""

    record: int
    """Index into the parsed values."""
    reason: DeadLetterReason
    detail: str


class ParsedStreams(NamedTuple):
    """The ticks of several records, where each stood, and the records that hold none."""

    ticks: ParsedTicks
    records: Integers
    lines: Integers
    refused: list[RefusedStream]


def parse_streams(values: Sequence[bytes]) -> ParsedStreams:
    """Return the ticks in `values`, each the Arrow IPC stream of one record."""
    tables: list[pa.Table] = []
    owners: list[int] = []
    refused: list[RefusedStream] = []
    for record, value in enumerate(values):
        found = _read_stream(value)
        if isinstance(found, pa.Table):
            tables.append(found)
            owners.append(record)
        else:
            refused.append(RefusedStream(record, *found))
    counts = np.array([table.num_rows for table in tables], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    ticks = read_table(pa.concat_tables(tables) if tables else _CANONICAL.empty_table())
    return ParsedStreams(
        ticks,
        np.repeat(np.array(owners, dtype=np.int64), counts),
        np.arange(len(ticks.kinds)) - np.repeat(starts, counts),
        refused,
    )


def read_rows(value: bytes, lines: Sequence[int]) -> list[dict[str, object]]:
    """Return the fields that are not null of some ticks of a record that `parse_streams` read."""
    table = _read_stream(value)
    assert isinstance(table, pa.Table), table
    rows = table.take(pa.array(lines, pa.int64())).to_pylist()
    return [{name: found for name, found in row.items() if found is not None} for row in rows]


def read_table(table: pa.Table) -> ParsedTicks:
    """Return the ticks of a table whose columns have the names and types of `TICK_WIRE`."""
    size = table.num_rows
    columns = {name: table.column(name) for name in FIELDS}
    # Most feeds leave half of the columns empty: those are not looked at again.
    said = {
        name: column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        for name, column in columns.items()
        if column.null_count < size
    }
    present = np.zeros(size, dtype=np.int16)
    for name, array in said.items():
        found = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True
        present |= np.int16(1 << FIELDS.index(name)) * found
    text, places = _join_texts([said.get(name) for name in _TEXTS], size)
    kinds, sides, pairs, names = scan_texts(text, places, present)

    def filled(name: str, absent: float, dtype: type[np.generic]) -> NDArray[Any]:
        array = said.get(name)
        if array is None:
            return np.full(size, absent, dtype=dtype)
        values: NDArray[Any] = (array.fill_null(absent) if array.null_count else array).to_numpy()
        return values

    return ParsedTicks(
        present,
        kinds,
        sides,
        filled("event_time_ns", 0, np.int64),
        filled("trade_id", -1, np.int64),
        [filled(name, 1.0, np.float64) for name in FLOATS],
        pairs,
        names,
    )


def _join_texts(columns: list[pa.Array | None], size: int) -> tuple[NDArray[np.uint8], Integers]:
    """Return the UTF-8 of `columns`, and where the texts of each begin and the last one ends."""
    parts, length = [np.empty(0, dtype=np.uint8)], 0
    places = np.zeros((len(columns), size + 1), dtype=np.int64)
    for column, row in zip(columns, places, strict=True):
        if column is not None:
            _, ends, text = column.buffers()
            # A buffer may be longer than its values, by bytes that make no whole one.
            ends = np.frombuffer(ends, np.int64, column.offset + size + 1)[column.offset :]
            parts.append(np.frombuffer(text or b"", np.uint8)[ends[0] : ends[-1]])
            row[:] = ends + (length - ends[0])
            length += parts[-1].size
    return np.concatenate(parts), places


def _read_stream(value: bytes) -> pa.Table | tuple[DeadLetterReason, str]:
    broken = DeadLetterReason.BROKEN_ARROW
    if not value.endswith(_END_OF_STREAM):
        return broken, "the stream has no end marker"
    source = pa.BufferReader(value)
    try:
        table = pa.ipc.open_stream(source).read_all()
        if source.tell() != len(value):
            return broken, f"the stream ends at byte {source.tell()} of {len(value)}"
        if table.num_rows > _ROWS_MAX:
            return DeadLetterReason.RECORD_TOO_LARGE, f"rows={table.num_rows} limit={_ROWS_MAX}"
        if table.num_rows == 0:
            return DeadLetterReason.EMPTY_RECORD, "the stream holds no row"
        table.validate(full=True)
        return table if table.schema.equals(_CANONICAL) else _to_canonical(table)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        return broken, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _to_canonical(table: pa.Table) -> pa.Table | tuple[DeadLetterReason, str]:
    names = table.schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    absent = sorted(_REQUIRED.difference(names))
    wrong = sorted(
        f"{name}: {table.schema.field(name).type}"
        for name in names
        if name in TICK_WIRE
        and name not in twice
        and not _readable(table.schema.field(name).type, _CANONICAL.field(name).type)
    )
    if twice or absent or wrong:
        return (
            DeadLetterReason.BROKEN_ARROW,
            f"columns twice={twice} absent={absent} of another type={wrong}",
        )
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in names
        else pa.nulls(table.num_rows, field.type)
        for field in _CANONICAL
    ]
    return pa.table(columns, schema=_CANONICAL)


def _readable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a cast from `found` to `wanted` keeps every value."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found) or found.equals(wanted):
        return True
    if wanted.equals(pa.large_string()):
        return bool(pa.types.is_string(found) or pa.types.is_string_view(found))
    return bool(pa.types.is_integer(found))
