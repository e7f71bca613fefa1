"""Bars and late ticks, derived again from the accepted ticks with dictionaries and decimals.

The rules: the watermark of a partition is the largest event time seen less the lateness; a tick
before the watermark as it stood is late; a trade whose id was seen is a duplicate; what is left falls
into the bar whose `[open, close)` holds it; a bar counts once the watermark has reached its close.
"""

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from infra.audit.report import Check, Place
from infra.audit.sessions import ALWAYS_OPEN, Sessions
from infra.audit.ticks import ZERO, Market, Tick
from schemas.fields import Provenance
from schemas.ids import bar_id, tick_id
from schemas.market import BarClosed, InstrumentListed, TickLate
from schemas.settings import TIMEFRAME_NS
from schemas.ticks import KIND_HEARTBEAT, KIND_TRADE, PROVENANCE_CODES

NOTHING_SEEN_NS = -(2**62)
GAPS_MAX = 64
"""Open gaps of trade ids that the rule remembers: the highest ones."""

SPREAD_TOLERANCE_BPS = 1e-6
"""Spreads are stored as whole millionths of a basis point per quote."""

_SPREAD_FACTOR = Decimal(20_000)
_EXACT_SUM_MAX = Decimal(2**53)
BarKey = tuple[str, str, str, int]
"""Venue, symbol, timeframe, close."""

LateKey = tuple[int, int, int]
"""Partition, offset, line."""


class SeenIds:
    """Trade ids of one instrument that were seen: a high-water mark with gaps below it."""

    def __init__(self) -> None:
        self.highest = -1
        self.gaps: list[tuple[int, int]] = []

    def is_new(self, trade_id: int) -> bool:
        """Return whether `trade_id` was not seen, and remember it."""
        if trade_id > self.highest:
            self._add_gap(self.highest + 1, trade_id - 1)
            self.highest = trade_id
            return True
        for gap in self.gaps:
            if gap[0] <= trade_id <= gap[1]:
                self.gaps.remove(gap)
                self._add_gap(gap[0], trade_id - 1)
                self._add_gap(trade_id + 1, gap[1])
                return True
        return False

    def _add_gap(self, low: int, high: int) -> None:
        if low <= high:
            insort(self.gaps, (low, high))
            del self.gaps[:-GAPS_MAX]


class BarSum:
    """What the ticks of one interval add up to."""

    __slots__ = (
        "bought", "close", "close_ns", "duplicates", "first", "high", "last", "low", "open",
        "open_ns", "provenance", "quotes", "sided", "spread_bps", "time_first", "time_last",
        "trades", "volume",
    )  # fmt: skip

    def __init__(self, open_ns: int, close_ns: int) -> None:
        self.open_ns, self.close_ns = open_ns, close_ns
        self.trades = self.quotes = self.duplicates = 0
        self.volume = self.bought = self.spread_bps = ZERO
        self.open = self.high = self.low = self.close = ZERO
        self.sided = True
        self.time_first = self.time_last = 0
        self.first: tuple[int, int] | None = None
        self.last = (0, 0)
        self.provenance = len(PROVENANCE_CODES) - 1

    def add(self, tick: Tick) -> None:
        """Add an accepted trade or quote."""
        self.last = (tick.offset, tick.line)
        if self.first is None:
            self.first = self.last
        self.provenance = min(self.provenance, tick.provenance)
        if tick.kind != KIND_TRADE:
            self.quotes += 1
            self.spread_bps += (tick.ask - tick.bid) * _SPREAD_FACTOR / (tick.ask + tick.bid)
            return
        price, time_ns = tick.price, tick.time_ns
        if not self.trades:
            self.open = self.high = self.low = self.close = price
            self.time_first = self.time_last = time_ns
        else:
            if time_ns < self.time_first:
                self.open, self.time_first = price, time_ns
            if time_ns >= self.time_last:
                self.close, self.time_last = price, time_ns
            self.high = max(self.high, price)
            self.low = min(self.low, price)
        self.trades += 1
        self.volume += tick.size
        if tick.side == "buy":
            self.bought += tick.size
        elif not tick.side:
            self.sided = False


