"""The vote on every bar, counted again from the record of it as far as its rounding allows.

A record keeps four decimals, so what follows from its parts is an interval: the pool of the parts is
computed for the least and the greatest values that round to what is written.
"""

from collections.abc import Sequence
from math import exp, fsum, log

from infra.audit.report import Check, Place
from infra.audit.votes import PROBABILITY_MIN
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted

HALF_STEP = 0.5e-4 + 1e-9
"""How far a number may be from the one that it was rounded from."""
HOLD_STEP = 2 * HALF_STEP + 1e-6
"""The same for HOLD, which is what two rounded numbers in single precision leave."""

STANCES = frozenset({"sell", "hold", "buy", "abstain"})
AGREEMENTS = frozenset({"", "unanimous", "strong", "split", "weak"})

Bounds = tuple[float, float]


class OpinionAudit:
    """Looks at every opinion, then at the signals on the same bars."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._pooled: dict[str, tuple[float | None, float | None]] = {}
        """Pooled probabilities of sell and buy by bar."""
        self._first_ns: dict[str, int] = {}
        """Close of the first bar with an opinion by timeframe."""

    def see(self, place: Place, one: OpinionPooled) -> None:
        """Check the parts, then what was made of them."""
        self._check.rows += 1
        self._pooled[one.bar_id] = (one.pooled_sell, one.pooled_buy)
        first_ns = self._first_ns.setdefault(one.timeframe, one.event_time_ns)
        self._first_ns[one.timeframe] = min(first_ns, one.event_time_ns)
        lists = (one.voters, one.sell, one.buy, one.stances, one.weights)
        lengths = sorted({len(each) for each in lists})
        if lengths != [len(set(one.voters))]:
            rule = "every voter of an opinion has one entry in each list"
            self._check.violate(rule, place, one.id, len(set(one.voters)), lengths)
            return
        for row in zip(*lists, strict=True):
            self._check_voter(place, f"{one.id}/{row[0]}", *row[1:])
        self._check_weights(place, one)
        self._check_pool(place, one)
        self._check_decision(place, one)

    def see_signal(self, place: Place, signal: SignalEmitted) -> None:
        """Hold a signal's pool against the opinion on its bar; opinions were read before."""
        first_ns = self._first_ns.get(signal.timeframe)
        voted = signal.probability_buy is not None
        if first_ns is None or signal.event_time_ns < first_ns or not voted:
            return
        found = (signal.probability_sell, signal.probability_buy)
        expected = self._pooled.get(signal.bar_id)
        if expected is None or not all(_near(a, b) for a, b in zip(expected, found, strict=True)):
            rule = "a signal carries the pooled opinion on its bar"
            self._check.violate(rule, place, signal.id, expected, found)

    def _check_voter(
        self,
        place: Place,
        key: str,
        sell: float | None,
        buy: float | None,
        stance: str,
        weight: float,
    ) -> None:
        if stance == "abstain" or sell is None or buy is None:
            rule = "who abstains has no weight and says nothing"
            expected = (None, None, "abstain", 0.0)
            self._check.require(rule, place, key, expected, (sell, buy, stance, weight))
        elif not (sell >= 0 and buy >= 0 and sell + buy <= 1 + HOLD_STEP and stance in STANCES):
            rule = "who votes gives a distribution and a stance"
            self._check.violate(rule, place, key, "a distribution", (sell, buy, stance))

    def _check_weights(self, place: Place, one: OpinionPooled) -> None:
        total, count = fsum(one.weights), sum(weight > 0 for weight in one.weights)
        expected = 1.0 if count else 0.0
        whole = abs(total - expected) <= count * HALF_STEP
        if not (whole and all(weight >= 0 for weight in one.weights)):
            rule = "the weights of an opinion are shares of one vote: they sum to one"
            self._check.violate(rule, place, one.id, expected, total)

    def _check_pool(self, place: Place, one: OpinionPooled) -> None:
        voting = [place for place, weight in enumerate(one.weights) if weight > 0]
        found = (one.pooled_sell, one.pooled_buy)
        if not voting or None in found:
            rule = "there is a pooled opinion if and only if a voter has a weight"
            self._check.require(rule, place, one.id, bool(voting), None not in found)
            return
        sells, buys = ([part[i] or 0.0 for i in voting] for part in (one.sell, one.buy))
        weights = [one.weights[i] for i in voting]
        low_sell, high_sell, low_buy, high_buy = pool_bounds(sells, buys, weights)
        for name, value, low, high in (
            ("sell", one.pooled_sell, low_sell, high_sell),
            ("buy", one.pooled_buy, low_buy, high_buy),
        ):
            assert value is not None
            if not low - HALF_STEP <= value <= high + HALF_STEP:
                rule = f"the pooled probability of {name} follows from the parts"
                self._check.violate(rule, place, one.id, (round(low, 4), round(high, 4)), value)

    def _check_decision(self, place: Place, one: OpinionPooled) -> None:
        spoken, edge_bps = one.pooled_buy is not None, one.edge_bps
        if one.agreement not in AGREEMENTS or one.pooled_stance not in STANCES:
            rule = "an opinion names a known agreement and stance"
            found = (one.agreement, one.pooled_stance)
            self._check.violate(rule, place, one.id, "known names", found)
        if not spoken:
            allowed = {"abstain"}
        elif edge_bps is None or edge_bps < one.threshold_bps - HALF_STEP:
            allowed = {"hold"}
        elif edge_bps > one.threshold_bps + HALF_STEP:
            allowed = {"sell", "buy"}
        else:
            allowed = {"sell", "hold", "buy"}
        if one.decided_stance not in allowed:
            rule = "what is decided follows from the edge and the threshold"
            self._check.violate(rule, place, one.id, sorted(allowed), one.decided_stance)


def pool_bounds(
    sells: Sequence[float], buys: Sequence[float], weights: Sequence[float]
) -> tuple[float, float, float, float]:
    """Return the least and greatest pooled sell, then buy, of voters that were rounded.

    The pool is that of `infra.audit.votes.pool`; all sequences are by voter.
    """
    raw: list[Bounds] = []
    holds = [max(1.0 - sell - buy, 0.0) for sell, buy in zip(sells, buys, strict=True)]
    for said, step in ((sells, HALF_STEP), (holds, HOLD_STEP), (buys, HALF_STEP)):
        low = high = 0.0
        for value, weight in zip(said, weights, strict=True):
            logs = [log(max(value + way * step, PROBABILITY_MIN)) for way in (-1, 1)]
            # Logarithms are negative: the greater weight makes the sum less.
            low += (weight + HALF_STEP) * min(logs[0], 0.0)
            high += max(weight - HALF_STEP, 0.0) * min(logs[1], 0.0)
        raw.append((exp(low), exp(high)))
    (sell_low, sell_high), (hold_low, hold_high), (buy_low, buy_high) = raw
    return (
        sell_low / (sell_low + hold_high + buy_high),
        sell_high / (sell_high + hold_low + buy_low),
        buy_low / (buy_low + hold_high + sell_high),
        buy_high / (buy_high + hold_low + sell_low),
    )


def _near(rounded: float | None, exact: float | None) -> bool:
    if rounded is None or exact is None:
        return rounded is exact
    return abs(rounded - exact) <= HALF_STEP
