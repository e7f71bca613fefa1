"""How far the voters agree on a direction, and how much such agreement has been worth so far.

The direction is that of the pooled opinion, never a count of heads: three voters that hold and one
that buys are a pool that leans to buy. Agreement only says how much of the weight leans that way.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.labels import HOLD

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Agreement(StrEnum):
    """Share of the weight that leans in the pooled direction."""

    UNANIMOUS = "unanimous"
    """All of it."""
    STRONG = "strong"
    """At least three quarters."""
    SPLIT = "split"
    """At least a half."""
    WEAK = "weak"
    """Less than a half."""


CLASSES = tuple(Agreement)
"""Order of the codes of `classify`."""

NO_CLASS = -1
STRONG_MIN, SPLIT_MIN = 0.75, 0.5
CONFIDENCE_MAX = 0.95
"""No agreement makes an opinion surer than this."""
MULTIPLIER_STEP = 0.02
MULTIPLIER_MIN, MULTIPLIER_MAX = 0.5, 1.5
"""An agreement class can at most halve an opinion or add a half to it."""

_TOLERANCE = 1e-9


def find_leans(probabilities: FloatArray, lean_min: float) -> IntArray:
    """Return -1 (sell), 0 or 1 (buy) for each of `probabilities` (..., 3); 0 where they are NaN.

    A lean is a difference of buy and sell of at least `lean_min`, so a voter without a view of the
    direction, be it a firm HOLD or a class prior, agrees with nobody.
    """
    lean = probabilities[..., 2] - probabilities[..., 0]
    # Comparisons with NaN are false: what must hold is asked.
    with np.errstate(invalid="ignore"):
        return (lean >= lean_min).astype(np.int64) - (lean <= -lean_min).astype(np.int64)


def find_directions(pooled: FloatArray) -> IntArray:
    """Return -1, 0 or 1 per row of `pooled` (rows, 3): the sign of buy less sell, 0 where NaN."""
    with np.errstate(invalid="ignore"):
        return np.where(
            np.isfinite(pooled[:, 0]), np.sign(pooled[:, 2] - pooled[:, 0]), 0.0
        ).astype(np.int64)


def find_stances(probabilities: FloatArray, prior: FloatArray) -> IntArray:
    """Return per distribution (..., 3) the class that it lifts most above the base rate, or -1.

    Where HOLD is the most frequent class a calibrated voter is seldom surer of anything else, so its
    greatest probability tells the base rate and not its opinion. SELL and BUY are measured against
    the mean of both in `prior` (..., 3): a voter that always leans one way shall be seen to do so.
    A draw is HOLD; NaN is -1.
    """
    hold = prior[..., 1]
    either = (prior[..., 0] + prior[..., 2]) / 2.0
    lifts = probabilities / np.stack([either, hold, either], axis=-1)
    greatest = np.maximum(np.maximum(lifts[..., 0], lifts[..., 1]), lifts[..., 2])
    sells, buys = lifts[..., 0] == greatest, lifts[..., 2] == greatest
    clear = (sells != buys) & (lifts[..., 1] < greatest)
    stance = np.where(clear, np.where(buys, 2, 0), HOLD)
    return np.where(np.isfinite(greatest), stance, -1).astype(np.int64)


def count_agreeing(leans: IntArray, counted: BoolArray, directions: IntArray) -> IntArray:
    """Return per row how many of the voters `counted` (rows, voters) lean in the direction."""
    agrees = counted & (leans == directions[:, None]) & (directions[:, None] != 0)
    return np.asarray(agrees.sum(axis=1), dtype=np.int64)


def classify(leans: IntArray, weights: FloatArray, directions: IntArray) -> IntArray:
    """Return per row the place in `CLASSES` of the agreement, `NO_CLASS` without a direction.

    `leans` and `weights` are (rows, voters); weights of a row sum to 1, or to 0 without a voter.
    """
    share = np.zeros(len(directions))
    for voter in range(leans.shape[1]):
        share += np.where(leans[:, voter] == directions, weights[:, voter], 0.0)
    codes = np.full(len(directions), 3)
    codes[share >= SPLIT_MIN - _TOLERANCE] = 2
    codes[share >= STRONG_MIN - _TOLERANCE] = 1
    codes[share >= 1.0 - _TOLERANCE] = 0
    codes[directions == 0] = NO_CLASS
    return codes.astype(np.int64)


def find_confidence(pooled: FloatArray) -> FloatArray:
    """Return how sure the pool is of its direction if there is one: max(buy, sell) / (buy + sell)."""
    sell, buy = pooled[:, 0], pooled[:, 2]
    return np.asarray(np.maximum(sell, buy) / (sell + buy), dtype=np.float64)


class Multipliers(Struct):
    """What each agreement class multiplies an opinion with; starts at 1, picklable.

    A multiplier follows how often the pooled direction was right at the horizon over how often it
    claimed to be: with every close that settles labels it moves by at most `MULTIPLIER_STEP` times
    the mean of (right - multiplied claim), so that it rests where both are equal and luck in one hour
    moves it little. Labels of HOLD say nothing about a direction and are left out.
    """

    values: FloatArray
    settled: IntArray
    """Directional labels learnt from, by class."""

    @classmethod
    def fresh(cls) -> "Multipliers":
        """Return the multipliers before anything settled."""
        return cls(np.ones(len(CLASSES)), np.zeros(len(CLASSES), dtype=np.int64))

    def of(self, codes: IntArray) -> FloatArray:
        """Return the multiplier of each class code; 1 for `NO_CLASS`."""
        return np.where(codes >= 0, self.values[np.maximum(codes, 0)], 1.0)

    def learn(
        self, codes: IntArray, directions: IntArray, confidence: FloatArray, labels: IntArray
    ) -> None:
        """Learn from the labels that one close settled; all are arrays over the settled bars."""
        usable = (codes >= 0) & (labels >= 0) & (labels != HOLD)
        right = labels == directions + 1
        for code in np.unique(codes[usable]).tolist():
            own = usable & (codes == code)
            claims = np.minimum(confidence[own] * self.values[code], CONFIDENCE_MAX)
            surprise = float((right[own] - claims).sum()) / int(own.sum())
            moved = self.values[code] + MULTIPLIER_STEP * surprise
            self.values[code] = min(max(moved, MULTIPLIER_MIN), MULTIPLIER_MAX)
            self.settled[code] += int(own.sum())


def scale_scores(pooled: FloatArray, multipliers: FloatArray) -> FloatArray:
    """Return (buy - sell) * multiplier per row, within +-`CONFIDENCE_MAX`; 0 without an opinion."""
    score = (pooled[:, 2] - pooled[:, 0]) * multipliers
    return np.where(
        np.isfinite(score), np.clip(score, -CONFIDENCE_MAX, CONFIDENCE_MAX), 0.0
    ).astype(np.float64)