class PartitionBars:
    """Screens the ticks of one partition and adds them up."""

    def __init__(
        self,
        partition: int,
        timeframes: Iterable[str],
        lateness_ns: int,
        listings: dict[Market, InstrumentListed],
        sessions: Sessions,
    ) -> None:
        self.partition = partition
        self._timeframes = [(name, TIMEFRAME_NS[name]) for name in timeframes]
        self._lateness_ns = lateness_ns
        self._listings, self._sessions = listings, sessions
        self._newest_ns = NOTHING_SEEN_NS
        self._seen: dict[Market, SeenIds] = defaultdict(SeenIds)
        self._bars: dict[Market, dict[tuple[str, int], BarSum]] = defaultdict(dict)
        self._recent: dict[Market, tuple[int, int, list[BarSum]]] = {}
        self.late: dict[LateKey, TickLate] = {}

    @property
    def watermark_ns(self) -> int | None:
        """No accepted tick that follows is earlier; None before the first."""
        if self._newest_ns == NOTHING_SEEN_NS:
            return None
        return self._newest_ns - self._lateness_ns

    def add(self, tick: Tick) -> bool:
        """Add the next tick of the log; return whether it counts as a trade or quote of a bar."""
        watermark_ns = self._newest_ns - self._lateness_ns
        self._newest_ns = max(self._newest_ns, tick.time_ns)
        if tick.kind == KIND_HEARTBEAT:
            return False
        if tick.time_ns < watermark_ns:
            self._note_late(tick, watermark_ns)
            return False
        repeated = tick.trade_id >= 0 and not self._seen[tick.market].is_new(tick.trade_id)
        for bar in self._bars_of(tick):
            if repeated:
                bar.duplicates += 1
            else:
                bar.add(tick)
        return not repeated

    def _bars_of(self, tick: Tick) -> list[BarSum]:
        """Return the bars whose intervals hold `tick`; mostly those of the tick before."""
        recent = self._recent.get(tick.market)
        if recent is not None and recent[0] <= tick.time_ns < recent[1]:
            return recent[2]
        found = self._find_bars(tick)
        if len(found) == len(self._timeframes):
            from_ns = max(bar.open_ns for bar in found)
            until_ns = min(bar.close_ns for bar in found)
            self._recent[tick.market] = (from_ns, until_ns, found)
        return found

    def _find_bars(self, tick: Tick) -> list[BarSum]:
        bars, found = self._bars[tick.market], []
        for timeframe, length_ns in self._timeframes:
            open_ns = tick.time_ns - tick.time_ns % length_ns
            close_ns = open_ns + length_ns
            if timeframe == "1d":
                calendar = self._listings[tick.market].calendar
                if calendar != ALWAYS_OPEN:
                    session = self._sessions.find(calendar, tick.time_ns)
                    if session is None:
                        continue
                    open_ns, close_ns = session
            bar = bars.get((timeframe, open_ns))
            if bar is None:
                bar = bars[timeframe, open_ns] = BarSum(open_ns, close_ns)
            found.append(bar)
        return found

    def _note_late(self, tick: Tick, watermark_ns: int) -> None:
        place = (self.partition, tick.offset, tick.line)
        trade = tick.kind == KIND_TRADE
        self.late[place] = TickLate(
            id=f"late/{self.partition}/{tick.offset}/{tick.line}",
            cause=tick_id(*place),
            venue=tick.market[0],
            symbol=tick.market[1],
            event_time_ns=tick.time_ns,
            late_by_ns=watermark_ns - tick.time_ns,
            partition=self.partition,
            offset=tick.offset,
            line=tick.line,
            price=float(tick.price) if trade else None,
            size=float(tick.size) if trade else None,
            provenance=Provenance(PROVENANCE_CODES[tick.provenance]),
        )

    def closed(self) -> dict[BarKey, tuple[BarClosed, Decimal]]:
        """Return the bars that the watermark has closed, each with its exact volume."""
        found: dict[BarKey, tuple[BarClosed, Decimal]] = {}
        watermark_ns = self.watermark_ns
        for market, bars in self._bars.items():
            previous_ns: dict[str, int] = {}
            for timeframe, open_ns in sorted(bars):
                bar = bars[timeframe, open_ns]
                if not bar.trades or watermark_ns is None or bar.close_ns > watermark_ns:
                    continue
                gap = self._gap(market, timeframe, previous_ns.get(timeframe), open_ns)
                previous_ns[timeframe] = open_ns
                row = self._row(market, timeframe, bar, gap)
                found[row.venue, row.symbol, timeframe, row.close_time_ns] = (row, bar.volume)
        return found

    def _gap(self, market: Market, timeframe: str, previous_ns: int | None, open_ns: int) -> int:
        if previous_ns is None:
            return 0
        calendar = self._listings[market].calendar
        if timeframe == "1d" and calendar != ALWAYS_OPEN:
            return self._sessions.count_between(calendar, previous_ns, open_ns)
        return (open_ns - previous_ns) // TIMEFRAME_NS[timeframe] - 1

    def _row(self, market: Market, timeframe: str, bar: BarSum, gap: int) -> BarClosed:
        assert bar.first is not None
        return BarClosed(
            id=bar_id(*market, timeframe, bar.close_ns),
            cause=tick_id(self.partition, *bar.last),
            venue=market[0],
            symbol=market[1],
            timeframe=timeframe,
            open_time_ns=bar.open_ns,
            close_time_ns=bar.close_ns,
            open=float(bar.open),
            high=float(bar.high),
            low=float(bar.low),
            close=float(bar.close),
            volume=float(bar.volume),
            buy_volume=float(bar.bought) if bar.sided else None,
            trades=bar.trades,
            spread_bps_mean=float(bar.spread_bps / bar.quotes) if bar.quotes else None,
            gap_bars=gap,
            duplicates=bar.duplicates,
            partition=self.partition,
            first_offset=bar.first[0],
            first_line=bar.first[1],
            last_offset=bar.last[0],
            last_line=bar.last[1],
            provenance=Provenance(PROVENANCE_CODES[bar.provenance]),
        )


