"""Whether a voter's direction misleads: its lean between buy and sell against the moves that came.

A voter can know well *when* the market moves and say the wrong way each time; its score over three
classes then still beats the prior. So its direction is judged alone, on the labels that were a move.
Per move, a lean of p(buy | move) - p(sell | move) counts with the sign of the move: the mean is 0 for a
voter without any skill in direction, however strongly it leans, and -(2a - 1)^2 for a calibrated one
of a chance `a` to be right that is turned round.

The sum begins anew whenever it is no longer against the voter, so that no merit of old can hide what
turned (E. S. Page, "Continuous Inspection Schemes", Biometrika 41 (1954)); a slack per move keeps
chance from adding up however often it is looked at. Its error counts that the labels of neighbouring
closes share their bars (F. X. Diebold and R. S. Mariano, "Comparing Predictive Accuracy", JBES 13
(1995), with the weights of W. K. Newey and K. D. West, Econometrica 55 (1987)), and one close is one
observation: symbols move together.
"""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.labels import BUY, HOLD, SELL
from operators.vote.pooling import find_present
from operators.vote.track_record import SettledOpinions

FloatArray = npt.NDArray[np.float64]


class DirectionRecords(Struct):
    """Discounted sums per voter since the lean was last not against the moves; picklable."""

    sums: FloatArray
    """(3, voters): signed lean, moves, squared error of the signed lean."""
    tail: FloatArray
    """(horizon - 1, voters): discounted signed lean of the closes before, the newest first."""

    @classmethod
    def none(cls, voters: int, horizon_closes: int) -> "DirectionRecords":
        """Return the records of voters of which nothing is known."""
        return cls(np.zeros((3, voters)), np.zeros((horizon_closes - 1, voters)))

    def forget(self, voter: int) -> None:
        """Begin anew with one voter: other bytes answer now."""
        self.sums[:, voter] = self.tail[:, voter] = 0.0

    def learn(self, opinions: SettledOpinions, *, keep: float, slack: float) -> None:
        """Add one close; `keep` is what it leaves of the sums before it.

        `slack` is the mean lean against the moves, per move, that is let pass.
        """
        leans, moves = _find_signed_leans(opinions)
        self.sums *= np.array([keep, keep, keep**2])[:, None]
        self.tail *= keep
        lags = np.arange(1, len(self.tail) + 1)
        # Labels of closes `lag` apart share all but `lag` of their bars: Bartlett's weights.
        shared = 1.0 - lags / (len(self.tail) + 1)
        before = (shared[:, None] * self.tail).sum(axis=0)
        self.sums += np.stack([leans, moves, leans * (leans + 2.0 * before)])
        if len(self.tail):
            self.tail = np.concatenate([leans[None], self.tail[:-1]])
        cleared = self.sums[0] + slack * self.sums[1] >= 0.0
        self.sums[:, cleared] = self.tail[:, cleared] = 0.0

    @property
    def signed_leans(self) -> tuple[FloatArray, FloatArray]:
        """Mean lean per move with the sign of the move, and its standard error; NaN without cause."""
        total, moves, square = self.sums
        some = np.where(moves > 0.0, moves, np.nan)
        return total / some, np.sqrt(np.maximum(square, 0.0)) / some


def _find_signed_leans(opinions: SettledOpinions) -> tuple[FloatArray, FloatArray]:
    """Return per voter the sum of its signed leans over the labels that were a move, and their number."""
    said, moved = opinions.probabilities, opinions.labels != HOLD
    counted = find_present(said) & moved[:, None]
    lean, either = said[..., BUY] - said[..., SELL], said[..., BUY] + said[..., SELL]
    # A voter that gives a move no chance at all does not lean.
    sure = counted & (either > 0.0)
    share = np.where(sure, lean, 0.0) / np.where(sure, either, 1.0)
    signs = (opinions.labels - HOLD)[:, None]
    return (share * signs).sum(axis=0), counted.sum(axis=0).astype(np.float64)
