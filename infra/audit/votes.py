"""The vote behind every signal, counted again from what the signal itself records."""

from collections.abc import Sequence
from math import fsum, isfinite

from infra.audit.report import Check, Place
from schemas.fields import Stance
from schemas.signals import SignalEmitted, Vote

SUM_TOLERANCE = 1e-3
"""How far the probabilities of a model in single precision may miss one."""

SCORE_TOLERANCE = 1e-12


def count_score(voting: Sequence[Vote]) -> float | None:
    """Return the score of the votes that did not abstain, None if none has a weight.

    The mean of `probability_buy - probability_sell`, each with its share of all weights: the shares
    lie on the simplex.
    """
    total = fsum(vote.weight for vote in voting)
    if not total > 0:
        return None
    return fsum(
        vote.weight / total * ((vote.probability_buy or 0.0) - (vote.probability_sell or 0.0))
        for vote in voting
    )


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
        voting = [
            vote
            for vote in signal.votes
            if vote.stance is not Stance.ABSTAIN and vote.role == "active"
        ]
        score = count_score(voting)
        if score is None:
            rule = "weights are shares of one vote: some weight is positive"
            weights = [vote.weight for vote in voting]
            self._check.violate(rule, place, signal.id, "a positive weight", weights)
        elif not abs(score - signal.score) <= SCORE_TOLERANCE:
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
        known = [each for each in said if each is not None and 0 <= each <= 1]
        if len(known) < len(said) or not abs(fsum(known) - 1) <= SUM_TOLERANCE:
            rule = "who votes gives three probabilities that sum to one"
            self._check.violate(rule, place, key, "a distribution", said)
