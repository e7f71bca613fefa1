"""What was taken off each voter, counted again from what it said on the bars before.

A record keeps what counted and what was taken off, both rounded; together they give what was said, up
to an error that is carried along, so that only what no rounding explains is a violation.
"""

from math import exp, log

from msgspec import Struct

from infra.audit.ballots import Terms
from infra.audit.pooling import HALF_STEP
from infra.audit.report import Check, Place
from infra.audit.serving import ModelHistory
from infra.audit.votes import PROBABILITY_MIN
from schemas.opinions import OpinionPooled

_NEUTRAL_OPINIONS = 50.0
"""Opinions without a direction that count as said before the first."""
_SLACK = 1e-6


class _Voter(Struct):
    """Discounted sums of what one voter said in one lane."""

    rises: float = 0.0
    errors: float = 0.0
    count: float = 0.0
    version: tuple[str, str] = ("", "")
    open: list[tuple[float, float]] = []
    """Rise, and how far rounding may have moved it, by bar of the newest close."""

    def fold(self, decay: float) -> None:
        self.rises = self.rises * decay + sum(rise for rise, _ in self.open)
        self.errors = self.errors * decay + sum(error for _, error in self.open)
        self.count = self.count * decay + len(self.open)
        self.open = []

    def bounds(self) -> tuple[float, float]:
        """Return the least and greatest tilt in nats."""
        total = self.count + _NEUTRAL_OPINIONS
        mean = (self.rises + _NEUTRAL_OPINIONS / 2.0) / total
        error = self.errors / total + _SLACK
        low, high = max(mean - error, _SLACK), min(mean + error, 1.0 - _SLACK)
        return log(low / (1.0 - low)) - HALF_STEP, log(high / (1.0 - high)) + HALF_STEP


class _Lane(Struct):
    council: str
    time_ns: int = -1
    voters: dict[str, _Voter] = {}
    known: bool = True
    """Whether all that its panel remembers is in the log, under the settings of now."""


class TiltAudit:
    """Looks at the opinions of each partition, in the order of the log."""

    def __init__(self, check: Check, history: ModelHistory) -> None:
        self._check, self._history = check, history
        self._lanes: dict[int, _Lane] = {}

    def see(self, place: Place, one: OpinionPooled, partition: int, terms: Terms) -> None:
        """Check what was taken off; `place` is that of the record, its lists are complete."""
        lane = self._lanes.setdefault(partition, _Lane(council=terms.council))
        if lane.council != terms.council and lane.known:
            lane.known = False
            self._check.skip("tilts behind a change of models or vote were not counted again")
        half_life = terms.vote.tilt_half_life_bars
        if one.event_time_ns > lane.time_ns:
            for voter in lane.voters.values():
                voter.fold(0.5 ** (1.0 / half_life) if half_life else 0.0)
            lane.time_ns = one.event_time_ns
        rows = zip(one.voters, one.sell, one.buy, one.tilts, one.raw_stances, strict=True)
        for name, sell, buy, tilt, raw in rows:
            key = f"{one.id}/{name}"
            if sell is None or buy is None or tilt is None:
                rule = "nothing is taken off who abstains"
                expected, found = (None, None, None, "abstain"), (sell, buy, tilt, raw)
                self._check.require(rule, place, key, expected, found)
                continue
            voter = lane.voters.setdefault(name, _Voter())
            self._begin_anew(voter, partition, terms.registry.get(name), one.event_time_ns)
            low, high = voter.bounds()
            if lane.known and not low <= tilt <= high:
                rule = "what is taken off a voter follows from what it said before"
                self._check.violate(rule, place, key, (round(low, 4), round(high, 4)), tilt)
            rise, error = _undo(sell, buy, tilt)
            allowed = {"hold"}
            if rise >= 0.5 - error:
                allowed.add("buy")
            if rise <= 0.5 + error:
                allowed.add("sell")
            if raw not in allowed:
                rule = "a raw stance is the greater of buy and sell as they were said, or hold"
                self._check.violate(rule, place, key, sorted(allowed), raw)
            if half_life:
                voter.open.append((rise, error))

    def _begin_anew(self, voter: _Voter, partition: int, model: str | None, time_ns: int) -> None:
        """Forget what another version of a served model said."""
        if model is None:
            return
        version = self._history.version(partition, model, time_ns)
        if version != voter.version:
            voter.version = version
            voter.rises = voter.errors = voter.count = 0.0
            voter.open = []


def _undo(sell: float, buy: float, tilt: float) -> tuple[float, float]:
    """Return the probability of a rise, given a move, as it was said, and its error by rounding."""
    move = max(sell + buy, 2.0 * PROBABILITY_MIN)
    step = HALF_STEP
    if min(sell, buy) <= PROBABILITY_MIN + HALF_STEP:
        # Counted as a little more than it was said; how much more, the tilt hides.
        step += PROBABILITY_MIN
    error = min(step / move * exp(abs(tilt)) + HALF_STEP, 1.0)
    sell, buy = max(sell, PROBABILITY_MIN), max(buy, PROBABILITY_MIN)
    odds = buy / sell * exp(tilt)
    return odds / (1.0 + odds), error
