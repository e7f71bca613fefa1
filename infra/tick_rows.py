"""The rules that a well-formed tick must keep, applied to a whole fetch at once."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from infra.partitions import partition_of
from infra.tick_columns import Integers, ParsedTicks
from infra.tick_scan import FIELDS, FLOATS, KINDS, SIDES
from schemas.instruments import InstrumentBook
from schemas.ticks import (
    EVENT_TIME_MIN_NS,
    KIND_HEARTBEAT,
    KIND_QUOTE,
    KIND_TRADE,
    TICK_FRAME,
    DeadLetterReason,
)

_UNITS_MAX: Final = float(2**53)
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

_TRADE, _QUOTE, _HEARTBEAT = map(KINDS.index, ("trade", "quote", "heartbeat"))
_KIND_CODES: Final = np.array([KIND_HEARTBEAT] * (len(KINDS) + 1), dtype=np.int8)
_KIND_CODES[[_TRADE, _QUOTE]] = KIND_TRADE, KIND_QUOTE
_SIDE_CODES: Final = np.array([{"buy": 1, "sell": -1}[side] for side in SIDES] + [0], dtype=np.int8)
_SIDE_BIT: Final = 1 << FIELDS.index("side")

_REQUIRED: Final = {
    "heartbeat": ("kind", "event_time_ns"),
    "trade": ("kind", "event_time_ns", "venue", "symbol", "price", "size"),
    "quote": ("kind", "event_time_ns", "venue", "symbol", "bid", "ask"),
    "other": ("kind", "event_time_ns", "venue", "symbol"),
}
_REQUIRED_BITS: Final = np.array(
    [sum(1 << FIELDS.index(name) for name in _REQUIRED[kind]) for kind in (*KINDS, "other")],
    dtype=np.int16,
)
"""By kind; -1, which is no kind, finds the last."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Placed(NamedTuple):
    """Where parsed ticks stand in the log, and what their records say about them; one element each."""

    offsets: Integers
    lines: NDArray[np.int32]
    provenances: NDArray[np.int8]
    latest_ns: Integers
    """The last event time that is not in the future."""


class RefusedRow(NamedTuple):
    """A parsed tick that breaks a rule."""

    row: int
    reason: DeadLetterReason


class TickRules:
    """Judges parsed ticks of one partition against the instruments that are listed."""

    def __init__(self, partition: int, partitions: int, book: InstrumentBook) -> None:
        self._partition = partition
        self._partitions = partitions
        self._book = book
        self._frame: pl.DataFrame | None = None
        self._homes = np.empty(0, dtype=np.int64)
        self._price_scales = self._size_scales = np.empty(0)

    def judge(self, ticks: ParsedTicks, placed: Placed) -> tuple[pl.DataFrame, list[RefusedRow]]:
        """Return the `ticks` that keep every rule as `TICK_FRAME`, and the others in log order."""
        self._follow_book()
        judged = _Judgement(ticks, placed, self._find_instruments(ticks))
        judged.check_shape()
        judged.check_values(_TRADE, ("price", "size"))
        judged.check_values(_QUOTE, ("bid", "ask", "bid_size", "ask_size"))
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

    def _find_instruments(self, ticks: ParsedTicks) -> Integers:
        listed = [
            None if venue is None or symbol is None else self._book.number_of(venue, symbol)
            for venue, symbol in ticks.names
        ]
        numbers = np.array([-1 if number is None else number for number in listed], dtype=np.int64)
        return numbers[ticks.pairs]


