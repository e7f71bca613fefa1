"""The rules that a well-formed tick must keep, applied to a whole fetch at once."""

from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from infra.partitions import partition_of
from schemas.instruments import InstrumentBook
from schemas.ticks import (
    EVENT_TIME_MIN_NS,
    KIND_HEARTBEAT,
    KIND_QUOTE,
    KIND_TRADE,
    TICK_FRAME,
    TICK_WIRE,
    DeadLetterReason,
)

PARSED_ROWS: Final = pl.Schema(
    {
        **TICK_WIRE,
        "offset": pl.Int64(),
        "line": pl.Int32(),
        "provenance": pl.Int8(),
        "latest_ns": pl.Int64(),
    }
)
"""Parsed ticks in log order; `latest_ns` is the last event time that is not in the future."""

_UNITS_MAX: Final = float(2**53)
_LOOKED_UP_SINGLY_MAX: Final = 64
_REASONS: Final = tuple(DeadLetterReason)
_FIELDS: Final[dict[DeadLetterReason, tuple[str, ...]]] = {
    DeadLetterReason.WRONG_TYPE: ("kind", "side"),
    DeadLetterReason.TIME_UNIT: ("event_time_ns",),
    DeadLetterReason.TIME_IN_FUTURE: ("event_time_ns", "latest_ns"),
    DeadLetterReason.CROSSED_QUOTE: ("bid", "ask"),
    DeadLetterReason.UNKNOWN_INSTRUMENT: ("venue", "symbol"),
    DeadLetterReason.WRONG_PARTITION: ("venue", "symbol"),
}
"""What the detail of a reason shows; all prices and sizes for the others."""

_PRICED: Final = ("price", "size", "bid", "ask", "bid_size", "ask_size")

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class RefusedRow(NamedTuple):
    """A parsed tick that breaks a rule."""

    offset: int
    line: int
    reason: DeadLetterReason
    detail: str
    tick: dict[str, object]
    """Its fields that are not null."""


class TickRules:
    """Judges parsed ticks of one partition against the instruments that are listed."""

    def __init__(self, partition: int, partitions: int, book: InstrumentBook) -> None:
        self._partition = partition
        self._partitions = partitions
        self._book = book
        self._frame: pl.DataFrame | None = None
        self._names = pl.DataFrame()
        self._homes = self._numbers = np.empty(0, dtype=np.int64)
        self._price_scales = self._size_scales = np.empty(0)

    def judge(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[RefusedRow]]:
        """Return the ticks of `rows` (`PARSED_ROWS`) that keep every rule as `TICK_FRAME`, and the rest."""
        self._follow_book()
        judged = _Judgement(rows, self._find_instruments(rows))
        judged.check_shape()
        judged.check_values("trade", ("price", "size"))
        judged.check_values("quote", ("bid", "ask", "bid_size", "ask_size"))
        judged.check_instrument(self._homes, self._partition)
        frame = judged.to_ticks(self._price_scales, self._size_scales)
        if not judged.broken.any():
            return frame, []
        return frame.filter(pl.Series(judged.broken == 0)), judged.refused_rows()

    def _follow_book(self) -> None:
        if self._frame is self._book.frame:
            return
        self._frame = self._book.frame
        names = self._frame.select("venue", "symbol")
        # The last place stands for an instrument that is not listed: number -1.
        self._homes = np.array(
            [partition_of(venue, symbol, self._partitions) for venue, symbol in names.iter_rows()]
            + [self._partition]
        )
        self._price_scales = np.append(self._frame["price_scale"].to_numpy(), 1.0)
        self._size_scales = np.append(self._frame["size_scale"].to_numpy(), 1.0)
        self._names = self._frame.select("venue", "symbol", "instrument")

    def _find_instruments(self, rows: pl.DataFrame) -> Integers:
        if rows.height <= _LOOKED_UP_SINGLY_MAX:
            pairs = zip(rows["venue"].to_list(), rows["symbol"].to_list(), strict=True)
            found = [self._book.number_of(venue, symbol) for venue, symbol in pairs]
            return np.array([-1 if number is None else number for number in found])
        joined = rows.select("venue", "symbol").join(
            self._names, on=["venue", "symbol"], how="left", maintain_order="left"
        )
        return _integers(joined, "instrument", -1)


