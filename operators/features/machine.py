"""The features of many series, bar by bar: one machine for live, replay, backtest and training."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.bar_columns import BarColumns, Column, SeriesKey
from operators.features.bar_matrix import (
    BEFORE_ALL_TIME_NS,
    move_times,
    read_bars,
)
from operators.features.indicators import (
    Indicator,
    encode_indicators,
    measure_history_bars,
    select_indicators,
)
from operators.features.kernel import COLUMNS, FloatArray, History, Slot, advance
from schemas.features import FeatureKind, FeatureSchema

SLICE_BARS = 65_536
"""Bars that `batch_features` takes at a time, which bounds its memory."""

_LAYOUT = (*(slot.name for slot in Slot), *(row.name for row in History), *COLUMNS)
_KEY_COLUMNS = ("venue", "symbol", "timeframe", "open_time_ns", "close_time_ns", "close")


class FeatureMachine:
    """Recursion state of every series (venue, symbol, timeframe) and the step that moves it.

    The value of a feature depends on the bars of its own series in their order and on nothing else:
    not on the cut into batches, not on other series, not on a pickle round trip in between. A gap in
    time is not filled; the next bar simply follows. The machine pickles, and what is restored
    continues bit for bit.
    """

    def __init__(self, schema: FeatureSchema, indicators: tuple[Indicator, ...] = ()) -> None:
        self.schema = schema
        self.indicators = select_indicators(indicators)
        self._rows: dict[SeriesKey, int] = {}
        self._last_time = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.int64)
        self._state = np.zeros((0, len(Slot)))
        self._history = np.zeros((0, len(History), 2 * measure_history_bars(self.indicators)))
        self._prepare()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the float64 columns that `update` returns."""
        return (*COLUMNS, *(one.name for one in self.indicators))

    @property
    def series(self) -> tuple[SeriesKey, ...]:
        """Every series seen, in order of appearance."""
        return tuple(self._rows)

    def update(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Take closed bars as a frame and return their features as one, row for row.

        What `extend` does, for those who keep frames. Returns a float64 column per computed feature
        and declared indicator, NaN where missing, and `missing_mask` (UInt64): bit i is set where
        feature i of the machine's schema is missing. Raises what `extend` raises.
        """
        computed = self._compute(BarColumns.of(bars))
        # A list of typed series is taken as it is; a dictionary would be inspected value by value.
        return pl.DataFrame([pl.Series(name, column) for name, column in computed.items()])

    def extend(self, bars: BarColumns) -> BarColumns:
        """Take closed bars and return them with their features beside them.

        `bars` has `venue`, `symbol`, `timeframe`, `close_time_ns` (int64 ns), `open`, `high`,
        `low`, `close` (price), `volume` (quantity) and may have `buy_volume` (quantity) and
        `spread_bps_mean` (bps), missing where unknown; bars of one series come in time order. Adds
        a float64 column per computed feature and declared indicator, NaN where missing, and
        `missing_mask` (uint64), as `update` describes it. Raises `ValueError` for an implausible
        bar or one not later than its predecessor; nothing has moved then, and the call may be
        repeated without that bar.
        """
        return bars.joined(self._compute(bars))

    def _compute(self, bars: BarColumns) -> dict[str, Column]:
        matrix, times, keys = read_bars(bars), bars.integers("close_time_ns"), bars.keys()
        fresh = [key for key in dict.fromkeys(keys) if key not in self._rows]
        rows = self._rows
        if fresh:
            rows = rows | {key: len(rows) + k for k, key in enumerate(fresh)}
        series = np.fromiter(map(rows.__getitem__, keys), dtype=np.int64, count=len(keys))
        last_time = _extend(self._last_time, len(rows), BEFORE_ALL_TIME_NS)
        _check_order(bars, move_times(series, times, last_time))
        self._rows, self._last_time = rows, last_time
        self._make_room(len(rows))
        out = np.empty((len(self.columns), bars.height))
        missing = np.full(bars.height, self._always_missing, dtype=np.uint64)
        states = (self._seen, self._state, self._history)
        advance(matrix, series, *states, self._codes, self._bits, out, missing)
        computed: dict[str, Column] = dict(zip(self.columns, out, strict=True))
        computed["missing_mask"] = missing
        return computed

    def vector_matrix(self, frame: pl.DataFrame) -> FloatArray:
        """Return the (rows, features) matrix of the machine's schema from an `update` frame."""
        return vector_matrix(frame, self.schema)

    def _prepare(self) -> None:
        """Derive from schema and indicators what the steps need."""
        self._codes = encode_indicators(self.indicators)
        bits = {name: bit for bit, name in enumerate(self.schema.names)}
        self._bits = np.array([bits.get(name, -1) for name in COLUMNS], dtype=np.int64)
        self._always_missing = sum(1 << bit for name, bit in bits.items() if name not in COLUMNS)

    def _make_room(self, count: int) -> None:
        if count > len(self._seen):
            capacity = max(count, 2 * len(self._seen))
            self._seen = _extend(self._seen, capacity, 0)
            self._state = _extend(self._state, capacity, 0)
            self._history = _extend(self._history, capacity, np.nan)

    def __getstate__(self) -> dict[str, Any]:
        """Return what cannot be derived: series in use, and one of the ring's mirrored halves."""
        used, half = len(self._rows), self._history.shape[2] // 2
        return {
            "layout": _LAYOUT,
            "schema": self.schema,
            "indicators": self.indicators,
            "rows": self._rows,
            "last_time": self._last_time[:used],
            "seen": self._seen[:used],
            "state": self._state[:used],
            "ring": self._history[:used, :, half:],
        }

    def __setstate__(self, snapshot: dict[str, Any]) -> None:
        if snapshot["layout"] != _LAYOUT:
            msg = (
                f"snapshot of the feature machine must have the layout of this version; found "
                f"{len(snapshot['layout'])} other names; replay the bars into a new machine"
            )
            raise ValueError(msg)
        self.schema, self.indicators = snapshot["schema"], snapshot["indicators"]
        self._rows, self._last_time = snapshot["rows"], snapshot["last_time"]
        self._seen, self._state = snapshot["seen"].copy(), snapshot["state"].copy()
        self._history = np.concatenate([snapshot["ring"], snapshot["ring"]], axis=2)
        self._prepare()


def vector_matrix(bars: pl.DataFrame | BarColumns, schema: FeatureSchema) -> FloatArray:
    """Return the C-contiguous (rows, features) float64 matrix of `schema`, NaN where missing.

    `bars` come from `FeatureMachine`, columns of other sources may have been joined to them. An
    external feature without a column is NaN; any other must be there, else `ValueError`.
    """
    columns = BarColumns.of(bars)
    matrix = np.full((columns.height, len(schema)), np.nan)
    for i, feature in enumerate(schema.features):
        if feature.name in columns:
            matrix[:, i] = columns.floats(feature.name)
        elif feature.kind is not FeatureKind.EXTERNAL:
            msg = (
                f"bars must have a column per computed feature; found none named "
                f"{feature.name!r}; pass what `FeatureMachine` returned"
            )
            raise ValueError(msg)
    return matrix


def batch_features(
    bars: pl.DataFrame, schema: FeatureSchema, indicators: tuple[Indicator, ...] = ()
) -> pl.DataFrame:
    """Return the features of a whole frame of bars, computed by the machine that runs live.

    Bars of one series must be in time order (`ValueError` otherwise); the rows keep theirs.
    Columns: venue, symbol, timeframe, open_time_ns, close_time_ns, close, then the features of
    `schema` in vector order (float64, NaN where missing), the indicators, and `missing_mask`.
    """
    machine = FeatureMachine(schema, indicators)
    extras = [one.name for one in indicators if one.name not in schema.names]
    columns = [*dict.fromkeys(extras), "missing_mask"]
    parts = []
    # By slices, to the same bits: only the columns asked for are ever held for all bars at once.
    for first in range(0, max(bars.height, 1), SLICE_BARS):
        features = machine.update(bars[first : first + SLICE_BARS])
        vectors = pl.DataFrame(machine.vector_matrix(features), schema=list(schema.names))
        parts.append(pl.concat([vectors, features.select(columns)], how="horizontal"))
    keys = bars.select(name for name in _KEY_COLUMNS if name in bars.columns)
    return pl.concat([keys, pl.concat(parts)], how="horizontal")


def _extend(array: npt.NDArray[Any], count: int, fill: float) -> npt.NDArray[Any]:
    """Return a copy of `array` with at least `count` rows, the added ones filled."""
    added = max(0, count - len(array))
    rest = np.full((added, *array.shape[1:]), fill, dtype=array.dtype)
    return np.concatenate([array, rest])


def _check_order(bars: BarColumns, first_bad: int) -> None:
    if first_bad < 0:
        return
    msg = (
        f"bar of {'/'.join(bars.keys()[first_bad])} must be later than the one before it; found "
        f"close_time_ns {int(bars.integers('close_time_ns')[first_bad])!r}; sort the bars by close "
        f"time and drop what was already taken"
    )
    raise ValueError(msg)
