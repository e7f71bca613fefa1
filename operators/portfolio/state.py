"""What an account remembers: ledger, legs, worth, limits' memory and the inputs still to come."""

from collections import deque
from decimal import Decimal

import numpy as np

from operators.portfolio.ledger import Ledger, LegKey
from operators.portfolio.legs import Leg
from operators.portfolio.paper_venue import PaperVenue
from operators.portfolio.records import AccountMark, Recorder
from operators.portfolio.tick_scan import NEVER_NS, find_event
from operators.portfolio.ticks import TickTape
from operators.portfolio.timeline import Horizon, Market, Timeline

MINUTE_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000


class AccountState:
    """State of one account, shared by the parts of the portfolio; survives pickling."""

    def __init__(
        self, recorder: Recorder, timeline: Timeline, venue: PaperVenue, starting_cash: Decimal
    ) -> None:
        self.recorder = recorder
        self.timeline = timeline
        self.venue = venue
        self.ledger = Ledger(starting_cash)
        self.legs: dict[LegKey, Leg] = {}
        self.halted = False
        self.horizon = Horizon(-1, -1)
        self.peak_equity = starting_cash
        self.day_start_equity = starting_cash
        self.legs_changed = True
        """Whether the next event of some leg must be found again."""
        self._day = -1
        self._orders_sent_ns: deque[int] = deque()
        self._exposed: tuple[tuple[object, ...], Decimal] | None = None
        """The newest answer of `_exposure` and what it was asked: a close asks once per signal."""

    def tape(self, leg: Leg) -> TickTape:
        """Return the ticks of a leg's symbol."""
        tape = self.timeline.tape(leg.market, self.horizon)
        assert tape is not None
        return tape

    def mark(
        self, time_ns: int, market: Market | None = None, price_units: int | None = None
    ) -> AccountMark:
        """Return the account's worth at the last prices before `time_ns`, and keep the peak.

        The symbol `market` is valued at `price_units` instead: the tick that is being processed.
        """
        exposure = self._exposure(time_ns, market, price_units)
        equity = self.ledger.cash + exposure
        self.peak_equity = max(self.peak_equity, equity)
        return AccountMark(self.ledger.cash, equity, exposure, self.peak_equity)

    def roll_day(self, time_ns: int) -> None:
        """Remember the equity at the start of the UTC day of `time_ns`."""
        day = time_ns // DAY_NS
        if day > self._day:
            self._day = day
            self.day_start_equity = self.ledger.cash + self._exposure(day * DAY_NS)

    def note_order(self, time_ns: int) -> None:
        """Count an order that was sent."""
        self._orders_sent_ns.append(time_ns)
        self.orders_in_last_minute(time_ns)

    def orders_in_last_minute(self, time_ns: int) -> int:
        """Return how many orders were sent in the 60 s up to `time_ns`."""
        sent = self._orders_sent_ns
        while sent and sent[0] <= time_ns - MINUTE_NS:
            sent.popleft()
        return len(sent)

    def see_ticks(self, leg: Leg, index: int) -> None:
        """Let a leg's best price take in the ready ticks before `index`."""
        if index > leg.cursor:
            if leg.quantity:
                newest = self.tape(leg).prices[leg.cursor : index]
                leg.best_units = max(leg.best_units, int(np.max(newest)))
            leg.cursor = index

    def find_leg_event(self, leg: Leg) -> None:
        """Find the next ready tick on which one of a leg's orders can act."""
        tape = self.tape(leg)
        target = leg.target
        leg.event_index = find_event(
            tape.times,
            tape.prices,
            tape.sizes,
            leg.cursor,
            self.venue.size_min(leg.rules),
            leg.market_after_ns,
            leg.stop_after_ns,
            leg.stop_units,
            leg.trail_units,
            leg.best_units,
            leg.target_after_ns,
            NEVER_NS if target is None or target.limit_units is None else target.limit_units,
        )
        self.legs_changed = True

    def _exposure(
        self, time_ns: int, market: Market | None = None, price_units: int | None = None
    ) -> Decimal:
        """Return what the positions are worth: whole units are summed, so nothing is rounded twice."""
        asked = (time_ns, market, price_units, self.horizon, self.ledger.fills)
        if self._exposed is not None and self._exposed[0] == asked:
            return self._exposed[1]
        totals: dict[int, int] = {}
        for leg in self.legs.values():
            if leg.quantity:
                units = price_units if leg.market == market else None
                if units is None:
                    units = self.tape(leg).price_before(time_ns)
                    assert units is not None
                places, worth = leg.rules.worth(leg.quantity, units)
                totals[places] = totals.get(places, 0) + worth
        exposure = Decimal(0)
        for places, worth in totals.items():
            exposure += Decimal(worth).scaleb(-places)
        self._exposed = (asked, exposure)
        return exposure