class _Judgement:
    """The verdict over one fetch: `broken` holds 1 + the index of the first rule a row breaks, or 0."""

    def __init__(self, rows: pl.DataFrame, instruments: Integers) -> None:
        self.rows = rows
        self.broken = np.zeros(rows.height, dtype=np.int8)
        self.kinds: dict[str, Mask] = {
            kind: _equals(rows["kind"], kind) for kind in ("trade", "quote", "heartbeat")
        }
        self.priced: Mask = ~self.kinds["heartbeat"]
        self.instruments = np.where(self.priced, instruments, -1)
        self.values: dict[str, Floats] = {}

    def _mark(self, reason: DeadLetterReason, mask: Mask) -> None:
        if mask.any():
            self.broken[mask & (self.broken == 0)] = 1 + _REASONS.index(reason)

    def check_shape(self) -> None:
        """Mark rows without a field they need, of no kind, or at an impossible time."""
        rows = self.rows
        missing = _nulls(rows, "kind") | _nulls(rows, "event_time_ns")
        missing |= self.priced & (_nulls(rows, "venue") | _nulls(rows, "symbol"))
        for kind, names in (("trade", ("price", "size")), ("quote", ("bid", "ask"))):
            if self.kinds[kind].any():
                for name in names:
                    missing |= self.kinds[kind] & _nulls(rows, name)
        self._mark(DeadLetterReason.MISSING_FIELD, missing)
        known = self.kinds["trade"] | self.kinds["quote"] | self.kinds["heartbeat"]
        sides = rows["side"]
        if sides.null_count() < rows.height:
            known &= _nulls(rows, "side") | _equals(sides, "buy") | _equals(sides, "sell")
        self._mark(DeadLetterReason.WRONG_TYPE, ~known)
        times = _integers(rows, "event_time_ns", 0)
        self._mark(DeadLetterReason.TIME_UNIT, times < EVENT_TIME_MIN_NS)
        self._mark(DeadLetterReason.TIME_IN_FUTURE, times > rows["latest_ns"].to_numpy())

    def check_values(self, kind: str, names: tuple[str, ...]) -> None:
        """Mark rows of `kind` with a value that is not finite or not positive, or a crossed quote."""
        chosen = self.kinds[kind]
        if not chosen.any():
            return
        present = [name for name in names if self.rows[name].null_count() < self.rows.height]
        for name in present:
            # Nulls were judged as missing, or are allowed: 1 keeps every further rule.
            self.values[name] = _filled(self.rows, name)
        for name in present:
            self._mark(DeadLetterReason.NOT_FINITE, chosen & ~np.isfinite(self.values[name]))
        for name in present:
            self._mark(DeadLetterReason.NOT_POSITIVE, chosen & (self.values[name] <= 0))
        if kind == "quote" and "bid" in present and "ask" in present:
            crossed = self.values["bid"] > self.values["ask"]
            self._mark(DeadLetterReason.CROSSED_QUOTE, chosen & crossed)

    def check_instrument(self, homes: Integers, partition: int) -> None:
        """Mark rows whose instrument is not listed or belongs to another partition."""
        self._mark(DeadLetterReason.UNKNOWN_INSTRUMENT, self.priced & (self.instruments < 0))
        self._mark(
            DeadLetterReason.WRONG_PARTITION, self.priced & (homes[self.instruments] != partition)
        )

    def to_ticks(self, price_scales: Floats, size_scales: Floats) -> pl.DataFrame:
        """Mark rows off the decimal grid, and return all rows as `TICK_FRAME`."""
        rows, height = self.rows, self.rows.height
        trade, quote = self.kinds["trade"], self.kinds["quote"]
        units = {
            f"{name}_units": self._units(name, chosen, scales[self.instruments])
            for name, chosen, scales in (
                ("price", trade, price_scales),
                ("size", trade, size_scales),
                ("bid", quote, price_scales),
                ("ask", quote, price_scales),
            )
        }
        codes = np.full(height, KIND_HEARTBEAT, dtype=np.int8)
        codes[trade], codes[quote] = KIND_TRADE, KIND_QUOTE
        sides = np.zeros(height, dtype=np.int8)
        if rows["side"].null_count() < height:
            sides[trade & _equals(rows["side"], "buy")] = 1
            sides[trade & _equals(rows["side"], "sell")] = -1
        trade_ids = np.where(trade, _integers(rows, "trade_id", -1), -1)
        columns: dict[str, Any] = {
            "offset": rows["offset"],
            "line": rows["line"],
            "kind": codes,
            "event_time_ns": rows["event_time_ns"],
            "instrument": self.instruments.astype(np.int32),
            "side": sides,
            "trade_id": trade_ids,
            "provenance": rows["provenance"],
            **units,
        }
        # A list of typed series is taken as it is; a dictionary would be inspected value by value.
        return pl.DataFrame([pl.Series(name, columns[name]) for name in TICK_FRAME])

    def _units(self, name: str, chosen: Mask, scale: Floats) -> Integers:
        """Return the values in units of the last decimal, 0 where there is none or it is off grid."""
        values = self.values.get(name)
        if values is None:
            return np.zeros(len(chosen), dtype=np.int64)
        values = np.where(chosen & (self.broken == 0), values, 1.0)
        units = np.rint(values * scale)
        on_grid = (units < _UNITS_MAX) & (units / scale == values)
        self._mark(DeadLetterReason.OFF_GRID, chosen & ~on_grid)
        return np.where(chosen & on_grid, units, 0.0).astype(np.int64)

    def refused_rows(self) -> list[RefusedRow]:
        """Return the rows that break a rule, in log order."""
        places = np.flatnonzero(self.broken)
        found = self.rows[places].iter_rows(named=True)
        refused = []
        for row, code in zip(found, self.broken[places].tolist(), strict=True):
            reason = _REASONS[code - 1]
            tick = {name: row[name] for name in TICK_WIRE if row[name] is not None}
            detail = _describe(reason, row)
            refused.append(RefusedRow(row["offset"], row["line"], reason, detail, tick))
        return refused


