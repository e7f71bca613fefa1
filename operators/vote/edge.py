"""What an opinion is worth: the move to expect from it, less what trading it costs."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.labels import LabelRule

FloatArray = npt.NDArray[np.float64]

OVERSHOOT = 0.5826
"""Mean distance by which a walk observed once per step lies beyond a barrier when it is first seen
there, in standard deviations of one step: -zeta(1/2) / sqrt(2 pi) (M. Broadie, P. Glasserman and
S. Kou, "A Continuity Correction for Discrete Barrier Options", Mathematical Finance 7 (1997))."""


class TradingCosts(Struct, frozen=True, kw_only=True):
    """What one side of a trade costs, and how much more than nothing must be left."""

    fee_bps: float = 10.0
    half_spread_bps: float = 1.0
    slippage_bps: float = 0.0
    margin: float = 0.1
    """Share of the round trip's cost by which the expected edge must exceed zero."""

    @property
    def round_trip_bps(self) -> float:
        """Cost of entering and leaving."""
        return 2.0 * (self.fee_bps + self.half_spread_bps + self.slippage_bps)

    @property
    def threshold_bps(self) -> float:
        """Least expected edge after costs at which a trade is worth its risk of being misjudged."""
        return self.margin * self.round_trip_bps


def expected_move_bps(volatilities: FloatArray, rule: LabelRule) -> FloatArray:
    """Return the size of the move to expect at the horizon if a barrier is touched, in bps.

    The close that touches lies beyond the band by the mean overshoot, and from there a walk has no
    direction. `volatilities` is per bar, as a fraction; NaN where it is missing. On the recorded
    hourly bars of January to May 2024 the mean move after a touch within 4 bars was 157 bps, this
    formula's mean 147 bps.
    """
    return (rule.band(volatilities) + OVERSHOOT * volatilities) * 1e4


def expected_edges_bps(
    pooled: FloatArray, moves_bps: FloatArray, costs: TradingCosts
) -> FloatArray:
    """Return the expected edge after costs (rows, 2) of selling and of buying, in bps.

    Holding is expected to go nowhere. NaN where there is no opinion (`pooled` (rows, 3) is NaN) or
    no volatility, which no threshold approves.
    """
    gain = (pooled[:, 2] - pooled[:, 0]) * moves_bps
    return np.column_stack([-gain, gain]) - costs.round_trip_bps