def compare_bars(
    check: Check,
    expected: dict[BarKey, tuple[BarClosed, Decimal]],
    found: dict[BarKey, tuple[Place, BarClosed]],
    partition: int,
) -> None:
    """Record every bar of a partition that is missing, surplus or different."""
    for key in sorted(expected.keys() | found.keys(), key=lambda key: (key[3], key)):
        check.rows += 1
        name = bar_id(*key)
        place, row = found.get(key, (Place(BarClosed.topic, partition, -1), None))
        if key not in expected:
            check.violate("a bar follows from the ticks", place, name, "no bar", row)
            continue
        wanted, volume = expected[key]
        if row is None:
            check.violate("the ticks make this bar", place, name, wanted, "no bar")
            continue
        for field in wanted.__struct_fields__:
            want, have = getattr(wanted, field), getattr(row, field)
            if want != have and not _close_enough(field, want, have, volume):
                check.violate(f"{field} of the bar follows from the ticks", place, name, want, have)


def _close_enough(field: str, want: object, have: object, volume: Decimal) -> bool:
    if not isinstance(want, float) or not isinstance(have, float):
        return False
    if field == "spread_bps_mean":
        return abs(want - have) <= SPREAD_TOLERANCE_BPS
    sign, digits, exponent = volume.as_tuple()
    del sign
    units = Decimal((0, digits, 0))
    # Sums beyond 2**53 of the last decimal have no exact float.
    beyond = units > _EXACT_SUM_MAX and isinstance(exponent, int)
    return field in {"volume", "buy_volume"} and beyond and math.isclose(want, have, rel_tol=1e-15)


def compare_late(
    check: Check,
    expected: dict[LateKey, TickLate],
    found: dict[LateKey, tuple[Place, TickLate]],
    partition: int,
) -> None:
    """Record every late tick of a partition that is missing, surplus or different."""
    for key in sorted(expected.keys() | found.keys()):
        check.rows += 1
        place, row = found.get(key, (Place(TickLate.topic, partition, -1), None))
        wanted = expected.get(key)
        if wanted != row:
            rule = "market.late holds the ticks behind the watermark, each once"
            check.violate(rule, place, tick_id(*key), wanted or "no late tick", row or "no record")