def _equals(names: pl.Series, wanted: str) -> Mask:
    equal = names == wanted
    return (equal.fill_null(value=False) if equal.null_count() else equal).to_numpy()


def _integers(rows: pl.DataFrame, name: str, absent: int) -> Integers:
    count = rows[name].null_count()
    if count == rows.height:
        return np.full(rows.height, absent, dtype=np.int64)
    return (rows[name].fill_null(absent) if count else rows[name]).to_numpy()


def _filled(rows: pl.DataFrame, name: str) -> Floats:
    values = rows[name]
    return (values.fill_null(1.0) if values.null_count() else values).to_numpy()


def _nulls(rows: pl.DataFrame, name: str) -> Mask:
    count = rows[name].null_count()
    if count in {0, rows.height}:
        return np.full(rows.height, count > 0)
    return rows[name].is_null().to_numpy()


def _describe(reason: DeadLetterReason, row: dict[str, Any]) -> str:
    if reason is DeadLetterReason.MISSING_FIELD:
        required = ["kind", "event_time_ns"]
        if row["kind"] not in {None, "heartbeat"}:
            required += ["venue", "symbol"]
        required += {"trade": ["price", "size"], "quote": ["bid", "ask"]}.get(row["kind"], [])
        return "absent: " + ", ".join(name for name in required if row[name] is None)
    names = _FIELDS.get(reason, _PRICED)
    return " ".join(f"{name}={row[name]!r}" for name in names if row[name] is not None)
