"""Unfinished bars ("cells") as integer columns: built from ticks, and joined exactly.

A matrix holds one field per row and one cell per column, all int64. Sums, minima and maxima of
integers do not depend on how the ticks were cut, so neither does a bar. Sizes are summed in two
parts of 32 bits, because a day of a cheap coin in its last decimal overflows 64.
"""

from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.ticks import KIND_TRADE

Integers: TypeAlias = NDArray[np.int64]

(
    KEY,
    OPEN_NS,
    CLOSE_NS,
    TRADES,
    UNSIDED,
    QUOTES,
    SPREAD,
    DUPLICATES,
    VOLUME_HIGH,
    VOLUME_LOW,
    BUY_HIGH,
    BUY_LOW,
    LOW,
    FIRST_NS,
    PROVENANCE,
    FIRST_TICK,
    HIGH,
    LAST_NS,
    LAST_TICK,
    OPEN,
    CLOSE,
    FIRST_OFFSET,
    FIRST_LINE,
    LAST_OFFSET,
    LAST_LINE,
) = range(25)
FIELDS = LAST_LINE + 1

_SUMS = slice(TRADES, BUY_LOW + 1)
_MINIMA = slice(LOW, FIRST_TICK + 1)
_MAXIMA = slice(HIGH, LAST_TICK + 1)

_LARGEST = np.iinfo(np.int64).max
_SMALLEST = np.iinfo(np.int64).min
_EMPTY = np.zeros(FIELDS, dtype=np.int64)
_EMPTY[_MINIMA] = _LARGEST
_EMPTY[_MAXIMA] = _SMALLEST

LIMB_BITS = 32
_LIMB_MASK = (1 << LIMB_BITS) - 1

SYMBOL_BITS = 20
SYMBOL_MASK = (1 << SYMBOL_BITS) - 1
_SECOND_NS = 1_000_000_000

SPREAD_UNITS_PER_BPS = 1_000_000
"""Spreads are summed as whole millionths of a basis point: a float sum would depend on the cut."""


class TickColumns(Struct, frozen=True, kw_only=True):
    """Columns of accepted ticks in log order, and the numbers that they get."""

    symbol: Integers
    kind: NDArray[np.int8]
    event_time_ns: Integers
    price: Integers
    size: Integers
    side: NDArray[np.int8]
    bid: Integers
    ask: Integers
    provenance: NDArray[np.int8]
    offset: Integers
    line: Integers
    first_tick: int
    """Number of the first row, counted over the whole log of the partition."""


def no_cells() -> Integers:
    """Return a matrix without cells."""
    return np.empty((FIELDS, 0), dtype=np.int64)


