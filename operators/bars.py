"""Turn accepted ticks of one partition into closed bars, exactly and in event time.

A bar covers `[open, close)` and closes once the watermark has reached its close; a bar without a
trade is never emitted. 1m, 5m and 1h are aligned to the UTC epoch. 1d is the UTC day of an instrument
whose calendar is "24/7", and the session of its exchange for every other one; ticks outside sessions
are in no daily bar. Everything inside is an integer, so however the log is cut into batches the same
bars come out, bit for bit and in the same order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from msgspec import Struct, field
from msgspec.structs import replace
from numpy.typing import NDArray

from operators import _bar_cells as bar_cells
from operators._bar_cells import Integers, TickColumns
from operators._bar_rows import render_rows
from operators.bar_columns import BarColumns
from operators.sessions import ALWAYS_OPEN, SessionTable
from schemas.frames import polars_schema
from schemas.instruments import InstrumentBook
from schemas.market import BarClosed
from schemas.settings import TIMEFRAME_NS
from schemas.ticks import KIND_QUOTE, KIND_TRADE

_NEVER_NS = 2**63 - 1
_NO_BARS = BarColumns.of(pl.DataFrame(schema=polars_schema(BarClosed)))
_SESSION_TIMEFRAME = "1d"


class KnownSymbol(Struct):
    """One instrument as the machine knows it; its place in the list is its number in the cells."""

    venue: str
    symbol: str
    price_decimals: int
    size_decimals: int
    calendar: str


class BarState(Struct):
    """All that the machine remembers; holds names, never numbers of an `InstrumentBook`."""

    symbols: list[KnownSymbol] = field(default_factory=list)
    cells: dict[str, Integers] = field(default_factory=dict)
    """Open bars by timeframe, as `operators._bar_cells` lays them out."""
    previous_open_ns: dict[str, Integers] = field(default_factory=dict)
    """By timeframe, opening time of each symbol's last emitted bar; -1 before the first."""
    ticks: int = 0
    """Accepted ticks so far."""

    def copy(self) -> "BarState":
        """Return a state that no later tick changes."""
        return BarState(
            [replace(known) for known in self.symbols],
            {timeframe: cells.copy() for timeframe, cells in self.cells.items()},
            {timeframe: opens.copy() for timeframe, opens in self.previous_open_ns.items()},
            self.ticks,
        )


