"""What a voter says always is no opinion on this bar: its tilt to one direction.

A model that was trained on rising prices calls BUY a little too often ever after. As long as the
market is not known to have a direction of its own, the probability of a rise, given a move, ought to
be a half in the mean; where it is not, the intercept of the voter is wrong, which calibration in the
large takes off (D. R. Cox, "Two further applications of a model for binary regression", Biometrika 45
(1958), 562-565). What is left says that a rise is likelier than this voter usually thinks. How likely
a move is either way, and with it HOLD, stays as it was said.

The mean is of probabilities and not of their log-odds: a few opinions that are very sure must not
tilt all others.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.labels import order_rows
from operators.vote.pooling import PROBABILITY_MIN

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NEUTRAL_OPINIONS = 50.0
"""So many opinions without a direction are thought to have come before the first: one says little."""


class Tilts(Struct):
    """Discounted sums of how each voter splits a move; picklable, and continued bit for bit."""

    sums: FloatArray
    """(voters,): of the probabilities of a rise, given a move."""
    counts: FloatArray
    """(voters,): opinions behind the sums."""
    open: list[tuple[IntArray, FloatArray]]
    """Series and probabilities (rows, voters) of the newest close, which may still grow."""

    @classmethod
    def none(cls, voters: int) -> Self:
        """Return the tilts of voters that said nothing so far."""
        return cls(np.zeros(voters), np.zeros(voters), [])

    @property
    def in_nats(self) -> FloatArray:
        """Return the log-odds of each voter's mean (voters,) in nats; above zero it leans to BUY."""
        rises = self.sums + NEUTRAL_OPINIONS / 2.0
        falls = (self.counts - self.sums) + NEUTRAL_OPINIONS / 2.0
        return np.asarray(np.log(rises / falls), dtype=np.float64)

    def remember(self, codes: IntArray, said: FloatArray) -> None:
        """Keep what was said (rows, voters, 3; NaN: nothing) about some bars of the newest close."""
        self.open.append((codes, split_move(said)))

    def close(self, names: Sequence[tuple[str, str]], half_life_closes: float) -> None:
        """Count the newest close, which is complete; one so many closes before it counts half.

        `names` is by series: in whatever order the bars came in, they are added in the same one.
        """
        if not self.open:
            return
        codes = np.concatenate([each for each, _ in self.open])
        rises = np.concatenate([each for _, each in self.open])[order_rows(codes, names)]
        given, decay = np.isfinite(rises), 0.5 ** (1.0 / half_life_closes)
        self.sums = self.sums * decay + np.where(given, rises, 0.0).sum(axis=0)
        self.counts = self.counts * decay + given.sum(axis=0)
        self.open = []

    def forget(self, voter: int) -> None:
        """Begin anew with one voter: another version has a tilt of its own."""
        self.sums[voter] = self.counts[voter] = 0.0
        for _, rises in self.open:
            rises[:, voter] = np.nan


def split_move(said: FloatArray) -> FloatArray:
    """Return the probability of a rise, given a move, (...,) of distributions (..., 3)."""
    sell, buy = (np.maximum(said[..., place], PROBABILITY_MIN) for place in (0, 2))
    return np.asarray(buy / (buy + sell), dtype=np.float64)


def take_off(said: FloatArray, tilts: FloatArray) -> FloatArray:
    """Return distributions (..., 3) with `tilts` (broadcast to ...) taken off their log-odds."""
    # In single precision a sum may exceed 1; what exceeds it is no probability, and so no opinion.
    move = np.minimum(said[..., 0] + said[..., 2], 1.0)
    # Odds times exp(-tilt), written so that nothing is divided by a probability of zero.
    rise, fall = said[..., 2], said[..., 0] * np.exp(tilts)
    either = rise + fall
    # Nor may rounding take more than there is.
    buy = np.minimum(move * rise / np.where(either > 0.0, either, 1.0), move)
    # Where nothing is taken off every bit stays as it was said.
    kept = (tilts == 0.0) | np.isnan(move)
    found = said.copy()
    found[..., 0] = np.where(kept, said[..., 0], move - buy)
    found[..., 2] = np.where(kept, said[..., 2], buy)
    return found