def build_keys(symbol: Integers, open_ns: Integers) -> Integers:
    """Return keys that sort by opening time, then symbol; bars open on whole seconds."""
    return (open_ns // _SECOND_NS << SYMBOL_BITS) | symbol


def relabel(cells: Integers, open_ns: Integers, close_ns: Integers) -> Integers:
    """Return a copy of `cells` that belongs to the given wider intervals."""
    wider = cells.copy()
    wider[KEY] = build_keys(cells[KEY] & SYMBOL_MASK, open_ns)
    wider[OPEN_NS] = open_ns
    wider[CLOSE_NS] = close_ns
    return wider


def build_cells(
    ticks: TickColumns, rows: NDArray[np.intp], open_ns: Integers, close_ns: Integers
) -> Integers:
    """Return cells of the trades or quotes at `rows`, whose bars span `open_ns` to `close_ns`.

    `rows` are ascending and all of one kind; `open_ns` and `close_ns` run along `rows`.
    """
    if rows.size == 0:
        return no_cells()
    keys = build_keys(ticks.symbol[rows], open_ns)
    order = np.argsort(keys, kind="stable")
    starts = _find_starts(keys[order])
    stops = np.append(starts[1:], order.size)
    firsts, lasts = order[starts], order[stops - 1]
    cells = _label(keys[firsts], open_ns[firsts], close_ns[firsts])
    first_rows, last_rows = rows[firsts], rows[lasts]
    cells[FIRST_TICK] = first_rows + ticks.first_tick
    cells[LAST_TICK] = last_rows + ticks.first_tick
    cells[FIRST_OFFSET], cells[FIRST_LINE] = ticks.offset[first_rows], ticks.line[first_rows]
    cells[LAST_OFFSET], cells[LAST_LINE] = ticks.offset[last_rows], ticks.line[last_rows]
    sorted_rows = rows[order]
    cells[PROVENANCE] = np.minimum.reduceat(ticks.provenance[sorted_rows], starts)
    if ticks.kind[rows[0]] == KIND_TRADE:
        _add_trades(cells, ticks, sorted_rows, starts, stops)
    else:
        bid, ask = ticks.bid[sorted_rows], ticks.ask[sorted_rows]
        spread_bps = (ask - bid) * 2e4 / (ask + bid)
        spread = np.rint(spread_bps * SPREAD_UNITS_PER_BPS).astype(np.int64)
        cells[QUOTES] = stops - starts
        cells[SPREAD] = np.add.reduceat(spread, starts)
    return cells


def _add_trades(
    cells: Integers,
    ticks: TickColumns,
    rows: NDArray[np.intp],
    starts: NDArray[np.intp],
    stops: NDArray[np.intp],
) -> None:
    price, size = ticks.price[rows], ticks.size[rows]
    side, event_time_ns = ticks.side[rows], ticks.event_time_ns[rows]
    bought = np.where(side > 0, size, 0)
    cells[TRADES] = stops - starts
    cells[UNSIDED] = np.add.reduceat((side == 0).astype(np.int64), starts)
    cells[VOLUME_HIGH] = np.add.reduceat(size >> LIMB_BITS, starts)
    cells[VOLUME_LOW] = np.add.reduceat(size & _LIMB_MASK, starts)
    cells[BUY_HIGH] = np.add.reduceat(bought >> LIMB_BITS, starts)
    cells[BUY_LOW] = np.add.reduceat(bought & _LIMB_MASK, starts)
    cells[LOW] = np.minimum.reduceat(price, starts)
    cells[HIGH] = np.maximum.reduceat(price, starts)
    cells[FIRST_NS] = np.minimum.reduceat(event_time_ns, starts)
    cells[LAST_NS] = np.maximum.reduceat(event_time_ns, starts)
    owner = np.repeat(np.arange(starts.size), stops - starts)
    cells[OPEN] = price[_pick(event_time_ns, cells[FIRST_NS], owner, last=False)]
    cells[CLOSE] = price[_pick(event_time_ns, cells[LAST_NS], owner, last=True)]


def count_duplicates(symbol: Integers, open_ns: Integers, close_ns: Integers) -> Integers:
    """Return cells that hold nothing but the number of duplicates of each bar."""
    if symbol.size == 0:
        return no_cells()
    keys, firsts, counts = np.unique(
        build_keys(symbol, open_ns), return_index=True, return_counts=True
    )
    cells = _label(keys, open_ns[firsts], close_ns[firsts])
    cells[DUPLICATES] = counts
    return cells


def join_cells(cells: Integers) -> Integers:
    """Return `cells` sorted by key, with those of one key joined into one.

    Trades of equal event time in different cells of one key must stand in log order.
    """
    keys = cells[KEY]
    order = np.argsort(keys, kind="stable")
    cells = cells[:, order]
    starts = _find_starts(cells[KEY])
    if starts.size == order.size:
        return cells
    joined = cells[:, starts]
    joined[_SUMS] = np.add.reduceat(cells[_SUMS], starts, axis=1)
    joined[_MINIMA] = np.minimum.reduceat(cells[_MINIMA], starts, axis=1)
    joined[_MAXIMA] = np.maximum.reduceat(cells[_MAXIMA], starts, axis=1)
    owner = np.repeat(np.arange(starts.size), np.diff(starts, append=order.size))
    for by, last, fields in (
        (FIRST_NS, False, [OPEN]),
        (LAST_NS, True, [CLOSE]),
        (FIRST_TICK, False, [FIRST_OFFSET, FIRST_LINE]),
        (LAST_TICK, True, [LAST_OFFSET, LAST_LINE]),
    ):
        chosen = _pick(cells[by], joined[by], owner, last=last)
        for name in fields:
            joined[name] = cells[name, chosen]
    return joined


def rescale_cells(cells: Integers, symbol: int, price_factor: int, size_factor: int) -> None:
    """Express prices and sizes of one symbol in finer units, in place."""
    columns = np.flatnonzero((cells[KEY] & SYMBOL_MASK == symbol) & (cells[TRADES] > 0))
    for name in (LOW, HIGH, OPEN, CLOSE):
        cells[name, columns] = scale_units(cells[name, columns], price_factor)
    for high, low in ((VOLUME_HIGH, VOLUME_LOW), (BUY_HIGH, BUY_LOW)):
        # The carry moves first: a long sum of low parts would overflow when multiplied.
        cells[high, columns] += cells[low, columns] >> LIMB_BITS
        cells[low, columns] &= _LIMB_MASK
        cells[high, columns] = scale_units(cells[high, columns], size_factor)
        cells[low, columns] = scale_units(cells[low, columns], size_factor)


def scale_units(units: Integers, factor: int | Integers) -> Integers:
    """Return `units * factor`; raises OverflowError where 64 bits cannot hold it."""
    largest = np.abs(units * np.asarray(factor, dtype=np.float64)).max(initial=0.0)
    if largest >= 2.0**63:
        msg = (
            f"units of a rescaled instrument; must fit into 64 bits; found {float(largest)!r};"
            " list the instrument with the decimals that its feed uses"
        )
        raise OverflowError(msg)
    return units * np.asarray(factor, dtype=np.int64)


def to_quantity(high: Integers, low: Integers, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums of sizes as floats: the nearest one for every sum below 2**53 units."""
    carried = high + (low >> LIMB_BITS)
    units = carried.astype(np.float64) * float(1 << LIMB_BITS) + (low & _LIMB_MASK)
    return np.asarray(units / scale, dtype=np.float64)


def _label(keys: Integers, open_ns: Integers, close_ns: Integers) -> Integers:
    cells = np.empty((FIELDS, keys.size), dtype=np.int64)
    cells[:] = _EMPTY[:, None]
    cells[KEY], cells[OPEN_NS], cells[CLOSE_NS] = keys, open_ns, close_ns
    return cells


def _find_starts(sorted_keys: Integers) -> NDArray[np.intp]:
    changed = np.empty(sorted_keys.size, dtype=np.bool_)
    changed[:1] = True
    np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=changed[1:])
    return np.flatnonzero(changed)


def _pick(
    values: Integers, extremes: Integers, owner: NDArray[np.intp], *, last: bool
) -> NDArray[np.intp]:
    """Return per group the position of the first or last value that equals its extreme."""
    hits = np.flatnonzero(values == extremes[owner])
    if not last:
        hits = hits[::-1]
    chosen = np.empty(extremes.size, dtype=np.intp)
    # Of several assignments to one place numpy keeps the last.
    chosen[owner[hits]] = hits
    return chosen
