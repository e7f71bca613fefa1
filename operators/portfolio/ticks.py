"""Ticks of one symbol between their arrival and the moment the account has passed them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.int64]
"""Rows: event time, price units, size units, provenance code, spread units; a column per tick.

A quote has price 0 and its spread; a trade that has not met a quote yet has spread -1.
"""

TIME, PRICE, SIZE, PROVENANCE, SPREAD = range(5)
IDLE_ROWS_MAX = 8_192
"""A symbol that nobody looks at is tidied after this many rows."""

_EMPTY = np.empty((5, 0), dtype=np.int64)


class Trade(NamedTuple):
    """One trade tick; units are the instrument's last decimals."""

    time_ns: int
    price_units: int
    size_units: int
    provenance: int
    spread_units: int
    """Bid to ask in the newest quote up to the trade, -1 if there was none."""


class TickTape:
    """Arrived ticks, of which those before a horizon are ready in event-time order.

    `settle` makes ticks ready, `consume` forgets them but for the newest trade and quote.
    """

    def __init__(self) -> None:
        self._waiting: list[Block] = []
        self._ready = _EMPTY
        self._settled_ns = -1
        self._spread = -1
        self.last: Trade | None = None
        """Newest trade before the ready ones."""
        self.rows = 0

    def append(self, block: Block) -> None:
        """Add ticks in log order."""
        self._waiting.append(block)
        self.rows += block.shape[1]

    def settle(self, horizon_ns: int) -> bool:
        """Make every tick before `horizon_ns` ready; return whether the ready ticks changed.

        Only later ticks may arrive afterwards, so the order of ready ticks is final. Ticks with
        the same event time stay in log order.
        """
        if not self._waiting or horizon_ns <= self._settled_ns:
            return False
        self._settled_ns = horizon_ns
        block = self._waiting[0] if len(self._waiting) == 1 else np.hstack(self._waiting)
        times = block[TIME]
        if np.any(times[1:] < times[:-1]):
            block = block[:, np.argsort(times, kind="stable")]
            times = block[TIME]
        cut = int(times.searchsorted(horizon_ns))
        self._waiting = [block[:, cut:]] if cut < block.shape[1] else []
        if not cut:
            return False
        fresh = self._trades(block[:, :cut])
        self._ready = np.hstack([self._ready, fresh]) if self._ready.shape[1] else fresh
        return True

    def consume(self) -> None:
        """Forget the ready ticks but for what the newest of them says."""
        count = self._ready.shape[1]
        if count:
            self.last = self.trade(count - 1)
            self._ready = _EMPTY
        # A view would keep the whole block of consumed ticks alive.
        self._waiting = [block if block.base is None else block.copy() for block in self._waiting]
        self.rows = sum(block.shape[1] for block in self._waiting)

    def _trades(self, block: Block) -> Block:
        """Return the trades of a sorted block, each with the spread of the newest quote."""
        quotes = block[PRICE] == 0
        if not quotes.any():
            block[SPREAD] = self._spread
            return block
        newest = np.maximum.accumulate(np.where(quotes, np.arange(quotes.size), -1))
        spreads = np.where(newest >= 0, block[SPREAD, newest], self._spread)
        self._spread = int(spreads[-1])
        block[SPREAD] = spreads
        return np.ascontiguousarray(block[:, ~quotes])

    @property
    def times(self) -> Block:
        """Event times of the ready trades."""
        row: Block = self._ready[TIME]
        return row

    @property
    def prices(self) -> Block:
        """Prices of the ready trades in units."""
        row: Block = self._ready[PRICE]
        return row

    @property
    def sizes(self) -> Block:
        """Sizes of the ready trades in units."""
        row: Block = self._ready[SIZE]
        return row

    def trade(self, index: int) -> Trade:
        """Return the ready trade at `index`; -1 is the one before the first."""
        if index < 0:
            assert self.last is not None
            return self.last
        return Trade(*self._ready[:, index].tolist())

    def index_at(self, time_ns: int) -> int:
        """Return how many ready trades are earlier than `time_ns`."""
        return int(self._ready[TIME].searchsorted(time_ns))

    def before(self, time_ns: int) -> Trade | None:
        """Return the newest trade earlier than `time_ns`, None if there was none."""
        index = self.index_at(time_ns) - 1
        return self.last if index < 0 else self.trade(index)

    def price_before(self, time_ns: int) -> int | None:
        """Return the price units of the newest trade earlier than `time_ns`, None without one."""
        if self._ready.shape[1]:
            index = int(self._ready[TIME].searchsorted(time_ns)) - 1
            if index >= 0:
                return int(self._ready[PRICE, index])
        return None if self.last is None else self.last.price_units

    def previous(self, index: int) -> Trade | None:
        """Return the trade before the ready one at `index`, None if there was none."""
        return self.trade(index - 1) if index > 0 else self.last