class _Judgement:
    """The verdict over one fetch: `broken` holds 1 + the index of the first rule a tick breaks, or 0."""

    def __init__(self, ticks: ParsedTicks, placed: Placed, instruments: Integers) -> None:
        self.ticks, self.placed = ticks, placed
        self.broken = np.zeros(len(ticks.kinds), dtype=np.int8)
        self.priced: Mask = ticks.kinds != _HEARTBEAT
        self.instruments = np.where(self.priced, instruments, -1)
        self.values = dict(zip(FLOATS, ticks.floats, strict=True))

    def _mark(self, reason: DeadLetterReason, mask: Mask) -> None:
        if mask.any():
            self.broken[mask & (self.broken == 0)] = 1 + _REASONS.index(reason)

    def check_shape(self) -> None:
        """Mark ticks without a field they need, of no kind, or at an impossible time."""
        ticks = self.ticks
        required = _REQUIRED_BITS[ticks.kinds]
        self._mark(DeadLetterReason.MISSING_FIELD, ticks.present & required != required)
        self._mark(DeadLetterReason.WRONG_TYPE, (ticks.kinds < 0) | (ticks.sides < 0))
        self._mark(DeadLetterReason.TIME_UNIT, ticks.times_ns < EVENT_TIME_MIN_NS)
        self._mark(DeadLetterReason.TIME_IN_FUTURE, ticks.times_ns > self.placed.latest_ns)

    def check_values(self, kind: int, names: tuple[str, ...]) -> None:
        """Mark ticks of `kind` with a value that is not finite or not positive, or a crossed quote."""
        chosen = self.ticks.kinds == kind
        if not chosen.any():
            return
        # Where a value is absent it was judged as missing, or may be: 1 keeps every further rule.
        for name in names:
            self._mark(DeadLetterReason.NOT_FINITE, chosen & ~np.isfinite(self.values[name]))
        for name in names:
            self._mark(DeadLetterReason.NOT_POSITIVE, chosen & (self.values[name] <= 0))
        if kind == _QUOTE:
            crossed = self.values["bid"] > self.values["ask"]
            self._mark(DeadLetterReason.CROSSED_QUOTE, chosen & crossed)

    def check_instrument(self, homes: Integers, partition: int) -> None:
        """Mark ticks whose instrument is not listed or belongs to another partition."""
        self._mark(DeadLetterReason.UNKNOWN_INSTRUMENT, self.priced & (self.instruments < 0))
        self._mark(
            DeadLetterReason.WRONG_PARTITION, self.priced & (homes[self.instruments] != partition)
        )

    def to_ticks(self, price_scales: Floats, size_scales: Floats) -> pl.DataFrame:
        """Mark ticks off the decimal grid, and return all of them as `TICK_FRAME`."""
        ticks, placed = self.ticks, self.placed
        trade, quote = ticks.kinds == _TRADE, ticks.kinds == _QUOTE
        units = {
            f"{name}_units": self._units(name, chosen, scales)
            for name, chosen, scales in (
                ("price", trade, price_scales),
                ("size", trade, size_scales),
                ("bid", quote, price_scales),
                ("ask", quote, price_scales),
            )
        }
        sided = trade & (ticks.present & _SIDE_BIT != 0)
        columns: dict[str, NDArray[Any]] = {
            "offset": placed.offsets,
            "line": placed.lines,
            "kind": _KIND_CODES[ticks.kinds],
            "event_time_ns": ticks.times_ns,
            "instrument": self.instruments.astype(np.int32),
            "side": _SIDE_CODES[np.where(sided, ticks.sides, -1)],
            "trade_id": np.where(trade, ticks.trade_ids, -1),
            "provenance": placed.provenances,
            **units,
        }
        # A list of typed series is taken as it is; a dictionary would be inspected value by value.
        return pl.DataFrame([pl.Series(name, columns[name]) for name in TICK_FRAME])

    def _units(self, name: str, chosen: Mask, scales: Floats) -> Integers:
        """Return the values in units of the last decimal, 0 where there is none or it is off grid."""
        if not chosen.any():
            return np.zeros(len(chosen), dtype=np.int64)
        scale = scales[self.instruments]
        values = np.where(chosen & (self.broken == 0), self.values[name], 1.0)
        units = np.rint(values * scale)
        on_grid = (units < _UNITS_MAX) & (units / scale == values)
        self._mark(DeadLetterReason.OFF_GRID, chosen & ~on_grid)
        return np.where(chosen & on_grid, units, 0.0).astype(np.int64)

    def refused_rows(self) -> list[RefusedRow]:
        """Return the ticks that break a rule, in log order."""
        rows = np.flatnonzero(self.broken)
        reasons = [_REASONS[code - 1] for code in self.broken[rows].tolist()]
        return list(map(RefusedRow, rows.tolist(), reasons))


def describe(reason: DeadLetterReason, tick: Mapping[str, object], latest_ns: int) -> str:
    """Return what of `tick`, its fields that are not null, breaks the rule behind `reason`."""
    if reason is DeadLetterReason.MISSING_FIELD:
        kind = tick.get("kind", "heartbeat")
        required = _REQUIRED[kind if kind in KINDS else "other"]
        return "absent: " + ", ".join(name for name in required if name not in tick)
    shown = {**tick, "latest_ns": latest_ns}
    names = _FIELDS.get(reason, _PRICED)
    return " ".join(f"{name}={shown[name]!r}" for name in names if name in shown)
