"""Closed bars column by column: what features, rules and models read without a frame in between.

A close of a few dozen bars is what a decision waits for. Arrays cost next to nothing there, while a
frame costs a fixed price for every column that goes in or comes out; so it is made when it is
written, after the decision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.frames import polars_schema
from schemas.market import BarClosed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Column = npt.NDArray[Any] | list[str]
"""Numbers as an array, texts as a list."""

SeriesKey = tuple[str, str, str]
"""Venue, symbol, timeframe."""


class BarColumns:
    """Columns of closed bars, all of one height; nobody changes an array that is in here."""

    def __init__(self, height: int, columns: Mapping[str, Column]) -> None:
        self.height = height
        self._columns = dict(columns)
        self._given: pl.DataFrame | None = None

    @classmethod
    def of(cls, bars: "pl.DataFrame | BarColumns") -> "BarColumns":
        """Return the columns of a frame, each read when it is first asked for."""
        if isinstance(bars, BarColumns):
            return bars
        made = cls(bars.height, {})
        made._given = bars
        return made

    def __contains__(self, name: str) -> bool:
        return name in self._columns or (self._given is not None and name in self._given.columns)

    def floats(self, name: str) -> FloatArray:
        """Return a column as float64, NaN where it is null; raises KeyError without it."""
        return self._read(name, _to_floats)  # type: ignore[return-value]

    def integers(self, name: str) -> IntArray:
        """Return a column as int64; raises KeyError without it, ValueError where it is null."""
        return self._read(name, _to_integers)  # type: ignore[return-value]

    def texts(self, name: str) -> list[str]:
        """Return a column of texts; raises KeyError without it."""
        return self._read(name, pl.Series.to_list)  # type: ignore[return-value]

    def column(self, name: str) -> Column:
        """Return a column as it is held; raises KeyError without it."""
        return self._read(name, _as_held)

    def keys(self) -> list[SeriesKey]:
        """Return the series of each bar."""
        columns = (self.texts(name) for name in ("venue", "symbol", "timeframe"))
        return list(zip(*columns, strict=True))

    def joined(self, added: Mapping[str, Column]) -> "BarColumns":
        """Return these columns with `added` beside them, which replace those of the same name."""
        made = BarColumns(self.height, self._columns | dict(added))
        made._given = self._given
        return made

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> "BarColumns":
        """Return the chosen bars, in that order."""
        chosen = np.asarray(rows, dtype=np.intp)
        listed = chosen.tolist()
        columns = {
            name: [column[row] for row in listed] if isinstance(column, list) else column[chosen]
            for name, column in self._columns.items()
        }
        made = BarColumns(len(listed), columns)
        made._given = None if self._given is None else self._given[listed]
        return made

    def select(self, timeframes: set[str]) -> "BarColumns":
        """Return the bars of `timeframes`; the same object if there are no others."""
        found = self.texts("timeframe")
        if set(found) <= timeframes:
            return self
        return self.take([row for row, one in enumerate(found) if one in timeframes])

    def build(self) -> pl.DataFrame:
        """Return the bars as rows of `BarClosed`; a NaN becomes a null, no bar has one."""
        if self._given is not None:
            return self._given
        # A list of typed series is taken as it is; a dictionary would be inspected value by value.
        return pl.DataFrame(
            [
                pl.Series(name, self._columns[name], dtype, nan_to_null=True)
                for name, dtype in polars_schema(BarClosed).items()
            ]
        )

    def _read(self, name: str, convert: Callable[[pl.Series], Column]) -> Column:
        column = self._columns.get(name)
        if column is None:
            if self._given is None or name not in self._given.columns:
                raise KeyError(name)
            column = self._columns[name] = convert(self._given[name])
        return column


def _to_floats(column: pl.Series) -> FloatArray:
    return column.cast(pl.Float64).to_numpy()


def _to_integers(column: pl.Series) -> IntArray:
    if column.null_count():
        msg = f"`{column.name}` of a bar must be set; found {column.null_count()} nulls"
        raise ValueError(msg)
    return column.cast(pl.Int64).to_numpy()


def _as_held(column: pl.Series) -> Column:
    return column.to_list() if column.dtype == pl.String else column.to_numpy()
