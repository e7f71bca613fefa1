"""Chunks of recorded ticks as records of `market.ticks`, with heartbeats."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl

from infra.partitions import partition_of
from infra.recordings import RecordingDescription
from schemas.ticks import CONTENT_ARROW, CONTENT_NDJSON, PROVENANCE_CODES, TICK_WIRE, TickLine

Encoding = Literal["ndjson", "arrow"]
Headers = list[tuple[str, bytes]]

ENCODED_BYTES_MAX = 1024 * 1024
"""A record is cut in halves until its value is no larger."""

_heartbeat_encoder = msgspec.json.Encoder()


class EncodedRecord(NamedTuple):
    """One record to produce to `market.ticks`."""

    partition: int
    key: bytes | None
    """`venue:symbol` of the record's first tick; None for a heartbeat."""
    value: bytes
    headers: Headers


def tick_headers(content_type: str, provenance: str) -> Headers:
    """Return the headers that tell a decoder how to read a record and what to think of it."""
    return [("content-type", content_type.encode()), ("provenance", provenance.encode())]


def encode_records(
    chunk: pl.DataFrame, partitions: int, encoding: Encoding, batch: int
) -> list[EncodedRecord]:
    """Return the ticks of `chunk` (`RECORDED_TICKS`) as records of at most `batch` ticks and 1 MiB.

    The ticks of a partition keep their order; a record has one partition and one provenance.
    """
    if batch < 1:
        msg = f"batch of a record must be at least 1 tick; found {batch!r}; pass --batch 1 or more"
        raise ValueError(msg)
    encode = _encode_ndjson if encoding == "ndjson" else _encode_arrow
    content_type = CONTENT_NDJSON if encoding == "ndjson" else CONTENT_ARROW
    records: list[EncodedRecord] = []
    for partition, ticks in _by_partition(chunk, partitions):
        for run in _by_provenance(ticks):
            headers = tick_headers(content_type, PROVENANCE_CODES[run["provenance"][0]])
            wire = run.select(TICK_WIRE.names())
            keys = (wire["venue"] + ":" + wire["symbol"]).gather_every(batch).to_list()
            for key, values in zip(keys, encode(wire, batch), strict=True):
                records += [EncodedRecord(partition, key.encode(), v, headers) for v in values]
    return records


def _by_partition(chunk: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
    names = chunk.select("venue", "symbol").unique(maintain_order=True)
    found = [partition_of(venue, symbol, partitions) for venue, symbol in names.iter_rows()]
    known = names.with_columns(partition=pl.Series(found, dtype=pl.Int32()))
    placed = chunk.join(known, on=["venue", "symbol"], how="left", maintain_order="left")
    for partition in sorted(set(found)):
        yield partition, placed.filter(pl.col("partition") == partition)


def _by_provenance(ticks: pl.DataFrame) -> Iterator[pl.DataFrame]:
    codes = ticks["provenance"].to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), ticks.height]
    for first, last in pairwise(edges):
        yield ticks[first:last]


def _encode_ndjson(wire: pl.DataFrame, batch: int) -> Iterator[list[bytes]]:
    lines = np.empty(wire.height, dtype=object)
    kinds = wire["kind"]
    for kind in kinds.unique().to_list():
        chosen = np.flatnonzero((kinds == kind).to_numpy())
        lines[chosen] = _lines(wire if len(chosen) == wire.height else wire[chosen])
    for first in range(0, wire.height, batch):
        yield _within_limit(lines[first : first + batch].tolist())


def _lines(ticks: pl.DataFrame) -> list[bytes]:
    """Return one JSON object a tick, without the fields that are null."""
    present = [name for name in ticks.columns if ticks[name].null_count() < ticks.height]
    text = ticks.select(present).write_ndjson().encode()
    for name in present:
        if ticks[name].null_count():
            text = text.replace(f',"{name}":null'.encode(), b"")
    return text.splitlines()


def _within_limit(lines: list[bytes]) -> list[bytes]:
    value = b"\n".join(lines)
    if len(value) <= ENCODED_BYTES_MAX or len(lines) == 1:
        return [value]
    middle = len(lines) // 2
    return _within_limit(lines[:middle]) + _within_limit(lines[middle:])


def _encode_arrow(wire: pl.DataFrame, batch: int) -> Iterator[list[bytes]]:
    for ticks in wire.iter_slices(batch):
        yield _stream(ticks)


def _stream(ticks: pl.DataFrame) -> list[bytes]:
    out = BytesIO()
    ticks.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    if out.tell() <= ENCODED_BYTES_MAX or ticks.height == 1:
        return [out.getvalue()]
    middle = ticks.height // 2
    return _stream(ticks[:middle]) + _stream(ticks[middle:])


def encode_heartbeat(event_time_ns: int) -> bytes:
    """Return the value of a heartbeat record: no later tick of the sender has an earlier time."""
    line = TickLine(kind="heartbeat", event_time_ns=event_time_ns)
    return _heartbeat_encoder.encode({"kind": line.kind, "event_time_ns": line.event_time_ns})


def encode_heartbeats(event_time_ns: int, partitions: int, provenance: str) -> list[EncodedRecord]:
    """Return one heartbeat record for every partition."""
    value = encode_heartbeat(event_time_ns)
    headers = tick_headers(CONTENT_NDJSON, provenance)
    return [EncodedRecord(partition, None, value, headers) for partition in range(partitions)]


def heartbeats(chunk: pl.DataFrame, period_ns: int) -> list[tuple[int, int]]:
    """Return where heartbeats belong in `chunk`: (ticks published before it, its event time).

    There is one for every multiple of `period_ns` that the chunk's ticks pass (once for a pause that
    spans several), and one with the time of the last tick, so quiet partitions follow as well.
    """
    if chunk.is_empty():
        return []
    times = chunk["event_time_ns"].to_numpy()
    crossings = np.flatnonzero(np.diff(times // period_ns)) + 1
    due = [(int(row), int(times[row] // period_ns * period_ns)) for row in crossings]
    return [*due, (chunk.height, int(times[-1]))]


def final_heartbeat_ns(recordings: Sequence[RecordingDescription], lateness_ns: int) -> int:
    """Return the event time that closes the last bars of `recordings`.

    It lies one nanosecond past the allowance for late ticks behind the last tick or the close of the
    last recorded bar: later would claim to know a time that was not recorded.
    """
    return max(recording.end_ns for recording in recordings) + lateness_ns + 1
