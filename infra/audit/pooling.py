"""The formulas of the vote, over numbers that were rounded: each gives what the record may say.

A record keeps four decimals, so what follows from its parts is an interval: of the least and the
greatest values that round to what is written. Rounding keeps an order, so of two rounded numbers that
differ it is known which was the greater.
"""

from collections.abc import Sequence
from math import exp, fsum, log
from typing import NamedTuple

from infra.audit.votes import PROBABILITY_MIN
from schemas.settings import VoteSettings

HALF_STEP = 0.5e-4 + 1e-9
"""How far a number may be from the one that it was rounded from."""
HOLD_STEP = 2 * HALF_STEP + 1e-6
"""The same for HOLD, which is what two rounded numbers in single precision leave."""
MULTIPLIER_MIN, MULTIPLIER_MAX = 0.5, 1.5
"""An agreement class can at most halve an opinion or add a half to it."""
CLASSES = (("unanimous", 1.0), ("strong", 0.75), ("split", 0.5), ("weak", 0.0))
"""Agreements, each with the least share of the weight that leans in the pooled direction."""

_OVERSHOOT = 0.5826
"""Mean distance behind a barrier at which a close that touches it lies, in deviations of one bar."""
_SHARE_MIN = 1e-12
"""Share of the greatest weight that a weight counts as at least."""
_TOLERANCE = 1e-9

Bounds = tuple[float, float]


class Costs(NamedTuple):
    """What trading costs in basis points, and what an edge must exceed."""

    round_trip_bps: float
    threshold_bps: float


def count_costs(vote: VoteSettings) -> Costs:
    """Return the cost of entering and leaving, and the share of it that must be left."""
    round_trip_bps = 2.0 * (vote.fee_bps + vote.half_spread_bps + vote.slippage_bps)
    return Costs(round_trip_bps, vote.edge_margin * round_trip_bps)


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
            # Logarithms are negative: the greater weight makes the sum less.
            least = log(max(value - step, PROBABILITY_MIN))
            greatest = log(max(value + step, PROBABILITY_MIN))
            low += (weight + HALF_STEP) * min(least, 0.0)
            if weight > HALF_STEP and greatest < 0.0:
                high += (weight - HALF_STEP) * greatest
        raw.append((exp(low), exp(high)))
    (sell_low, sell_high), (hold_low, hold_high), (buy_low, buy_high) = raw
    return (
        sell_low / (sell_low + hold_high + buy_high),
        sell_high / (sell_high + hold_low + buy_low),
        buy_low / (buy_low + hold_high + sell_high),
        buy_high / (buy_high + hold_low + sell_low),
    )


def edge_bounds(lean: float, multiplier: float, volatility: float, vote: VoteSettings) -> Bounds:
    """Return the least and greatest expected edge of the better direction, in basis points.

    It is |buy - sell| of the pool times the multiplier and the move to expect, less a round trip;
    `lean` is the rounded difference, `volatility` per bar as a fraction. The move is the band of a
    label and what a close that touches it lies behind it.
    """
    round_trip_bps = count_costs(vote).round_trip_bps
    noise = (vote.volatility_factor * vote.horizon_bars**0.5 + _OVERSHOOT) * volatility
    move_bps = round_trip_bps + noise * 1e4
    low, high = (
        max(abs(lean) + way * 2 * HALF_STEP, 0.0) * max(multiplier + way * HALF_STEP, 0.0)
        for way in (-1, 1)
    )
    slack_bps = HALF_STEP + 1e-6 * move_bps
    return (
        low * move_bps - round_trip_bps - slack_bps,
        high * move_bps - round_trip_bps + slack_bps,
    )


def find_leaning(
    sells: Sequence[float | None], buys: Sequence[float | None], direction: int, lean_min: float
) -> list[bool | None]:
    """Return for each voter whether it leans in `direction` (-1, 1); None where rounding hides it."""
    found: list[bool | None] = []
    for sell, buy in zip(sells, buys, strict=True):
        over = -1.0 if sell is None or buy is None else (buy - sell) * direction - lean_min
        found.append(None if abs(over) <= 2 * HALF_STEP else over > 0)
    return found


def allowed_agreements(leaning: Sequence[bool | None], weights: Sequence[float]) -> set[str]:
    """Return the agreements that the share of the weight behind a direction allows."""
    sure, maybe = (
        [weight for leans, weight in zip(leaning, weights, strict=True) if leans is kind]
        for kind in (True, None)
    )
    against = [
        weight for leans, weight in zip(leaning, weights, strict=True) if leans is False and weight
    ]
    slack = len(weights) * HALF_STEP
    low, high = fsum(sure) - slack, fsum(sure) + fsum(maybe) + slack
    if not against:
        # Whoever has a weight leans: the share is whole, however the weights were rounded.
        low, high = (1.0, 1.0) if not any(maybe) else (low, 1.0)
    else:
        high = min(high, 1.0 - 2 * _TOLERANCE)
    allowed, above = set(), 2.0
    for name, least in CLASSES:
        if low < above - _TOLERANCE and high >= least - _TOLERANCE:
            allowed.add(name)
        above = least
    return allowed


def project_weights(raw: Sequence[float], floor: float, cap: float) -> list[float]:
    """Return the shares of one vote that are nearest to `raw` within `floor` and `cap`.

    They are clip(c * raw, floor, cap) with the one c that gives the sum 1; a bound that so few or so
    many voters cannot hold gives way to the equal share.
    """
    equal = 1.0 / len(raw)
    low, high, greatest = min(floor, equal), max(cap, equal), max(raw)
    if greatest <= 0.0:
        return [equal] * len(raw)
    scaled = [max(one / greatest, _SHARE_MIN) for one in raw]

    def clip(factor: float) -> list[float]:
        return [min(max(factor * one, low), high) for one in scaled]

    below, before = 0.0, fsum(clip(0.0))
    for corner in sorted([bound / one for one in scaled for bound in (low, high)]):
        total = fsum(clip(corner))
        if total >= 1.0:
            rise = total - before
            share = (1.0 - before) / rise if rise > 0.0 else 1.0
            return clip(below + share * (corner - below))
        below, before = corner, total
    return clip(below)
