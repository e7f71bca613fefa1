"""Arrow IPC streams of ticks: checked, brought to one schema, joined."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

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

Integers = NDArray[np.int64]


class RefusedStream(NamedTuple):
    """A record that is no stream of ticks."""

    record: int
    """Index into the parsed values."""
    reason: DeadLetterReason
    detail: str


class ParsedStreams(NamedTuple):
    """The ticks (`TICK_WIRE`) of several records, where each stood, and the records that hold none."""

    ticks: pl.DataFrame
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
    if not tables:
        nothing = np.empty(0, dtype=np.int64)
        return ParsedStreams(pl.DataFrame(schema=TICK_WIRE), nothing, nothing, refused)
    ticks = pl.from_arrow(pa.concat_tables(tables))
    assert isinstance(ticks, pl.DataFrame)
    counts = np.array([table.num_rows for table in tables], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    return ParsedStreams(
        ticks,
        np.repeat(np.array(owners, dtype=np.int64), counts),
        np.arange(ticks.height) - np.repeat(starts, counts),
        refused,
    )


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
