"""Recorded market data (Parquet or CSV) read as ticks in event-time order, in chunks.

Three layouts are told apart by their columns: trades and quotes are published as recorded, bars as
trades that rebuild them (`provenance` reconstructed). Rows that cannot be a tick (no time, flagged
suspicious, one side of a quote, a bar that gives no trade) are left out and counted; rows with a
wrong value are published and dead-lettered by whoever reads them, as live ones would be.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl
from msgspec import Struct

from infra.recorded_instruments import Observed, combine, list_observed, observe
from schemas.market import InstrumentListed
from schemas.recorded_bars import RECORDED_BARS
from schemas.ticks import PROVENANCE_CODES, TICK_WIRE

Layout = Literal["trades", "quotes", "bars"]
TimeColumn = Literal["ts_ns", "recv_ns"]

Rebuild = Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]
"""From bars to their trades (`TICK_WIRE`) and the skipped bars: `operators.reconstruct`."""

RECORDED_TICKS = pl.Schema({**TICK_WIRE, "provenance": pl.Int8()})
"""A chunk of recorded ticks: the wire columns and an index into `PROVENANCE_CODES`."""

ROWS_IN_MEMORY_MAX = 4_000_000
"""A file with more rows is read in slices of this size, and must be sorted by time."""

LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "bars": tuple(RECORDED_BARS),
    "trades": ("ts_ns", "venue", "symbol", "price", "size"),
    "quotes": ("ts_ns", "venue", "symbol", "bid", "ask"),
}
"""Columns that make a layout; an order book (`msg_seq`) is none."""

_TYPES: dict[str, pl.DataType] = {
    **RECORDED_BARS,
    "recv_ns": pl.Int64(), "price": pl.Float64(), "size": pl.Float64(), "side": pl.String(),
    "trade_id": pl.Int64(), "bid": pl.Float64(), "bid_size": pl.Float64(), "ask": pl.Float64(),
    "ask_size": pl.Float64(), "suspicious": pl.Boolean(),
}  # fmt: skip
_PRICES: dict[Layout, list[str]] = {
    "bars": ["open", "high", "low", "close"],
    "trades": ["price"],
    "quotes": ["bid", "ask"],
}
_SIZES: dict[Layout, list[str]] = {
    "bars": ["volume"],
    "trades": ["size"],
    "quotes": ["bid_size", "ask_size"],
}
_TICKS_PER_BAR = 4


class RecordingDescription(Struct, frozen=True, kw_only=True):
    """What a recording holds."""

    path: str
    layout: Layout
    provenance: str
    rows: int
    """Rows of the file."""
    usable: int
    """Rows that can be published."""
    symbols: list[str]
    """As `venue:symbol`."""
    start_ns: int
    """Earliest event time; of bars the open."""
    end_ns: int
    """Latest event time; of bars the close."""


class _Summary(NamedTuple):
    usable: int
    start_ns: int
    end_ns: int
    observed: list[Observed]


class Recording:
    """One file of recorded market data."""

    def __init__(
        self, path: Path, layout: Layout, time_column: TimeColumn, rebuild: Rebuild | None
    ) -> None:
        self.path = path
        self.layout: Layout = layout
        self.time_column: TimeColumn = time_column
        self.provenance = "reconstructed" if layout == "bars" else "recorded"
        self.skipped: Counter[str] = Counter()
        """Rows that the latest `ticks` left out, by reason."""
        self.skipped_bars: list[pl.DataFrame] = []
        """Bars that the latest `ticks` left out: ts_ns, venue, symbol, reason."""
        self._rebuild = rebuild

    @cached_property
    def rows(self) -> int:
        """Rows of the file."""
        return int(_scan(self.path).select(pl.len()).collect().item())

    @cached_property
    def _summary(self) -> _Summary:
        usable, starts, ends, observed = 0, [], [], []
        for part in self._parts(Counter()):
            usable += part.height
            starts.append(part["event_time_ns"].min())
            ends.append((part["event_time_ns"] + self._length_ns(part)).max())
            sizes = [name for name in _SIZES[self.layout] if name in part.columns]
            observed += observe(part, _PRICES[self.layout], sizes)
        if not usable:
            msg = (
                f"recording {self.path.name!r} must hold a row that can be published; "
                f"found none in {self.rows!r} rows; check its {self.time_column!r} column"
            )
            raise ValueError(msg)
        return _Summary(usable, min(starts), max(ends), combine(observed))  # type: ignore[type-var, arg-type]

    def describe(self) -> RecordingDescription:
        """Return layout, rows, symbols and time range; raises ValueError if nothing is usable."""
        found = self._summary
        return RecordingDescription(
            path=str(self.path),
            layout=self.layout,
            provenance=self.provenance,
            rows=self.rows,
            usable=found.usable,
            symbols=[f"{seen.venue}:{seen.symbol}" for seen in found.observed],
            start_ns=found.start_ns,
            end_ns=found.end_ns,
        )

    def observed(self) -> list[Observed]:
        """Return first time and decimals of every instrument in the file."""
        return self._summary.observed

    def instruments(
        self, *, maker_fee_bps: float | None = None, taker_fee_bps: float | None = None
    ) -> list[InstrumentListed]:
        """Return a listing for each instrument; fees default to those of its venue."""
        return list_instruments([self], maker_fee_bps=maker_fee_bps, taker_fee_bps=taker_fee_bps)

    def ticks(
        self, chunk_rows: int, start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield the ticks (`RECORDED_TICKS`) of [start_ns, end_ns) by event time, about `chunk_rows` each.

        Of bars, those that lie wholly inside the range count. Raises ValueError for bars without a
        `rebuild`, and for a large file that is not sorted by time.
        """
        self.skipped = Counter()
        self.skipped_bars = []
        if self.layout == "bars":
            chunks = self._bar_ticks(chunk_rows, start_ns, end_ns)
        else:
            chunks = self._row_ticks(chunk_rows, start_ns, end_ns)
        code = PROVENANCE_CODES.index(self.provenance)
        for chunk in chunks:
            yield _complete(chunk).with_columns(
                provenance=pl.lit(code, dtype=RECORDED_TICKS["provenance"])
            )

    def bars(self) -> pl.DataFrame:
        """Return the usable bars as recorded (columns of the layout), in the order of the file.

        Raises ValueError if the recording holds no bars.
        """
        if self.layout != "bars":
            msg = f"recording {self.path.name!r} must hold bars; found {self.layout!r}; choose bars"
            raise ValueError(msg)
        self.skipped = Counter()
        parts = pl.concat(self._parts(self.skipped))
        return parts.rename({"event_time_ns": "ts_ns"}).select(LAYOUTS["bars"])

    def stated_provenances(self) -> set[str]:
        """Return what a column `provenance` of the file says; empty if it has none."""
        if "provenance" not in _scan(self.path).collect_schema():
            return set()
        return set(_scan(self.path).select("provenance").unique().collect().to_series().to_list())

    def _row_ticks(
        self, chunk_rows: int, start_ns: int | None, end_ns: int | None
    ) -> Iterator[pl.DataFrame]:
        kind = "trade" if self.layout == "trades" else "quote"
        for part in self._sorted_parts():
            kept = _within(part, start_ns, end_ns).with_columns(kind=pl.lit(kind))
            yield from kept.iter_slices(chunk_rows)

    def _bar_ticks(
        self, chunk_rows: int, start_ns: int | None, end_ns: int | None
    ) -> Iterator[pl.DataFrame]:
        if self._rebuild is None:
            msg = (
                f"bars of {self.path.name!r} must be rebuilt as trades; found no rebuild; "
                "open the recording with operators.reconstruct.rebuild_trades"
            )
            raise ValueError(msg)
        decimals = pl.DataFrame(
            [(seen.venue, seen.symbol, seen.size_decimals) for seen in self.observed()],
            schema={"venue": pl.String, "symbol": pl.String, "size_decimals": pl.Int32},
            orient="row",
        )
        held = pl.DataFrame(schema=TICK_WIRE)
        for part in self._sorted_parts():
            last = part["event_time_ns"] + self._length_ns(part)
            kept = _within(
                part.filter(last <= end_ns) if end_ns is not None else part, start_ns, end_ns
            )
            for bars in kept.iter_slices(max(1, chunk_rows // _TICKS_PER_BAR)):
                named = bars.rename({"event_time_ns": "ts_ns"}).join(
                    decimals, on=["venue", "symbol"], how="left", maintain_order="left"
                )
                trades, skipped = self._rebuild(named)
                self.skipped_bars.append(skipped)
                self.skipped.update(skipped["reason"].to_list())
                # A later bar opens at or after the last one here: earlier trades are complete.
                known = pl.concat([held, trades]).sort(
                    "event_time_ns", "venue", "symbol", maintain_order=True
                )
                complete = int(known["event_time_ns"].search_sorted(bars["event_time_ns"][-1]))
                yield from known[:complete].iter_slices(chunk_rows)
                held = known[complete:]
        yield from held.iter_slices(chunk_rows)

    def _length_ns(self, part: pl.DataFrame) -> pl.Series:
        if self.layout != "bars":
            return pl.repeat(0, part.height, dtype=pl.Int64, eager=True)
        lengths = {name: _timeframe_ns(name) for name in part["timeframe"].unique()}
        return part["timeframe"].replace_strict(lengths, return_dtype=pl.Int64)

    def _sorted_parts(self) -> Iterator[pl.DataFrame]:
        newest_ns: int | None = None
        # By `map` nobody keeps the part in the order of the file beside the one by time.
        for ordered in map(_by_time, self._parts(self.skipped)):
            if not ordered.height:
                continue
            if newest_ns is not None and ordered["event_time_ns"][0] < newest_ns:
                msg = (
                    f"recording {self.path.name!r} must be sorted by {self.time_column!r} because it "
                    f"has more than {ROWS_IN_MEMORY_MAX} rows; found "
                    f"{ordered['event_time_ns'][0]!r} after {newest_ns!r}; sort the file"
                )
                raise ValueError(msg)
            newest_ns = ordered["event_time_ns"][-1]
            yield ordered

    def _parts(self, skipped: Counter[str]) -> Iterator[pl.DataFrame]:
        scan = _scan(self.path)
        for offset in range(0, self.rows, ROWS_IN_MEMORY_MAX):
            rows = scan.slice(offset, ROWS_IN_MEMORY_MAX)
            yield self._usable(rows.collect(engine="in-memory"), skipped)

    def _usable(self, part: pl.DataFrame, skipped: Counter[str]) -> pl.DataFrame:
        names = [name for name in _TYPES if name in part.columns]
        typed = part.select(
            pl.col(name).cast(_TYPES[name], strict=name != "trade_id") for name in names
        )
        conditions = {
            "no_time": pl.col(self.time_column).is_null(),
            "no_instrument": pl.col("venue").is_null() | pl.col("symbol").is_null(),
        }
        if "suspicious" in names:
            conditions["suspicious"] = pl.col("suspicious").fill_null(value=False)
        if self.layout == "quotes":
            conditions["one_sided"] = pl.col("bid").is_null() | pl.col("ask").is_null()
        for reason, condition in conditions.items():
            before = typed.height
            typed = typed.filter(~condition)
            skipped[reason] += before - typed.height
        for reason in [name for name, count in skipped.items() if not count]:
            del skipped[reason]
        return typed.with_columns(event_time_ns=pl.col(self.time_column)).drop(
            name for name in ("ts_ns", "recv_ns", "suspicious") if name in names
        )


def open_recording(
    path: Path | str,
    *,
    time_column: TimeColumn = "ts_ns",
    rebuild: Rebuild | None = None,
) -> Recording:
    """Return the recording in `path`; raises ValueError if its columns make no layout.

    `time_column` is the column that counts as event time; `rebuild` turns bars into trades.
    """
    path = Path(path)
    columns = _scan(path).collect_schema()
    found = [
        layout
        for layout, names in LAYOUTS.items()
        if set(names) <= set(columns) and "msg_seq" not in columns
    ]
    if not found:
        wanted = "; or ".join(f"{name}: {', '.join(names)}" for name, names in LAYOUTS.items())
        msg = (
            f"recording {path.name!r} must have the columns of a layout ({wanted}); "
            f"found {list(columns)!r}; rename or add columns"
        )
        raise ValueError(msg)
    if time_column not in columns:
        msg = (
            f"recording {path.name!r} must have the time column {time_column!r}; "
            f"found {list(columns)!r}; choose another --time-column"
        )
        raise ValueError(msg)
    if found[0] == "bars":
        _refuse_mixed_timeframes(path)
    return Recording(path, found[0], time_column, rebuild)


def _scan(path: Path) -> pl.LazyFrame:
    if path.suffix == ".parquet":
        return pl.scan_parquet(path)
    if path.name.endswith((".csv", ".csv.gz", ".csv.zst")):
        head = pl.read_csv(path, n_rows=0)
        known = {name: _TYPES[name] for name in head.columns if name in _TYPES}
        if "trade_id" in known:
            known["trade_id"] = pl.String()
        return pl.scan_csv(path, schema_overrides=known)
    msg = (
        f"recording {path.name!r} must be a Parquet or CSV file; found suffix {path.suffix!r}; "
        "name it .parquet or .csv"
    )
    raise ValueError(msg)


def _refuse_mixed_timeframes(path: Path) -> None:
    mixed = (
        _scan(path)
        .group_by("venue", "symbol")
        .agg(pl.col("timeframe").unique().sort())
        .filter(pl.col("timeframe").list.len() > 1)
        .sort("venue", "symbol")
        .collect()
    )
    if mixed.height:
        venue, symbol, timeframes = mixed.row(0)
        msg = (
            f"bars of {venue}:{symbol} in {path.name!r} must have one timeframe, else their volume "
            f"counts twice; found {timeframes!r}; keep one of them"
        )
        raise ValueError(msg)


def _timeframe_ns(timeframe: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = timeframe[:-1], timeframe[-1:]
    if not number.isdecimal() or unit not in units:
        msg = (
            f"timeframe of a bar must be a number and s, m, h or d; found {timeframe!r}; "
            "name it like '5m'"
        )
        raise ValueError(msg)
    return int(number) * units[unit] * 1_000_000_000


def _by_time(part: pl.DataFrame) -> pl.DataFrame:
    return part.sort("event_time_ns", maintain_order=True)


def _within(part: pl.DataFrame, start_ns: int | None, end_ns: int | None) -> pl.DataFrame:
    if start_ns is not None:
        part = part.filter(pl.col("event_time_ns") >= start_ns)
    if end_ns is not None:
        part = part.filter(pl.col("event_time_ns") < end_ns)
    return part


def _complete(chunk: pl.DataFrame) -> pl.DataFrame:
    known = set(chunk.columns)
    return chunk.select(
        pl.col(name) if name in known else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in TICK_WIRE.items()
    )


def list_instruments(
    recordings: Sequence[Recording],
    *,
    maker_fee_bps: float | None = None,
    taker_fee_bps: float | None = None,
) -> list[InstrumentListed]:
    """Return one listing for each instrument in `recordings`, with the most decimals of any."""
    found = [seen for recording in recordings for seen in recording.observed()]
    return list_observed(found, maker_fee_bps=maker_fee_bps, taker_fee_bps=taker_fee_bps)


def merge_recordings(
    sources: Sequence[Iterator[pl.DataFrame]], chunk_rows: int
) -> Iterator[pl.DataFrame]:
    """Yield the chunks of several `Recording.ticks` as one stream by event time.

    Of ticks with the same time those of the earlier source come first, in its order. At most one
    chunk a source is held beside the chunk that is given.
    """
    held: dict[int, pl.DataFrame] = {}
    live = dict(enumerate(sources))
    while live or held:
        for number in [number for number in live if number not in held]:
            chunk = next(live[number], None)
            if chunk is None:
                del live[number]
            elif chunk.height:
                held[number] = chunk
        if any(number not in held for number in live) or not held:
            continue
        horizon = min((held[number]["event_time_ns"][-1], number) for number in held)
        ready = []
        for number in sorted(held):
            times = held[number]["event_time_ns"]
            # Ticks at the horizon itself wait for earlier sources, which may still hold some.
            side: Literal["right", "left"] = "right" if number <= horizon[1] else "left"
            cut = int(times.search_sorted(horizon[0], side=side))
            ready.append(held[number][:cut])
            held[number] = held[number][cut:]
        held = {number: rest for number, rest in held.items() if rest.height}
        merged = pl.concat(ready).sort("event_time_ns", maintain_order=True)
        yield from merged.iter_slices(chunk_rows)
