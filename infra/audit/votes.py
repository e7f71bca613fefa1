"""The vote behind every signal, counted again from what the signal itself records."""

from collections.abc import Sequence
from math import exp, fsum, isfinite, log

from infra.audit.report import Check, Place
from schemas.fields import Stance
from schemas.signals import SignalEmitted, Vote

SUM_TOLERANCE = 1e-3
"""How far the probabilities of a model in single precision may miss one."""

PROBABILITY_MIN = 1e-4
"""Least probability that a pool counts: no model can veto a class."""
SCORE_MAX = 0.95
"""No agreement makes an opinion surer than this."""

SCORE_TOLERANCE = 1e-9

Distribution = tuple[float, float, float]
"""Probabilities of sell, hold and buy."""


def pool(voting: Sequence[Vote]) -> Distribution | None:
    """Return the pool of the votes that count, None if there are none.

    Each probability is the product of those of the votes, each to the power of its weight, divided
    by the sum over the three classes: a weighted mean of log-odds.
    """
    if not voting:
        return None
    said = [(v.probability_sell, v.probability_hold, v.probability_buy) for v in voting]
    raw = [
        exp(
            fsum(
                vote.weight * log(max(each[place] or 0.0, PROBABILITY_MIN))
                for vote, each in zip(voting, said, strict=True)
            )
        )
        for place in range(3)
    ]
    total = fsum(raw)
    return raw[0] / total, raw[1] / total, raw[2] / total


def count_score(pooled: Distribution | None, multiplier: float | None) -> float:
    """Return buy less sell of a pool times the multiplier of its agreement; 0 without a pool."""
    if pooled is None or multiplier is None:
        return 0.0
    return min(max((pooled[2] - pooled[0]) * multiplier, -SCORE_MAX), SCORE_MAX)


class VoteAudit:
    """Looks at the votes of every signal."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def see(self, place: Place, signal: SignalEmitted) -> None:
        """Check each vote, then what they add up to."""
        self._check.rows += 1
        names = [vote.voter for vote in signal.votes]
        if len(set(names)) < len(names):
            rule = "a voter votes once on a bar"
            self._check.violate(rule, place, signal.id, sorted(set(names)), names)
        for vote in signal.votes:
            self._check_vote(place, f"{signal.id}/{vote.voter}", vote)
        voting = [vote for vote in signal.votes if vote.weight > 0]
        total = fsum(vote.weight for vote in voting)
        if voting and not abs(total - 1.0) <= SCORE_TOLERANCE:
            rule = "weights are shares of one vote: they sum to one"
            self._check.violate(rule, place, signal.id, 1.0, total)
        self._check_pool(place, signal, pool(voting))

    def _check_pool(self, place: Place, signal: SignalEmitted, pooled: Distribution | None) -> None:
        found = (signal.probability_sell, signal.probability_hold, signal.probability_buy)
        expected = (None, None, None) if pooled is None else pooled
        if not all(alike(a, b, SCORE_TOLERANCE) for a, b in zip(expected, found, strict=True)):
            rule = "the pooled probabilities follow from the votes and their weights"
            self._check.violate(rule, place, signal.id, expected, found)
        score = count_score(pooled, signal.multiplier)
        if not abs(score - signal.score) <= SCORE_TOLERANCE:
            rule = "the score follows from the votes and their weights"
            self._check.violate(rule, place, signal.id, score, signal.score)

    def _check_vote(self, place: Place, key: str, vote: Vote) -> None:
        said = (vote.probability_sell, vote.probability_hold, vote.probability_buy)
        if vote.stance is Stance.ABSTAIN:
            expected = (0.0, (None, None, None))
            rule = "who abstains has no weight and says nothing"
            self._check.require(rule, place, key, expected, (vote.weight, said))
            return
        if not (isfinite(vote.weight) and vote.weight >= 0):
            rule = "weights are shares of one vote: none is negative"
            self._check.violate(rule, place, key, "at least 0", vote.weight)
        if vote.kind == "rule" and vote.weight:
            rule = "a rule proposes and does not vote: its weight is zero"
            self._check.violate(rule, place, key, 0.0, vote.weight)
        known = [each for each in said if each is not None and 0 <= each <= 1]
        if len(known) < len(said) or not abs(fsum(known) - 1) <= SUM_TOLERANCE:
            rule = "who votes gives three probabilities that sum to one"
            self._check.violate(rule, place, key, "a distribution", said)


def alike(expected: float | None, found: float | None, tolerance: float) -> bool:
    """Return whether both are unknown, or both known and no further apart than `tolerance`."""
    if expected is None or found is None:
        return expected is found
    return abs(expected - found) <= tolerance