class BarMachine:
    """Bars of one partition; batches must come in log order, as `TickScreen` accepted them.

    `sessions` holds the table of every calendar but "24/7". Raises ValueError for no or unknown
    timeframes, and for a state of other timeframes, whose bars would start in the middle.
    """

    def __init__(
        self,
        partition: int,
        timeframes: Sequence[str],
        sessions: Mapping[str, SessionTable],
        state: BarState | None = None,
    ) -> None:
        self.partition = partition
        self.timeframes = tuple(sorted(set(timeframes), key=lambda name: TIMEFRAME_NS.get(name, 0)))
        if not self.timeframes or not set(self.timeframes) <= set(TIMEFRAME_NS):
            msg = (
                f"bar timeframes; must be some of {list(TIMEFRAME_NS)!r}; found"
                f" {list(timeframes)!r}; correct `bars.timeframes`"
            )
            raise ValueError(msg)
        if state is None:
            state = BarState(
                cells={name: bar_cells.no_cells() for name in self.timeframes},
                previous_open_ns={name: np.empty(0, dtype=np.int64) for name in self.timeframes},
            )
        elif tuple(state.cells) != self.timeframes:
            msg = (
                f"bar state of partition {partition!r}; must hold the timeframes"
                f" {list(self.timeframes)!r}; found {list(state.cells)!r}; restore"
                " `bars.timeframes` or start a fresh environment"
            )
            raise ValueError(msg)
        self._sessions = sessions
        self._state = state.copy()
        self._base_ns = TIMEFRAME_NS[self.timeframes[0]]
        self._next_close_ns = self._find_next_close()
        self._numbers = {
            (known.venue, known.symbol): number for number, known in enumerate(state.symbols)
        }
        self._book: InstrumentBook | None = None
        self._book_frame: pl.DataFrame | None = None
        self._number_of_instrument: Integers = np.empty(0, dtype=np.int64)
        self._factors: Integers | None = None
        self._index_symbols()

    def snapshot(self) -> BarState:
        """Return a copy of the state, from which a new machine continues."""
        return self._state.copy()

    def on_ticks(
        self,
        accepted: pl.DataFrame,
        duplicates: pl.DataFrame,
        watermark_ns: int,
        book: InstrumentBook,
    ) -> pl.DataFrame:
        """Do what `advance` does and return the closed bars as rows of `BarClosed`."""
        return self.advance(accepted, duplicates, watermark_ns, book).build()

    def advance(
        self,
        accepted: pl.DataFrame,
        duplicates: pl.DataFrame,
        watermark_ns: int,
        book: InstrumentBook,
    ) -> BarColumns:
        """Add a batch and return the bars that `watermark_ns` closed, as columns of `BarClosed`.

        `accepted` is a `TICK_FRAME` without heartbeats, `duplicates` has `instrument` and
        `event_time_ns`; both are numbered by `book`. Sorted by close, length of the timeframe,
        venue and symbol. Raises ValueError if a calendar is unknown or does not cover a tick.
        """
        if accepted.height or duplicates.height:
            self._learn_instruments(book)
            self._add(accepted, duplicates)
        if watermark_ns < self._next_close_ns:
            return _NO_BARS
        return self._close(watermark_ns)

    def open_bars_frame(self) -> pl.DataFrame:
        """Return the bars that are still open as rows of `BarClosed`, for inspection."""
        return self._render(
            {name: self._with_trades(cells) for name, cells in self._state.cells.items()},
            remember=False,
        ).build()

    def _learn_instruments(self, book: InstrumentBook) -> None:
        """Bring numbers, units and calendars up to date when the book has changed."""
        if book is self._book and book.frame is self._book_frame:
            return
        state = self._state
        numbers: list[int] = []
        factors: list[tuple[int, int]] = []
        for instrument in range(len(book)):
            listing = book[instrument]
            name = (listing.venue, listing.symbol)
            number = self._numbers.get(name)
            if number is None:
                number = self._numbers[name] = len(state.symbols)
                decimals = (listing.price_decimals, listing.size_decimals)
                state.symbols.append(KnownSymbol(*name, *decimals, listing.calendar))
            state.symbols[number].calendar = listing.calendar
            factors.append(self._refine(number, listing.price_decimals, listing.size_decimals))
            numbers.append(number)
        for timeframe, opens in state.previous_open_ns.items():
            missing = len(state.symbols) - opens.size
            state.previous_open_ns[timeframe] = np.pad(opens, (0, missing), constant_values=-1)
        self._number_of_instrument = np.array(numbers, dtype=np.int64)
        table = np.array(factors, dtype=np.int64).reshape(-1, 2)
        self._factors = None if (table == 1).all() else table
        self._index_symbols()
        self._book, self._book_frame = book, book.frame

    def _index_symbols(self) -> None:
        """Derive from the known symbols what every batch needs."""
        symbols = self._state.symbols
        assert len(symbols) <= bar_cells.SYMBOL_MASK
        names = [(known.venue, known.symbol) for known in symbols]
        self._ranks = np.empty(len(names), dtype=np.int64)
        self._ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        self._calendars = np.array([known.calendar for known in symbols], dtype=np.object_)
        self._in_sessions = self._calendars != ALWAYS_OPEN
        decimals = [[known.price_decimals, known.size_decimals] for known in symbols]
        self._scales = 10.0 ** np.array(decimals, dtype=np.float64).reshape(-1, 2).T

    def _refine(self, number: int, price_decimals: int, size_decimals: int) -> tuple[int, int]:
        """Return the factors that bring a listing's units to ours; ours only ever get finer."""
        known = self._state.symbols[number]
        price_growth = max(price_decimals - known.price_decimals, 0)
        size_growth = max(size_decimals - known.size_decimals, 0)
        if price_growth or size_growth:
            for cells in self._state.cells.values():
                bar_cells.rescale_cells(cells, number, 10**price_growth, 10**size_growth)
            known.price_decimals += price_growth
            known.size_decimals += size_growth
        return 10 ** (known.price_decimals - price_decimals), 10 ** (
            known.size_decimals - size_decimals
        )

    def _read_columns(self, accepted: pl.DataFrame) -> TickColumns:
        instrument = accepted["instrument"].to_numpy()
        price, size = accepted["price_units"].to_numpy(), accepted["size_units"].to_numpy()
        if self._factors is not None:
            factors = self._factors[instrument]
            price = bar_cells.scale_units(price, factors[:, 0])
            size = bar_cells.scale_units(size, factors[:, 1])
        return TickColumns(
            symbol=self._number_of_instrument[instrument],
            kind=accepted["kind"].to_numpy(),
            event_time_ns=accepted["event_time_ns"].to_numpy(),
            price=price,
            size=size,
            side=accepted["side"].to_numpy(),
            bid=accepted["bid_units"].to_numpy(),
            ask=accepted["ask_units"].to_numpy(),
            provenance=accepted["provenance"].to_numpy(),
            offset=accepted["offset"].to_numpy(),
            line=accepted["line"].to_numpy(),
            first_tick=self._state.ticks,
        )

    def _add(self, accepted: pl.DataFrame, duplicates: pl.DataFrame) -> None:
        """Join the batch into the open bars of every timeframe."""
        ticks = self._read_columns(accepted)
        repeated = self._number_of_instrument[duplicates["instrument"].to_numpy()]
        repeated_ns = duplicates["event_time_ns"].to_numpy()
        base = self._collect_base(ticks, repeated, repeated_ns)
        for timeframe in self.timeframes:
            length_ns = TIMEFRAME_NS[timeframe]
            parts = [self._state.cells[timeframe]]
            if timeframe != _SESSION_TIMEFRAME or not self._in_sessions.any():
                parts.append(_widen(base, length_ns, self._base_ns))
            else:
                around_the_clock = ~self._in_sessions[base[bar_cells.KEY] & bar_cells.SYMBOL_MASK]
                parts.append(_widen(base[:, around_the_clock], length_ns, self._base_ns))
                parts += self._collect_sessions(ticks, repeated, repeated_ns)
            self._state.cells[timeframe] = bar_cells.join_cells(np.concatenate(parts, axis=1))
        self._state.ticks += accepted.height
        self._next_close_ns = self._find_next_close()

    def _collect_base(
        self, ticks: TickColumns, repeated: Integers, repeated_ns: Integers
    ) -> Integers:
        """Return the batch's cells of the shortest timeframe, which divides all others."""
        open_ns = ticks.event_time_ns - ticks.event_time_ns % self._base_ns
        parts = []
        for rows in _split_kinds(ticks.kind):
            opens = open_ns if rows.size == open_ns.size else open_ns[rows]
            parts.append(bar_cells.build_cells(ticks, rows, opens, opens + self._base_ns))
        repeated_open_ns = repeated_ns - repeated_ns % self._base_ns
        parts.append(
            bar_cells.count_duplicates(repeated, repeated_open_ns, repeated_open_ns + self._base_ns)
        )
        filled = [cells for cells in parts if cells.size]
        return (
            filled[0] if len(filled) == 1 else bar_cells.join_cells(np.concatenate(parts, axis=1))
        )

    def _collect_sessions(
        self, ticks: TickColumns, repeated: Integers, repeated_ns: Integers
    ) -> list[Integers]:
        """Return the batch's cells of the sessions that its ticks fall into."""
        parts = []
        for rows in _split_kinds(ticks.kind):
            chosen = rows[self._in_sessions[ticks.symbol[rows]]]
            inside, open_ns, close_ns = self._find_sessions(
                ticks.symbol[chosen], ticks.event_time_ns[chosen]
            )
            parts.append(bar_cells.build_cells(ticks, chosen[inside], open_ns, close_ns))
        chosen = np.flatnonzero(self._in_sessions[repeated])
        inside, open_ns, close_ns = self._find_sessions(repeated[chosen], repeated_ns[chosen])
        parts.append(bar_cells.count_duplicates(repeated[chosen][inside], open_ns, close_ns))
        return parts

    def _find_sessions(
        self, symbol: Integers, event_time_ns: Integers
    ) -> tuple[NDArray[np.bool_], Integers, Integers]:
        """Return which ticks are inside a session, and for those its open and close."""
        open_ns = np.full(symbol.size, -1, dtype=np.int64)
        close_ns = open_ns.copy()
        calendars = self._calendars[symbol]
        for calendar in sorted(set(calendars.tolist())):
            table = self._find_table(calendar)
            rows = np.flatnonzero(calendars == calendar)
            index = table.locate(event_time_ns[rows])
            rows, index = rows[index >= 0], index[index >= 0]
            open_ns[rows], close_ns[rows] = table.open_ns[index], table.close_ns[index]
        inside = open_ns >= 0
        return inside, open_ns[inside], close_ns[inside]

    def _find_table(self, calendar: str) -> SessionTable:
        table = self._sessions.get(calendar)
        if table is None:
            msg = (
                f"sessions of calendar {calendar!r}; must be loaded to build daily bars; found"
                f" {sorted(self._sessions)!r}; load it or list the instrument with"
                f" {ALWAYS_OPEN!r}"
            )
            raise ValueError(msg)
        return table

    def _find_next_close(self) -> int:
        return min(
            int(cells[bar_cells.CLOSE_NS].min(initial=_NEVER_NS))
            for cells in self._state.cells.values()
        )

    def _close(self, watermark_ns: int) -> BarColumns:
        closed: dict[str, Integers] = {}
        for timeframe, cells in self._state.cells.items():
            done = cells[bar_cells.CLOSE_NS] <= watermark_ns
            if done.any():
                self._state.cells[timeframe] = cells[:, ~done]
                closed[timeframe] = self._with_trades(cells[:, done])
        self._next_close_ns = self._find_next_close()
        return self._render(closed, remember=True)

    @staticmethod
    def _with_trades(cells: Integers) -> Integers:
        return cells[:, cells[bar_cells.TRADES] > 0]

    def _count_gaps(self, timeframe: str, cells: Integers, *, remember: bool) -> Integers:
        """Return per cell how many intervals its symbol missed since its previous bar."""
        symbol, open_ns = cells[bar_cells.KEY] & bar_cells.SYMBOL_MASK, cells[bar_cells.OPEN_NS]
        order = np.argsort(symbol, kind="stable")
        symbol, open_ns = symbol[order], open_ns[order]
        remembered = self._state.previous_open_ns[timeframe]
        previous_ns = np.roll(open_ns, 1)
        firsts = np.diff(symbol, prepend=-1) != 0
        previous_ns[firsts] = remembered[symbol[firsts]]
        missed: Integers = (open_ns - previous_ns) // TIMEFRAME_NS[timeframe] - 1
        if timeframe == _SESSION_TIMEFRAME:
            for row in np.flatnonzero(self._in_sessions[symbol] & (previous_ns >= 0)).tolist():
                table = self._find_table(self._calendars[symbol[row]])
                missed[row] = table.count_between(int(previous_ns[row]), int(open_ns[row]))
        missed[previous_ns < 0] = 0
        if remember:
            remembered[symbol] = open_ns
        gaps: Integers = np.empty_like(missed)
        # A day that began before the instrument's calendar changed can overlap the next one.
        gaps[order] = np.maximum(missed, 0)
        return gaps

    def _render(self, closed: dict[str, Integers], *, remember: bool) -> BarColumns:
        """Return cells as columns of `BarClosed`, in the order of emission."""
        gaps = [self._count_gaps(name, cells, remember=remember) for name, cells in closed.items()]
        if not sum(found.size for found in gaps):
            return _NO_BARS
        cells = np.concatenate(list(closed.values()), axis=1)
        names = np.repeat(np.array(list(closed)), [found.size for found in gaps])
        lengths = np.array([TIMEFRAME_NS[name] for name in closed])
        length_ns = np.repeat(lengths, [found.size for found in gaps])
        symbol = cells[bar_cells.KEY] & bar_cells.SYMBOL_MASK
        order = np.lexsort((self._ranks[symbol], length_ns, cells[bar_cells.CLOSE_NS]))
        return render_rows(
            self.partition,
            [(known.venue, known.symbol) for known in self._state.symbols],
            self._scales[:, symbol[order]],
            names[order].tolist(),
            cells[:, order],
            np.concatenate(gaps)[order],
        )


def _split_kinds(kind: NDArray[np.int8]) -> list[NDArray[np.intp]]:
    """Return the rows of trades and of quotes."""
    return [np.flatnonzero(kind == KIND_TRADE), np.flatnonzero(kind == KIND_QUOTE)]


def _widen(base: Integers, length_ns: int, base_ns: int) -> Integers:
    if length_ns == base_ns:
        return base
    open_ns = base[bar_cells.OPEN_NS] - base[bar_cells.OPEN_NS] % length_ns
    return bar_cells.relabel(base, open_ns, open_ns + length_ns)
