"""Records of a topic as rows of its table: decoded in bulk, checked one by one."""

import io
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, NamedTuple, Protocol

import polars as pl
from msgspec import NODEFAULT, Struct, inspect

from schemas.batches import ProgressMarked
from schemas.checked import decoder
from schemas.codec import encode, schema_header
from schemas.ddl import LOG_FRAME, time_columns
from schemas.frames import polars_schema, text_schema
from schemas.operations import DeadLetterRecorded, build_dead_letter
from schemas.ticks import DeadLetterReason

PROGRESS_PREFIX = ProgressMarked.__name__.encode() + b";"
INGEST_HEADER, EMIT_HEADER = "ingest-ns", "emit-ns"

_MORE_THAN_12_DECIMALS = re.compile(r"\.\d{13,}|[eE]-(?:1[3-9]|[2-9]\d|\d{3,})|\.\d+[eE]-").search
_INT64_MAX = 2**63 - 1


class LogRecord(Protocol):
    """What the archive needs of a record (`infra.records.FetchedRecord` has it)."""

    @property
    def offset(self) -> int:
        """Place in its partition."""

    @property
    def value(self) -> bytes | None:
        """Bytes of the record; None for a tombstone."""

    @property
    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """Headers in order."""


class Rows(NamedTuple):
    """Rows of one table, and the records that are not among them."""

    frame: pl.DataFrame
    invalid: list[DeadLetterRecorded]
    skipped: int
    """Progress marks and tombstones: they are not facts."""


_Located = tuple[bytes, int, int, bytes | None, bytes | None, bytes | None, bytes | None]
"""Value, partition and offset of a record, and its headers of `_STAMP_HEADERS`."""

_STAMP_HEADERS = ("config", "epoch", INGEST_HEADER, EMIT_HEADER)


def rows_of(
    topic: str, message: type[Struct], batches: Iterable[tuple[int, Sequence[LogRecord]]]
) -> Rows:
    """Return the rows of `batches`, pairs of a partition and its records in log order.

    The frame has the columns of `schemas.ddl.clickhouse_columns` in their order, times as UTC
    datetimes. Every record is in the frame, in `invalid` or counted in `skipped`.
    """
    found: list[_Located] = []
    invalid: list[DeadLetterRecorded] = []
    skipped = 0
    decode, usual = decoder(message).decode, schema_header(message)
    for partition, records in batches:
        for record in records:
            headers: dict[str, bytes | None] = dict(record.headers or ())
            value, named = record.value, headers.get("schema", usual)
            if value is None or (named != usual and (named or b"").startswith(PROGRESS_PREFIX)):
                skipped += 1
                continue
            try:
                if named != usual:
                    _check_header(message, named)
                row = decode(value)
                # A raw line feed is legal between JSON tokens, but ends a row of NDJSON.
                text = encode(row) if b"\n" in value or b"\r" in value else value
                config, epoch, ingest, emit = map(headers.get, _STAMP_HEADERS)
                found.append((text, partition, record.offset, config, epoch, ingest, emit))
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors.
                invalid.append(_refused(topic, partition, record.offset, str(error), value))
    frame = _framed(topic, message, found, invalid)
    return Rows(frame, sorted(invalid, key=lambda each: (each.partition, each.offset)), skipped)


def _refused(
    topic: str, partition: int, offset: int, detail: str, value: bytes
) -> DeadLetterRecorded:
    reason = DeadLetterReason.UNDECODABLE
    return build_dead_letter(topic, partition, offset, -1, reason, detail, value)


def _check_header(message: type[Struct], named: bytes | None) -> None:
    if named is not None and named.split(b";", 1)[0] != message.__name__.encode():
        msg = f"header 'schema' must name {message.__name__!r}; found {named[:80]!r}"
        raise ValueError(msg)


def _number(text: bytes | None) -> int | None:
    if text is None or len(text) > 19 or not text.isdigit():
        return None
    number = int(text)
    return number if number <= _INT64_MAX else None


