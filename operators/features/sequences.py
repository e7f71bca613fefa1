"""Windows of the last bars of many series: what sequence models read, bar by bar."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.bar_columns import BarColumns
from operators.features.kernel import FloatArray
from schemas.features import FeatureSchema, SequenceSchema

IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_SERIES = ("venue", "symbol")


class SequenceBatch:
    """The rows of one step, each with the window of its series that ends with it."""

    def __init__(self, rows: Float32Array, ends: IntArray, steps: int) -> None:
        """Take `rows` (buffer, channels), series after series, and each row's place in it."""
        self._rows = rows
        self._firsts = ends - (steps - 1)
        self._steps = steps

    def __len__(self) -> int:
        return len(self._firsts)

    @property
    def complete(self) -> BoolArray:
        """Return for each row whether every number of its window is finite."""
        bad = np.zeros(len(self._rows) + 1, dtype=np.int64)
        np.cumsum(~np.isfinite(self._rows).all(axis=1), out=bad[1:])
        whole: BoolArray = bad[self._firsts + self._steps] == bad[self._firsts]
        return whole

    def take(self, rows: IntArray | BoolArray) -> Float32Array:
        """Return (chosen, steps, channels) float32 windows, the oldest bar first.

        `rows` are row numbers of the frame in any order, or a mask over its rows. NaN where the
        series has no bar yet or a channel has no value. Raises `IndexError` for a row that is not
        in the frame.
        """
        windows = np.lib.stride_tricks.sliding_window_view(self._rows, self._steps, axis=0)
        chosen: Float32Array = windows[self._firsts[rows]].transpose(0, 2, 1)
        return np.ascontiguousarray(chosen)


class SequenceWindows:
    """The last bars of every series (venue, symbol) of one timeframe, and the step that moves them.

    A window depends on the bars of its own series in their order and on nothing else: not on the
    cut into batches, not on other series, not on a pickle round trip in between. A gap in time is
    not filled, as in `FeatureMachine`. The state is `steps - 1` rows of float32 per series.
    """

    def __init__(self, schema: SequenceSchema) -> None:
        self.schema = schema
        self._series: dict[tuple[str, str], int] = {}
        self._tails = _missing(0, schema)

    @property
    def series(self) -> tuple[tuple[str, str], ...]:
        """Every series seen, in order of appearance."""
        return tuple(self._series)

    def advance(self, frame: pl.DataFrame | BarColumns, inputs: FloatArray) -> SequenceBatch:
        """Take closed bars and return their windows, row for row.

        `frame` has `venue` and `symbol`, the bars of one series in time order; `inputs` is the
        (rows, channels) scale-free view of the same bars, NaN where missing. Raises `ValueError`
        if the shapes disagree; nothing has moved then.
        """
        if inputs.shape != (frame.height, len(self.schema.features)):
            msg = (
                f"inputs of windows {self.schema.name!r} must have the shape "
                f"{(frame.height, len(self.schema.features))!r}; found {inputs.shape!r}; pass the "
                f"channels {', '.join(self.schema.names)} of the bars of the frame"
            )
            raise ValueError(msg)
        series = self._number_series(BarColumns.of(frame))
        # Series after series, each behind its tail: then every window is one slice of the buffer.
        order = np.argsort(series, kind="stable")
        present, counts = np.unique(series, return_counts=True)
        history = self.schema.steps - 1
        place = np.arange(len(series)) + np.repeat(np.arange(1, len(present) + 1) * history, counts)
        rows = np.empty((len(series) + history * len(present), inputs.shape[1]), dtype=np.float32)
        behind = np.cumsum(counts) + np.arange(1, len(present) + 1) * history
        tail = np.arange(-history, 0)
        rows[(behind - counts)[:, None] + tail] = self._tails[present]
        rows[place] = inputs[order]
        self._tails[present] = rows[behind[:, None] + tail]
        ends = np.empty(len(series), dtype=np.int64)
        ends[order] = place
        return SequenceBatch(rows, ends, self.schema.steps)

    def _number_series(self, bars: BarColumns) -> IntArray:
        """Return each row's number of its series; a series is numbered when it first appears."""
        known = self._series
        keys = zip(*(bars.texts(name) for name in _SERIES), strict=True)
        codes = [known.setdefault(key, len(known)) for key in keys]
        self._make_room(len(known))
        return np.array(codes, dtype=np.int64)

    def _make_room(self, count: int) -> None:
        if count > len(self._tails):
            added = max(count, 2 * len(self._tails)) - len(self._tails)
            self._tails = np.concatenate([self._tails, _missing(added, self.schema)])

    def __getstate__(self) -> dict[str, Any]:
        """Return the series in use."""
        used = self._tails[: len(self._series)]
        return {"schema": self.schema, "series": self._series, "tails": used}

    def __setstate__(self, snapshot: dict[str, Any]) -> None:
        self.schema, self._series = snapshot["schema"], snapshot["series"]
        self._tails = snapshot["tails"].copy()


def select_channels(
    inputs: FloatArray, schema: FeatureSchema, sequence: SequenceSchema
) -> FloatArray:
    """Return the (rows, channels) columns of `sequence` of the scale-free view of `schema`.

    Raises `ValueError` if the schema lacks a channel.
    """
    absent = [name for name in sequence.names if name not in schema.names]
    if absent:
        msg = (
            f"channels of windows {sequence.name!r} must be features of {schema.name!r}; found "
            f"{absent!r}; name others"
        )
        raise ValueError(msg)
    return inputs[:, [schema.names.index(name) for name in sequence.names]]


def _missing(count: int, schema: SequenceSchema) -> Float32Array:
    shape = (count, schema.steps - 1, len(schema.features))
    return np.full(shape, np.nan, dtype=np.float32)
