"""Sort the ticks of one partition into accepted, late and already seen, and move its watermark.

The watermark is the largest event time seen (ticks and heartbeats) less the lateness allowance. A
tick is late if it lies before the watermark as it stood just before that tick, so the verdict never
depends on how the log was cut into batches. Late is judged first, then duplicate.

A duplicate is told by its `trade_id`, per instrument: ids at or below the largest one seen count as
seen unless they lie in a gap that is still open. The 64 highest gaps are remembered; an id
in a forgotten one counts as seen. Trades without an id (-1), quotes and heartbeats are never
duplicates: a feed without ids has no duplicate detection.
"""

from bisect import bisect_right

import numpy as np
import polars as pl
from msgspec import Struct, field
from numpy.typing import NDArray

from schemas.frames import polars_schema
from schemas.ids import tick_id
from schemas.instruments import InstrumentBook
from schemas.market import TickLate
from schemas.ticks import KIND_HEARTBEAT, KIND_TRADE, PROVENANCE_CODES

NOTHING_SEEN_NS = -(2**62)
"""Watermark before the first tick or heartbeat: earlier than every event time."""

GAPS_MAX = 64
"""Open id gaps that are remembered per instrument."""

_NO_LATE_TICKS = pl.DataFrame(schema=polars_schema(TickLate))
_NO_DUPLICATES = pl.DataFrame(schema={"instrument": pl.Int32(), "event_time_ns": pl.Int64()})


class Screened(Struct, frozen=True, kw_only=True):
    """What became of one batch: every row is in exactly one of the four groups."""

    accepted: pl.DataFrame
    """`TICK_FRAME` in log order, without heartbeats."""
    late: pl.DataFrame
    """Rows of `TickLate`."""
    duplicates: pl.DataFrame
    """`instrument` and `event_time_ns` of the dropped duplicates."""
    heartbeats: int
    watermark_ns: int
    """No tick accepted later is earlier; `NOTHING_SEEN_NS` before the first tick or heartbeat."""
    id_gaps: int
    """How many times a trade id jumped over ids that were not seen yet."""


