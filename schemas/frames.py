"""The polars schema of every message, derived from its class, and frames of messages."""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from itertools import accumulate, chain
from typing import Any

import polars as pl
import pyarrow as pa
from msgspec import Struct, inspect

from schemas.checked import convert

UNSIGNED_FIELDS = frozenset({"missing_mask"})
"""Integers that use all 64 bits."""


@cache
def polars_schema(message: type[Struct]) -> pl.Schema:
    """Return the polars schema of `message`; raises TypeError for a field type without a rule."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return pl.Schema({field.encode_name: _dtype(field.type, field.name) for field in info.fields})


def _dtype(found: inspect.Type, name: str) -> pl.DataType:
    extra: dict[str, Any] = {}
    while isinstance(found, inspect.Metadata):
        extra |= found.extra or {}
        found = found.type
    if isinstance(found, inspect.UnionType):
        inner = [member for member in found.types if not isinstance(member, inspect.NoneType)]
        if len(inner) == 1:
            return _dtype(inner[0], name)
    if isinstance(found, inspect.BoolType):
        return pl.Boolean()
    if isinstance(found, inspect.IntType):
        return pl.UInt64() if name in UNSIGNED_FIELDS else pl.Int64()
    if isinstance(found, inspect.FloatType):
        return pl.Float64()
    if isinstance(found, inspect.DecimalType):
        precision, scale = extra.get("decimal", (38, 12))
        return pl.Decimal(precision, scale)
    if isinstance(found, inspect.StrType | inspect.EnumType):
        return pl.String()
    if isinstance(found, inspect.ListType):
        return pl.List(_dtype(found.item_type, name))
    if isinstance(found, inspect.StructType):
        return pl.Struct(polars_schema(found.cls))
    msg = f"field {name!r} has type {found!r}; frames know no rule for it; add one here"
    raise TypeError(msg)


def to_frame(message: type[Struct], messages: list[Any]) -> pl.DataFrame:
    """Return `messages` (all of class `message`) as a frame with its schema."""
    schema = polars_schema(message)
    if not messages:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame(
        [
            _column(name, [getattr(one, name) for one in messages], dtype)
            for name, dtype in schema.items()
        ]
    )


def _column(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Return `values` as a series; what is nested is laid flat first, not turned value by value."""
    if isinstance(dtype, pl.List):
        flat = _column("", list(chain.from_iterable(values)), dtype.inner)  # type: ignore[arg-type]
        return nest(name, flat, list(accumulate(map(len, values), initial=0)))
    if isinstance(dtype, pl.Struct):
        fields = [
            _column(field.name, [getattr(value, field.name) for value in values], field.dtype)  # type: ignore[arg-type]
            for field in dtype.fields
        ]
        return pl.DataFrame(fields).to_struct(name)
    if isinstance(dtype, pl.Decimal):
        # Through text, as the log carries it: no digit is lost.
        texts = [None if value is None else str(value) for value in values]
        return pl.Series(name, texts, pl.String()).cast(dtype)
    return pl.Series(name, values, dtype)


def nest(name: str, flat: pl.Series, bounds: Sequence[int]) -> pl.Series:
    """Return a series of lists: number `i` holds `flat` from `bounds[i]` up to `bounds[i + 1]`."""
    lists = pa.LargeListArray.from_arrays(pa.array(bounds, pa.int64()), flat.to_arrow())
    return pl.Series(name, pl.from_arrow(lists), pl.List(flat.dtype))


@cache
def text_schema(message: type[Struct]) -> pl.Schema:
    """Return the polars schema of the JSON of `message`, in which decimals are text."""
    return pl.Schema({name: _as_text(dtype) for name, dtype in polars_schema(message).items()})


def _as_text(dtype: pl.DataType) -> pl.DataType:
    """Return `dtype` with text for decimals: JSON carries them as text, so no digit is lost."""
    if isinstance(dtype, pl.Decimal):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(_as_text(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _as_text(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return dtype


def to_messages(message: type[Struct], frame: pl.DataFrame) -> list[Any]:
    """Return the rows of `frame` as messages; raises msgspec.ValidationError for a row that is none."""
    return [
        convert(row, message, strict=False, builtin_types=(Decimal,)) for row in frame.to_dicts()
    ]


def encode_rows(frame: pl.DataFrame) -> list[bytes]:
    """Return each row of `frame` as the JSON bytes of its message, in one vectorised call."""
    if frame.is_empty():
        return []
    return frame.write_ndjson().encode().splitlines()
