"""What a voter's predictions turned out to be worth, forgotten little by little."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.agreement import find_stances
from operators.vote.labels import HOLD
from operators.vote.pooling import PROBABILITY_MIN, find_present

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GAIN_MAX = 1.0
"""Nats by which one close can move a voter's standing at most."""
RETURN_MAX = 2.0
"""Deviations of the horizon that one call can earn or lose at most."""

SPREAD_EVENTS = 125
"""Events over which a voter must not always say the same."""


class SettledOpinions(Struct, frozen=True, kw_only=True):
    """Predictions whose labels one close settled, one row per series in a fixed order."""

    probabilities: FloatArray
    """(rows, voters, 3) as they counted; NaN where a voter abstained."""
    leans: FloatArray
    """(rows, voters): buy less sell as it was said, before a tilt was taken off."""
    priors: FloatArray
    """(rows, 3): the class prior at the time of the prediction."""
    labels: IntArray
    """0 sell, 1 hold, 2 buy."""
    returns: FloatArray
    """Forward return at the horizon, as a fraction."""
    deviations: FloatArray
    """Standard deviation expected over the horizon, as a fraction."""


class TrackRecords(Struct):
    """Discounted sums per voter; `slow` ones forget by closes, `fast` ones by events."""

    scored: IntArray
    """Predictions whose label is known, since the version began."""
    slow: FloatArray
    """(6, voters): see `_SLOW`."""
    fast: FloatArray
    """(6, voters): see `_FAST`."""
    ranges: FloatArray
    """(6, voters): least and greatest buy less sell, and their number, in this bucket of events and
    in the one before."""
    merit: FloatArray
    """Discounted sum over closes of what counts for the weight."""

    @classmethod
    def none(cls, voters: int) -> "TrackRecords":
        """Return the records of voters of which nothing is known."""
        return cls(
            np.zeros(voters, dtype=np.int64),
            np.zeros((len(_SLOW), voters)),
            np.zeros((len(_FAST), voters)),
            np.tile(_NO_RANGE, (1, voters)),
            np.zeros(voters),
        )

    def forget(self, voter: int) -> None:
        """Begin anew with one voter: other bytes answer now."""
        self.scored[voter] = 0
        self.slow[:, voter] = self.fast[:, voter] = 0.0
        self.ranges[:, voter] = _NO_RANGE[:, 0]
        self.merit[voter] = 0.0

    def learn(
        self,
        opinions: SettledOpinions,
        *,
        slow_keep: float,
        fast_keep: float,
        cost: float,
        return_share: float,
    ) -> FloatArray:
        """Add one close; return each voter's mean log-loss less the prior's (NaN if unscored).

        `slow_keep` is what a close keeps of the sums before it, `fast_keep` what an event keeps;
        `cost` is that of a round trip as a fraction; `return_share` weighs the mean net return per
        directional call, in deviations of the horizon, against the gain over the prior in nats.
        """
        rows = len(opinions.labels)
        present = find_present(opinions.probabilities)
        answered = present.sum(axis=0).astype(np.float64)
        losses = _take(opinions.probabilities, opinions.labels)
        base = _take(opinions.priors[:, None, :], opinions.labels)
        gains = np.where(present, base - losses, 0.0)
        gained, lost = gains.sum(axis=0), np.where(present, losses, 0.0).sum(axis=0)
        # As they were said: a constant less a tilt that is still being learnt is not one.
        self._widen(opinions.leans, present)
        count = np.maximum(answered, 1.0)
        mean_gain = gained / count
        self.scored += present.sum(axis=0)
        self._add_slow(slow_keep, answered, gained, lost, mean_gain)
        faster = fast_keep**rows
        self.fast *= faster
        # Squares of weights forget twice as fast: they belong to the error of the mean.
        self.fast[3:6] *= faster
        self.fast += np.stack(
            [
                answered,
                gained,
                np.full(len(answered), float(rows)),
                answered**2,
                answered**2 * mean_gain,
                answered**2 * mean_gain**2,
            ]
        )
        earned = _mean_net_return(opinions, present, cost)
        self.merit *= slow_keep
        self.merit += np.clip(mean_gain, -GAIN_MAX, GAIN_MAX) + return_share * earned
        return np.where(answered > 0.0, -mean_gain, np.nan)

    def _widen(self, leans: FloatArray, present: npt.NDArray[np.bool_]) -> None:
        full = self.ranges[2] >= SPREAD_EVENTS
        self.ranges[3:, full] = self.ranges[:3, full]
        self.ranges[:3, full] = _NO_RANGE[:3]
        least = np.where(present, leans, np.inf).min(axis=0, initial=np.inf)
        greatest = np.where(present, leans, -np.inf).max(axis=0, initial=-np.inf)
        self.ranges[0] = np.minimum(self.ranges[0], least)
        self.ranges[1] = np.maximum(self.ranges[1], greatest)
        self.ranges[2] += present.sum(axis=0)

    def _add_slow(
        self,
        keep: float,
        answered: FloatArray,
        gained: FloatArray,
        lost: FloatArray,
        mean_gain: FloatArray,
    ) -> None:
        self.slow *= keep
        self.slow[3:] *= keep
        squares = answered**2
        self.slow += np.stack(
            [answered, gained, lost, squares, squares * mean_gain, squares * mean_gain**2]
        )

    @property
    def log_losses(self) -> FloatArray:
        """Discounted mean log-loss per voter in nats; NaN before the first label."""
        return _divide(self.slow[2], self.slow[0])

    @property
    def gains(self) -> tuple[FloatArray, FloatArray]:
        """Discounted mean gain over the prior in nats, and its standard error; NaN before any."""
        return _mean_and_error(self.slow[0], self.slow[1], self.slow[3:6])

    @property
    def recent_gains(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The same over recent events, and over how many closes' worth it is a mean."""
        mean, error = _mean_and_error(self.fast[0], self.fast[1], self.fast[3:6])
        return mean, error, _divide(self.fast[0] ** 2, self.fast[3])

    @property
    def recent_offered(self) -> FloatArray:
        """Discounted number of recent events that a voter could have answered."""
        return np.asarray(self.fast[2], dtype=np.float64)

    @property
    def recent_answered_share(self) -> FloatArray:
        """Share of the recent events that a voter answered; NaN before the first."""
        return _divide(self.fast[0], self.fast[2])

    @property
    def recent_spread(self) -> FloatArray:
        """How far buy less sell ranged over the last one or two buckets; infinite before the first."""
        spread = np.maximum(self.ranges[1], self.ranges[4]) - np.minimum(
            self.ranges[0], self.ranges[3]
        )
        return np.where(self.ranges[2] + self.ranges[5] >= SPREAD_EVENTS, spread, np.inf)


_SLOW = ("answered", "gained", "lost", "square", "square_gain", "square_gain_2")
_FAST = ("answered", "gained", "offered", "square", "square_gain", "square_gain_2")
_DEVIATION_MIN = 1e-6
_NO_RANGE = np.array([np.inf, -np.inf, 0.0] * 2)[:, None]


def _take(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Return -ln of the probability of the label: (rows, voters)."""
    chosen = np.take_along_axis(probabilities, labels[:, None, None], axis=2)[..., 0]
    return -np.log(np.maximum(chosen, PROBABILITY_MIN))


def _mean_net_return(
    opinions: SettledOpinions, present: npt.NDArray[np.bool_], cost: float
) -> FloatArray:
    """Return per voter the mean net return of its directional calls in deviations; 0 without any."""
    stances = find_stances(opinions.probabilities, opinions.priors[:, None, :])
    called = present & (stances != HOLD)
    net = (stances - HOLD) * opinions.returns[:, None] - cost
    # A market that stood still has no deviation to measure a return in.
    deviations = np.maximum(opinions.deviations, _DEVIATION_MIN)[:, None]
    units = np.clip(net / deviations, -RETURN_MAX, RETURN_MAX)
    total = np.where(called, units, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(called.sum(axis=0), 1), dtype=np.float64)


def _mean_and_error(
    weight: FloatArray, total: FloatArray, squares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return a weighted mean and its standard error, each close taken as one observation."""
    mean = _divide(total, weight)
    scatter = squares[2] - 2.0 * mean * squares[1] + mean**2 * squares[0]
    return mean, _divide(np.sqrt(np.maximum(scatter, 0.0)), weight)


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.where(
        denominator > 0.0, numerator / np.where(denominator > 0.0, denominator, 1.0), np.nan
    )
