"""One opinion from many: a weighted mean of log-probabilities, with weights on a bounded simplex.

The logarithmic opinion pool p ~ exp(sum w_i log p_i) after C. Genest and J. V. Zidek, "Combining
Probability Distributions: A Critique and an Annotated Bibliography", Statistical Science 1 (1986),
114-135: what all voters say it says too, and the order of learning and pooling does not matter. In it
the odds of buy against sell are the weighted mean of the voters' odds, so a voter without a direction
dilutes a direction and can never turn it.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PROBABILITY_MIN = 1e-4
"""A probability counts as at least this: one voter that is certain must not silence the others."""

_RAW_MIN = 1e-12
"""Share of the greatest raw weight that a raw weight counts as at least, so that all have a ratio."""

_SUM_TOLERANCE = 1e-9
_SAID_SUM_TOLERANCE = 1e-3
"""Single-precision models round; what is further from 1 than this is no distribution."""


def project_weights(raw: FloatArray, floor: float, cap: float) -> FloatArray:
    """Return the weights nearest to `raw` (voters,) among those with sum 1 within [floor, cap].

    Nearest by Kullback-Leibler divergence: w = clip(c * raw, floor, cap) with the one c that gives the
    sum 1, so weights that touch no bound keep their ratios (M. Herbster and M. K. Warmuth, "Tracking
    the Best Linear Predictor", JMLR 1 (2001), 281-309). With so few or so many voters that a bound
    cannot hold, it gives way to the equal share. All zeros are equal. Asserts that `raw` is finite and
    not negative.
    """
    assert raw.ndim == 1
    assert len(raw) > 0
    assert bool((raw >= 0.0).all() and np.isfinite(raw).all()), raw
    count = len(raw)
    equal = 1.0 / count
    low, high = min(floor, equal), max(cap, equal)
    greatest = float(raw.max())
    if greatest == 0.0:
        return np.full(count, equal)
    scaled = np.maximum(raw / greatest, _RAW_MIN)
    # The sum is a rising, piecewise linear function of c: its corners bracket the answer.
    corners = np.sort(np.concatenate([low / scaled, high / scaled]))
    sums = np.clip(corners[:, None] * scaled, low, high).sum(axis=1)
    after = min(int(np.searchsorted(sums, 1.0)), len(corners) - 1)
    before = max(after - 1, 0)
    rise = sums[after] - sums[before]
    share = (1.0 - sums[before]) / rise if rise > 0.0 else 1.0
    factor = corners[before] + share * (corners[after] - corners[before])
    weights = np.clip(factor * scaled, low, high)
    assert abs(float(weights.sum()) - 1.0) <= _SUM_TOLERANCE, weights
    return np.asarray(weights, dtype=np.float64)


def spread_weights(weights: FloatArray, present: BoolArray, floor: float, cap: float) -> FloatArray:
    """Return the weights (rows, voters) of the voters that are `present` on each row, 0 for others.

    On each row those present share 1 within `floor` and `cap`; a row without voters is all 0.
    """
    rows, voters = present.shape
    spread = np.zeros((rows, voters))
    codes = present @ (1 << np.arange(voters))
    for code in set(codes.tolist()):
        if code:
            chosen = np.flatnonzero([code >> voter & 1 for voter in range(voters)])
            one = np.zeros(voters)
            one[chosen] = project_weights(weights[chosen], floor, cap)
            spread[codes == code] = one
    return spread


def find_present(probabilities: FloatArray) -> BoolArray:
    """Return which of `probabilities` (..., 3) are distributions; anything else abstains."""
    sell, hold, buy = (probabilities[..., i] for i in range(3))
    # Comparisons with NaN are false: what must hold is asked.
    total = sell + hold + buy
    with np.errstate(invalid="ignore"):
        within = ((probabilities >= 0.0) & (probabilities <= 1.0)).all(axis=-1)
        return np.asarray(within & (np.abs(total - 1.0) <= _SAID_SUM_TOLERANCE), dtype=np.bool_)


def pool_opinions(probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the pooled probabilities (rows, 3) of sell, hold, buy.

    `probabilities` is (rows, voters, 3), `weights` (rows, voters) as `spread_weights` gives them. A
    row without a voter has no opinion: three NaN, which is not HOLD.
    """
    rows, voters, classes = probabilities.shape
    total = np.zeros((rows, classes))
    # Voter by voter: the order of a sum over an axis may depend on how many rows there are.
    for voter in range(voters):
        weight = weights[:, voter]
        counted = weight > 0.0
        said = np.where(counted[:, None], probabilities[:, voter], 1.0)
        total += weight[:, None] * np.log(np.maximum(said, PROBABILITY_MIN))
    lifted = np.exp(total - np.maximum(np.maximum(total[:, 0], total[:, 1]), total[:, 2])[:, None])
    pooled = lifted / (lifted[:, 0] + lifted[:, 1] + lifted[:, 2])[:, None]
    pooled[~(weights > 0.0).any(axis=1)] = np.nan
    return np.asarray(pooled, dtype=np.float64)
