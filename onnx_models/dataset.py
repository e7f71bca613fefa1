"""From recorded bars to the rows of a training set, by the operators that run live."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from infra.recordings import open_recording
from onnx_models.labels import HORIZONS_BARS, UNKNOWN, Labelling, Target, label_rows
from operators.features import FeatureMachine, to_model_inputs, vector_matrix
from schemas.features import FEATURE_SCHEMAS, FeatureSchema, SequenceSchema
from schemas.settings import TIMEFRAME_NS

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HOUR_NS = TIMEFRAME_NS["1h"]
PARTS_PER_HOUR = {"5m": 12, "15m": 4, "30m": 2, "1h": 1}
"""Bars that hours can be made of, and how many make one."""

_VOLUME_SCALE = 1e8
"""Volumes have at most eight decimals: sums of scaled integers are exact."""


LABELLINGS = tuple(Labelling(horizon_bars=horizon) for horizon in HORIZONS_BARS)
"""What every data set is labelled by, unless asked otherwise."""


class ProvenanceError(ValueError):
    """Data that was not recorded from a market; no model is made from it."""


class InputReader(Protocol):
    """Gives the inputs of a model for rows of one data set."""

    def take(self, rows: IntArray) -> Float32Array:
        """Return the (len(rows), *shape) inputs, NaN where one is missing."""
        ...


class DataManifest(Struct, frozen=True, kw_only=True):
    """What a data set holds and where it came from."""

    files: list[dict[str, str]]
    """Name and SHA-256 of every file."""
    content_hash: str
    """SHA-256 over the hourly bars (times, symbols, prices, volumes): the same data, the same hash."""
    provenance: str
    timeframe: str
    first_open_ns: int
    last_close_ns: int
    bars: int
    rows: int
    """Bars with complete inputs and a known label of every horizon."""
    symbols: dict[str, dict[str, int]]
    """Per symbol: bars, first_open_ns, last_close_ns, missing_bars, longest_gap_bars."""
    feature_schema: str
    feature_schema_hash: str
    labels: dict[str, str]
    """Definition by horizon in bars."""


class DataSet(Struct, frozen=True, kw_only=True):
    """Every bar in the order (close time, venue, symbol); a row is an index into it."""

    schema: FeatureSchema
    inputs: Float32Array
    """(bars, features) scale-free view: exactly what the served model will be given; NaN: missing."""
    closes: FloatArray
    close_times_ns: IntArray
    symbols: tuple[str, ...]
    symbol_codes: IntArray
    """(bars,) index into `symbols`."""
    volatility: FloatArray
    """(bars,) standard deviation of the return of one bar; NaN in the warm-up."""
    targets: dict[int, Target]
    """By horizon in bars."""
    by_series: IntArray
    """(bars,) rows sorted by series and time: the bars of a series lie side by side."""
    place: IntArray
    """(bars,) where in `by_series` a row is found."""
    age: IntArray
    """(bars,) how many bars of its series came before a row."""
    manifest: DataManifest

    def usable_rows(self, horizon_bars: int, schema: FeatureSchema | SequenceSchema) -> IntArray:
        """Return the rows with complete inputs of `schema` and a known label, in time order."""
        complete = self._complete(schema)
        return np.flatnonzero(complete & (self.targets[horizon_bars].labels != UNKNOWN))

    def reader(self, schema: FeatureSchema | SequenceSchema) -> InputReader:
        """Return what gives the inputs of `schema`: vectors, or windows of the bars up to a row."""
        if isinstance(schema, SequenceSchema):
            return WindowReader(self, schema)
        if schema != self.schema:
            msg = (
                f"data set must have been built for the schema that is read; found "
                f"{self.schema.name!r} and {schema.name!r}; build it for that schema"
            )
            raise ValueError(msg)
        return VectorReader(self.inputs)

    def channels(self, schema: SequenceSchema) -> Float32Array:
        """Return the (bars, channels) inputs that a window of `schema` is made of."""
        columns = [self.schema.names.index(name) for name in schema.names]
        return np.ascontiguousarray(self.inputs[:, columns])

    def _complete(self, schema: FeatureSchema | SequenceSchema) -> npt.NDArray[np.bool_]:
        finite = np.asarray(np.isfinite(self.inputs).all(axis=1))
        if not isinstance(schema, SequenceSchema):
            return finite
        # A window is complete if none of its bars lacks a channel and all are of its series.
        lacking = np.asarray((~np.isfinite(self.channels(schema))).any(axis=1))
        before = np.concatenate([[0], np.cumsum(lacking[self.by_series])])
        first = np.maximum(self.place - schema.steps + 1, 0)
        whole = before[self.place + 1] == before[first]
        return np.asarray(finite & whole & (self.age >= schema.steps - 1))


class VectorReader:
    """Rows of a matrix of inputs."""

    def __init__(self, inputs: Float32Array) -> None:
        self._inputs = inputs

    def take(self, rows: IntArray) -> Float32Array:
        """Return the (len(rows), features) inputs."""
        return self._inputs[rows]


class WindowReader:
    """Windows over the bars of a row's series, without a copy of the data per row."""

    def __init__(self, data: DataSet, schema: SequenceSchema) -> None:
        self._age, self._place, self._steps = data.age, data.place, schema.steps
        ordered = data.channels(schema)[data.by_series]
        # Bars that do not exist come first, so that the earliest windows have something to lack.
        blank = np.full((schema.steps - 1, ordered.shape[1]), np.nan, dtype=np.float32)
        view = np.lib.stride_tricks.sliding_window_view(
            np.concatenate([blank, ordered]), schema.steps, axis=0
        )
        self._windows = view.transpose(0, 2, 1)

    def take(self, rows: IntArray) -> Float32Array:
        """Return the (len(rows), steps, channels) windows, the oldest bar first."""
        found = np.ascontiguousarray(self._windows[self._place[rows]])
        young = np.flatnonzero(self._age[rows] < self._steps - 1)
        for i in young:
            found[i, : self._steps - 1 - self._age[rows[i]]] = np.nan
        return found