class SeenIds(Struct):
    """Trade ids of one instrument: the largest one seen and the open gaps below it."""

    highest: int = -1
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Inclusive, ascending, apart. Ids before the first one seen are the lowest gap."""

    def accept(self, trade_id: int) -> bool:
        """Return whether `trade_id` is new, and remember it."""
        if trade_id > self.highest:
            if trade_id > self.highest + 1:
                self._open_gap(self.highest + 1, trade_id - 1)
            self.highest = trade_id
            return True
        position = bisect_right(self.gaps, (trade_id, self.highest)) - 1
        if position < 0 or self.gaps[position][1] < trade_id:
            return False
        low, high = self.gaps[position]
        parts = ((low, trade_id - 1), (trade_id + 1, high))
        self.gaps[position : position + 1] = [part for part in parts if part[0] <= part[1]]
        del self.gaps[:-GAPS_MAX]
        return True

    def accept_run(self, first: int, last: int, gaps: list[tuple[int, int]]) -> None:
        """Remember strictly increasing ids above `highest`; `gaps` are the jumps among them."""
        if first > self.highest + 1:
            self._open_gap(self.highest + 1, first - 1)
        for low, high in gaps:
            self._open_gap(low, high)
        self.highest = last

    def _open_gap(self, low: int, high: int) -> None:
        self.gaps.append((low, high))
        del self.gaps[:-GAPS_MAX]


class ScreenState(Struct):
    """All that a screen remembers; keyed by `(venue, symbol)`, so it outlives the process."""

    newest_ns: int = NOTHING_SEEN_NS
    """Largest event time seen."""
    seen_ids: dict[tuple[str, str], SeenIds] = field(default_factory=dict)

    def copy(self) -> "ScreenState":
        """Return a state that no later tick changes."""
        return ScreenState(
            self.newest_ns,
            {name: SeenIds(ids.highest, ids.gaps.copy()) for name, ids in self.seen_ids.items()},
        )


class TickScreen:
    """Screens the frames of one partition, given in log order.

    Raises ValueError if `lateness_ns` is negative.
    """

    def __init__(self, partition: int, lateness_ns: int, state: ScreenState | None = None) -> None:
        if lateness_ns < 0:
            msg = (
                f"lateness allowance; must not be negative; found {lateness_ns!r};"
                " set `bars.lateness_ms` to 0 or more"
            )
            raise ValueError(msg)
        self.partition = partition
        self.lateness_ns = lateness_ns
        self._state = ScreenState() if state is None else state.copy()
        self._book: InstrumentBook | None = None
        self._ids_by_number: dict[int, SeenIds] = {}

    @property
    def watermark_ns(self) -> int:
        """No tick accepted from now on is earlier; `NOTHING_SEEN_NS` before the first record."""
        newest_ns = self._state.newest_ns
        return newest_ns if newest_ns == NOTHING_SEEN_NS else newest_ns - self.lateness_ns

    def snapshot(self) -> ScreenState:
        """Return a copy of the state, from which a new screen continues."""
        return self._state.copy()

    def on_ticks(self, ticks: pl.DataFrame, book: InstrumentBook) -> Screened:
        """Screen a `TICK_FRAME` of this partition whose instruments are numbered by `book`."""
        kind = ticks["kind"].to_numpy()
        event_time_ns = ticks["event_time_ns"].to_numpy()
        ticking = kind != KIND_HEARTBEAT
        watermark_ns = self._advance(event_time_ns)
        late = ticking & (event_time_ns < watermark_ns)
        duplicate, id_gaps = self._find_duplicates(ticks, (kind == KIND_TRADE) & ~late, book)
        kept = ticking & ~late & ~duplicate
        return Screened(
            accepted=_take(ticks, kept),
            late=self._describe_late(ticks, late, watermark_ns, book),
            duplicates=(
                ticks.select("instrument", "event_time_ns").filter(pl.Series(duplicate))
                if duplicate.any()
                else _NO_DUPLICATES
            ),
            heartbeats=len(kind) - int(np.count_nonzero(ticking)),
            watermark_ns=self.watermark_ns,
            id_gaps=id_gaps,
        )

    def _advance(self, event_time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the watermark just before each row, and move on to the end of the batch."""
        newest_ns = np.empty(len(event_time_ns) + 1, dtype=np.int64)
        newest_ns[0] = self._state.newest_ns
        np.maximum.accumulate(event_time_ns, out=newest_ns[1:])
        np.maximum(newest_ns, newest_ns[0], out=newest_ns)
        self._state.newest_ns = int(newest_ns[-1])
        return newest_ns[:-1] - self.lateness_ns

    def _find_duplicates(
        self, ticks: pl.DataFrame, trades: NDArray[np.bool_], book: InstrumentBook
    ) -> tuple[NDArray[np.bool_], int]:
        """Return which rows are duplicates, and how many id gaps the batch opened."""
        trade_id = ticks["trade_id"].to_numpy()
        duplicate = np.zeros(len(trade_id), dtype=np.bool_)
        rows = np.flatnonzero(trades & (trade_id >= 0))
        if rows.size == 0:
            return duplicate, 0
        numbers = ticks["instrument"].to_numpy()[rows]
        # Numpy sorts 16-bit integers by radix: several times faster, and few books are larger.
        narrow = numbers.astype(np.int16) if len(book) <= np.iinfo(np.int16).max else numbers
        order = np.argsort(narrow, kind="stable")
        rows = rows[order]
        numbers = numbers[order]
        ids = trade_id[rows]
        steps = np.diff(ids, prepend=0)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        steps[starts] = 1
        stops = np.append(starts[1:], rows.size)
        jumps = np.flatnonzero(steps > 1)
        runs = np.column_stack(
            (
                starts,
                stops,
                numbers[starts],
                np.minimum.reduceat(steps, starts) > 0,
                np.searchsorted(jumps, starts),
                np.searchsorted(jumps, stops),
            )
        )
        id_gaps = 0
        for start, stop, number, rising, low, high in runs.tolist():
            seen = self._seen(number, book)
            first = int(ids[start])
            if rising and first > seen.highest:
                id_gaps += high - low + (seen.highest >= 0 and first > seen.highest + 1)
                newest = jumps[max(low, high - GAPS_MAX) : high] if high > low else ()
                gaps = [(int(ids[row - 1]) + 1, int(ids[row]) - 1) for row in newest]
                seen.accept_run(first, int(ids[stop - 1]), gaps)
                continue
            for position, found in enumerate(ids[start:stop].tolist(), start):
                id_gaps += seen.highest >= 0 and found > seen.highest + 1
                duplicate[rows[position]] = not seen.accept(found)
        return duplicate, id_gaps

    def _seen(self, number: int, book: InstrumentBook) -> SeenIds:
        if book is not self._book:
            self._book = book
            self._ids_by_number = {}
        seen = self._ids_by_number.get(number)
        if seen is None:
            listing = book[number]
            name = (listing.venue, listing.symbol)
            seen = self._ids_by_number[number] = self._state.seen_ids.setdefault(name, SeenIds())
        return seen

    def _describe_late(
        self,
        ticks: pl.DataFrame,
        late: NDArray[np.bool_],
        watermark_ns: NDArray[np.int64],
        book: InstrumentBook,
    ) -> pl.DataFrame:
        if not late.any():
            return _NO_LATE_TICKS
        rows = ticks.filter(pl.Series(late))
        listings = [book[number] for number in rows["instrument"].to_list()]
        places = list(zip(rows["offset"].to_list(), rows["line"].to_list(), strict=True))
        traded = pl.col("kind") == KIND_TRADE
        price_scale = pl.Series([10.0**listing.price_decimals for listing in listings])
        size_scale = pl.Series([10.0**listing.size_decimals for listing in listings])
        columns = rows.select(
            id=pl.Series([f"late/{self.partition}/{offset}/{line}" for offset, line in places]),
            cause=pl.Series([tick_id(self.partition, offset, line) for offset, line in places]),
            venue=pl.Series([listing.venue for listing in listings]),
            symbol=pl.Series([listing.symbol for listing in listings]),
            event_time_ns="event_time_ns",
            late_by_ns=pl.Series(watermark_ns[late]) - pl.col("event_time_ns"),
            partition=pl.lit(self.partition, dtype=pl.Int64()),
            offset="offset",
            line=pl.col("line").cast(pl.Int64()),
            price=pl.when(traded).then(pl.col("price_units") / price_scale),
            size=pl.when(traded).then(pl.col("size_units") / size_scale),
            provenance=pl.Series([PROVENANCE_CODES[code] for code in rows["provenance"].to_list()]),
        )
        return columns.match_to_schema(polars_schema(TickLate))


def _take(ticks: pl.DataFrame, kept: NDArray[np.bool_]) -> pl.DataFrame:
    if kept.all():
        return ticks
    # Mostly a heartbeat by itself: a query would cost more than all else that becomes of it.
    return ticks.filter(pl.Series(kept)) if kept.any() else ticks[:0]