def _framed(
    topic: str, message: type[Struct], found: list[_Located], invalid: list[DeadLetterRecorded]
) -> pl.DataFrame:
    """Return the rows of `found`; what fits no column is found by halving and put into `invalid`."""
    try:
        return _framed_fast(message, found)
    except (pl.exceptions.PolarsError, ValueError, OverflowError) as error:
        if len(found) == 1:
            value, partition, offset, *_ = found[0]
            detail = (str(error).splitlines() or ["value fits no column"])[0]
            invalid.append(_refused(topic, partition, offset, detail, value))
            return _framed_fast(message, [])
    middle = len(found) // 2
    halves = (found[:middle], found[middle:])
    return pl.concat([_framed(topic, message, half, invalid) for half in halves])


def _framed_fast(message: type[Struct], found: list[_Located]) -> pl.DataFrame:
    wanted = polars_schema(message)
    read = text_schema(message)
    if found:
        body = io.BytesIO(b"\n".join([each[0] for each in found]))
        frame = pl.read_ndjson(body, schema=read)
    else:
        frame = pl.DataFrame(schema=read)
    if frame.height != len(found):
        msg = f"records must be one row each; found {frame.height} rows in {len(found)} records"
        raise ValueError(msg)
    for name, dtype in wanted.items():
        if isinstance(dtype, pl.Decimal):
            _check_decimals(frame[name])
    own = frame.with_columns(
        *(pl.col(name).fill_null(value) for name, value in _defaults(message).items()),
        *_nested_defaults(message),
    ).cast(wanted)
    timed = own.cast(dict.fromkeys(time_columns(message), pl.Datetime("ns", "UTC")))
    return pl.concat([timed, _log_columns(found)], how="horizontal")


@cache
def _defaults(message: type[Struct]) -> dict[str, Any]:
    """Return the defaults of fields that an older writer leaves out."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return {
        field.encode_name: field.default
        for field in info.fields
        if field.default is not NODEFAULT and field.default is not None
    }


@cache
def _nested_defaults(message: type[Struct]) -> list[pl.Expr]:
    """Return one expression per list of messages inside `message` whose own fields have defaults."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    filled = []
    for field in info.fields:
        kind = field.type
        if isinstance(kind, inspect.ListType) and isinstance(kind.item_type, inspect.StructType):
            defaults = _defaults(kind.item_type.cls)
            fields = [pl.field(name).fill_null(value) for name, value in defaults.items()]
            if fields:
                inner = pl.element().struct.with_fields(*fields)
                filled.append(pl.col(field.encode_name).list.eval(inner))
    return filled


def _check_decimals(texts: pl.Series) -> None:
    # A cast rounds to 12 decimals without a word; a table must not differ from its topic.
    for text in texts.drop_nulls().unique().to_list():
        if _MORE_THAN_12_DECIMALS(text) and Decimal(text) != round(Decimal(text), 12):
            msg = f"{texts.name} must have at most 12 decimals; found {text!r}"
            raise ValueError(msg)


def _log_columns(found: list[_Located]) -> pl.DataFrame:
    columns = list(zip(*found, strict=True)) if found else [()] * 7
    _, partitions, offsets, configs, epochs, ingests, emits = columns
    return pl.DataFrame(
        {
            "_topic_partition": partitions,
            "_offset": offsets,
            "_version": offsets,
            "_config": [_text(each) for each in configs],
            "_epoch": [_epoch(each) for each in epochs],
            "_ingest_ns": pl.Series([_number(each) for each in ingests], dtype=pl.Int64),
            "_emit_ns": pl.Series([_number(each) for each in emits], dtype=pl.Int64),
        },
        schema_overrides={"_config": pl.String},
    ).cast(LOG_FRAME)


@lru_cache(maxsize=256)
def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


@lru_cache(maxsize=256)
def _epoch(value: bytes | None) -> int:
    return _number(value) or 0
