"""Accepted trades and quotes of every market, kept small, for what a price was at a moment."""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infra.audit.ticks import Market, Tick, exact
from schemas.ticks import KIND_TRADE


class Print(NamedTuple):
    """One trade of a market."""

    time_ns: int
    price: Decimal
    size: Decimal
    provenance: int
    """Index into `PROVENANCE_CODES`: the smaller, the less it is worth."""
    spread: Decimal | None
    """Bid to ask in the newest quote up to the trade, None before the first."""


class _Rows:
    """Rows of two numbers in event-time order; of one moment in log order."""

    def __init__(self) -> None:
        self.times, self.order = array("q"), array("q")
        self.first, self.second = array("d"), array("d")
        self.provenances = array("b")
        self._sorted = True

    def add(self, time_ns: int, order: int, first: float, second: float, provenance: int) -> None:
        self._sorted = self._sorted and (not self.times or time_ns >= self.times[-1])
        self.times.append(time_ns)
        self.order.append(order)
        self.first.append(first)
        self.second.append(second)
        self.provenances.append(provenance)

    def settle(self) -> "_Rows":
        """Put late arrivals where they belong."""
        if not self._sorted:
            order = np.argsort(np.frombuffer(self.times, dtype=np.int64), kind="stable")
            for name in ("times", "order", "first", "second", "provenances"):
                column = getattr(self, name)
                rows = np.frombuffer(column, dtype=np.dtype(column.typecode))[order]
                setattr(self, name, array(column.typecode, rows.tobytes()))
            self._sorted = True
        return self


class TradePrices:
    """What traded, and what was quoted, in every market."""

    def __init__(self) -> None:
        self._trades: dict[Market, _Rows] = defaultdict(_Rows)
        self._quotes: dict[Market, _Rows] = defaultdict(_Rows)
        self._added = 0

    def add(self, tick: Tick) -> None:
        """Remember an accepted trade or quote; ticks come in log order."""
        self._added += 1
        trade = tick.kind == KIND_TRADE
        rows = (self._trades if trade else self._quotes)[tick.market]
        first, second = (tick.price, tick.size) if trade else (tick.bid, tick.ask)
        rows.add(tick.time_ns, self._added, float(first), float(second), tick.provenance)

    def load(
        self,
        market: Market,
        times_ns: npt.NDArray[np.int64],
        prices: npt.NDArray[np.float64],
        sizes: npt.NDArray[np.float64],
        provenance: int,
    ) -> None:
        """Remember the trades of a market without quotes, in event-time order."""
        rows = self._trades[market]
        rows.times.frombytes(times_ns.tobytes())
        rows.order.frombytes(np.arange(len(times_ns), dtype=np.int64).tobytes())
        rows.first.frombytes(prices.tobytes())
        rows.second.frombytes(sizes.tobytes())
        rows.provenances.frombytes(np.full(len(times_ns), provenance, dtype=np.int8).tobytes())

    def before(self, market: Market, time_ns: int) -> Decimal | None:
        """Return the price of the newest trade before `time_ns`, None if there was none."""
        trades = self._trades[market].settle()
        index = bisect_left(trades.times, time_ns) - 1
        return exact(trades.first[index]) if index >= 0 else None

    def at(self, market: Market, time_ns: int) -> list[tuple[Print | None, Print]]:
        """Return the trades at `time_ns`, each after the trade before it."""
        trades = self._trades[market].settle()
        from_row = bisect_left(trades.times, time_ns)
        until_row = bisect_right(trades.times, time_ns)
        return [
            (self._print(market, row - 1) if row else None, self._print(market, row))
            for row in range(from_row, until_row)
        ]

    def lowest_between(self, market: Market, after_ns: int, before_ns: int) -> Decimal | None:
        """Return the lowest price of the trades within both times, None if there was none."""
        trades = self._trades[market].settle()
        found = trades.first[
            bisect_right(trades.times, after_ns) : bisect_left(trades.times, before_ns)
        ]
        return exact(min(found)) if found else None

    def _print(self, market: Market, row: int) -> Print:
        trades = self._trades[market]
        return Print(
            trades.times[row],
            exact(trades.first[row]),
            exact(trades.second[row]),
            trades.provenances[row],
            self._spread(market, trades.times[row], trades.order[row]),
        )

    def _spread(self, market: Market, time_ns: int, order: int) -> Decimal | None:
        if market not in self._quotes:
            return None
        quotes = self._quotes[market].settle()
        row = bisect_right(quotes.times, time_ns) - 1
        while row >= 0 and quotes.times[row] == time_ns and quotes.order[row] > order:
            row -= 1
        return exact(quotes.second[row]) - exact(quotes.first[row]) if row >= 0 else None