def to_hourly(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the 1h bars of bars of one shorter timeframe (`ts_ns` = open), or 1h bars as they are.

    Sorted by (close time, venue, symbol). An hour without all of its parts is left out: it would be
    another bar than the live one. Prices are picked and volumes added as integers, so the result is
    exact. Raises `ValueError` for mixed timeframes, those that hours are not made of, and volumes that
    are no numbers.
    """
    timeframes = bars["timeframe"].unique().sort().to_list()
    if len(timeframes) != 1 or timeframes[0] not in PARTS_PER_HOUR:
        msg = (
            f"bars must have one timeframe of {', '.join(PARTS_PER_HOUR)}; found {timeframes!r}; "
            f"choose another recording"
        )
        raise ValueError(msg)
    _refuse_bad_volumes(bars)
    keys = ["venue", "symbol", "open_time_ns"]
    grouped = (
        bars.sort("venue", "symbol", "ts_ns")
        .with_columns(open_time_ns=pl.col("ts_ns") // HOUR_NS * HOUR_NS)
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            (pl.col("volume") * _VOLUME_SCALE).round().cast(pl.Int128).sum().alias("units"),
            pl.len().alias("parts"),
        )
        .filter(pl.col("parts") == PARTS_PER_HOUR[timeframes[0]])
    )
    # Polars divides by a scalar as a product with its reciprocal, which is not the nearest float.
    volume = grouped["units"].cast(pl.Float64).to_numpy() / _VOLUME_SCALE
    return grouped.select(
        *keys,
        pl.lit("1h").alias("timeframe"),
        (pl.col("open_time_ns") + HOUR_NS).alias("close_time_ns"),
        *("open", "high", "low", "close"),
        pl.Series("volume", volume),
    ).sort("close_time_ns", "venue", "symbol")


def _refuse_bad_volumes(bars: pl.DataFrame) -> None:
    usable = pl.col("volume").is_finite() & (pl.col("volume") >= 0.0)
    bad = bars.filter(~usable.fill_null(value=False))
    if bad.height:
        found = "{volume!r} of {symbol} at {ts_ns}".format(**bad.row(0, named=True))
        msg = (
            f"bars must have finite volumes of at least 0; found {found} and {bad.height - 1} more; "
            f"leave those bars out"
        )
        raise ValueError(msg)


def load_data_set(
    paths: Sequence[Path],
    labellings: Sequence[Labelling] = LABELLINGS,
    symbols: Sequence[str] = (),
) -> DataSet:
    """Return the data set of the recordings at `paths`, of `symbols` alone if any are named.

    Raises:
        ProvenanceError: A file says that its data was not recorded.
        ValueError: A file is no recording of bars, holds a bar of another file again, a symbol is
            in none of them, or a feature has no value at all.
    """
    return build_data_set(read_hourly(paths, symbols), "recorded", labellings, paths)


def build_data_set(
    hourly: pl.DataFrame,
    provenance: str,
    labellings: Sequence[Labelling] = LABELLINGS,
    paths: Sequence[Path] = (),
) -> DataSet:
    """Return the data set of `hourly` bars, as `to_hourly` returns them; `paths`: files that hold them.

    Raises ValueError if a feature has no value at all.
    """
    schema = FEATURE_SCHEMAS["fs34"]
    features = FeatureMachine(schema).update(hourly)
    closes = hourly["close"].to_numpy()
    inputs = to_model_inputs(vector_matrix(features, schema), closes, schema).astype(np.float32)
    _refuse_empty_features(inputs, schema, paths)
    volatility = features["volatility_30"]
    rows = hourly.with_columns(volatility=volatility.fill_nan(None))
    targets = {one.horizon_bars: label_rows(rows, one) for one in labellings}
    codes, names = _number_symbols(hourly)
    by_series = np.lexsort((hourly["close_time_ns"].to_numpy(), codes))
    place = np.empty_like(by_series)
    place[by_series] = np.arange(len(by_series))
    starts = np.flatnonzero(np.diff(codes[by_series], prepend=-1))
    known = np.logical_and.reduce([one.labels != UNKNOWN for one in targets.values()])
    usable = int((np.isfinite(inputs).all(axis=1) & known).sum())
    return DataSet(
        schema=schema,
        inputs=inputs,
        closes=closes,
        close_times_ns=hourly["close_time_ns"].to_numpy(),
        symbols=names,
        symbol_codes=codes,
        volatility=volatility.to_numpy(),
        targets=targets,
        by_series=by_series,
        place=place,
        age=place - starts[np.searchsorted(starts, place, side="right") - 1],
        manifest=describe_data(
            paths,
            hourly,
            schema,
            {one.horizon_bars: one.definition for one in labellings},
            usable,
            provenance,
        ),
    )


def read_hourly(paths: Sequence[Path], symbols: Sequence[str]) -> pl.DataFrame:
    """Return the hourly bars of recordings as `to_hourly` does; raises as `load_data_set` does."""
    parts = []
    for path in paths:
        try:
            bars, stated = _read_file(path)
        except pl.exceptions.PolarsError as e:
            first = str(e).partition("\n")[0]
            msg = f"recording {path.name!r} must be readable; found {first!r}; fetch it again"
            raise ValueError(msg) from e
        if stated - {"recorded"}:
            msg = (
                f"training data must be recorded; found {sorted(stated)!r} in {path.name!r}; train "
                f"on data that a market made"
            )
            raise ProvenanceError(msg)
        parts.append(to_hourly(bars))
    hourly = pl.concat(parts).sort("close_time_ns", "venue", "symbol")
    twice = hourly.filter(pl.struct("venue", "symbol", "close_time_ns").is_duplicated())
    if twice.height:
        found = "{venue}:{symbol} at {open_time_ns}".format(**twice.row(0, named=True))
        msg = f"a bar must be in one file only; found {found} twice; leave one of the files out"
        raise ValueError(msg)
    return choose_symbols(hourly, symbols)


def _read_file(path: Path) -> tuple[pl.DataFrame, set[str]]:
    """Return the bars of a file and what it says of their provenance."""
    recording = open_recording(path)
    return recording.bars(), recording.stated_provenances()


def choose_symbols(hourly: pl.DataFrame, symbols: Sequence[str]) -> pl.DataFrame:
    """Return the bars of `symbols`, of all if none is named; raises ValueError if there are none."""
    present = sorted(hourly["symbol"].unique().to_list())
    unknown = sorted(set(symbols) - set(present))
    if unknown:
        msg = f"symbols must be in the data; found no {unknown!r}; choose from {', '.join(present)}"
        raise ValueError(msg)
    chosen = hourly.filter(pl.col("symbol").is_in(list(symbols))) if symbols else hourly
    if not chosen.height:
        msg = "data must hold whole hours; found none; give a longer recording"
        raise ValueError(msg)
    return chosen


def _refuse_empty_features(
    inputs: Float32Array, schema: FeatureSchema, paths: Sequence[Path]
) -> None:
    empty = [
        name
        for name, column in zip(schema.names, inputs.T, strict=True)
        if not np.isfinite(column).any()
    ]
    if empty:
        source = ", ".join(path.name for path in paths) or "the bars"
        msg = (
            f"every feature of {schema.name!r} must have values; found none of {empty!r} in "
            f"{source}; give bars with volume, of longer than the warm-up"
        )
        raise ValueError(msg)


def _number_symbols(hourly: pl.DataFrame) -> tuple[IntArray, tuple[str, ...]]:
    labels = hourly.select(pl.format("{}:{}", "venue", "symbol")).to_series()
    names = labels.unique().sort().to_list()
    codes = labels.replace_strict({name: i for i, name in enumerate(names)}, return_dtype=pl.Int64)
    return codes.to_numpy(), tuple(names)


def describe_data(
    paths: Sequence[Path],
    hourly: pl.DataFrame,
    schema: FeatureSchema,
    labels: Mapping[int, str],
    usable: int,
    provenance: str,
) -> DataManifest:
    """Return the manifest of `hourly` bars; `labels` are the definitions by horizon in bars."""
    per_symbol: dict[str, dict[str, int]] = {}
    for (venue, symbol), part in hourly.group_by("venue", "symbol", maintain_order=True):
        opens = part["open_time_ns"].to_list()
        gaps = [(b - a) // HOUR_NS - 1 for a, b in pairwise(opens)]
        per_symbol[f"{venue}:{symbol}"] = {
            "bars": len(opens),
            "first_open_ns": opens[0],
            "last_close_ns": opens[-1] + HOUR_NS,
            "missing_bars": sum(gaps),
            "longest_gap_bars": max(gaps, default=0),
        }
    digest = sha256()
    for name in ("venue", "symbol"):
        digest.update("\n".join(hourly[name].to_list()).encode())
    for name in ("close_time_ns", "open", "high", "low", "close", "volume"):
        digest.update(np.ascontiguousarray(hourly[name].to_numpy()).tobytes())
    return DataManifest(
        files=[
            {"name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()} for path in paths
        ],
        content_hash=digest.hexdigest(),
        provenance=provenance,
        timeframe="1h",
        first_open_ns=min(one["first_open_ns"] for one in per_symbol.values()),
        last_close_ns=max(one["last_close_ns"] for one in per_symbol.values()),
        bars=hourly.height,
        rows=usable,
        symbols=dict(sorted(per_symbol.items())),
        feature_schema=schema.name,
        feature_schema_hash=schema.schema_hash,
        labels={str(horizon): definition for horizon, definition in labels.items()},
    )
