"""What was said lately, voter by voter and stage by stage: does a stage lean to one action?"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

ACTIONS = ("sell", "hold", "buy")
CENTRED = "less its tilt"
"""Stage behind each voter, whose name comes before: what counts of what it said."""
POOLED, DECIDED = "pooled", "after threshold"
"""Stages behind the voters: the pooled opinion, and what is left of it above the threshold."""
BIAS_MIN = 0.70
"""Share of the directional calls above which one direction is a bias."""
CALLS_MIN = 30
"""Fewer directional calls are no evidence: of 30 tosses of a coin more than 70 % agree once in 62 times."""


class ActionMix(Struct, frozen=True, kw_only=True):
    """How often each action was chosen at one stage."""

    stage: str
    sell: int
    hold: int
    buy: int
    abstained: int

    @property
    def said(self) -> int:
        """How often anything was said."""
        return self.sell + self.hold + self.buy

    @property
    def calls(self) -> int:
        """How often SELL or BUY was said."""
        return self.sell + self.buy

    @property
    def hold_share(self) -> float | None:
        """Share of HOLD among what was said; None if nothing was."""
        return self.hold / self.said if self.said else None

    @property
    def direction_share(self) -> float | None:
        """Share of the more frequent of SELL and BUY among both; None without either."""
        return max(self.sell, self.buy) / self.calls if self.calls else None

    @property
    def sell_share(self) -> float | None:
        """Share of SELL among SELL and BUY; None without either."""
        return self.sell / self.calls if self.calls else None


def count_mix(stage: str, stances: npt.NDArray[np.integer]) -> ActionMix:
    """Return the mix of `stances` (0 sell, 1 hold, 2 buy, anything else abstained)."""
    sell, hold, buy = (int((stances == i).sum()) for i in range(3))
    return ActionMix(
        stage=stage, sell=sell, hold=hold, buy=buy, abstained=len(stances) - sell - hold - buy
    )


def find_biased_stage(mixes: Sequence[ActionMix]) -> str | None:
    """Return the first stage of `mixes` that leans to a side, in words; None if none does.

    A stage leans if one direction has more than `BIAS_MIN` of its calls, of which there must be
    `CALLS_MIN`; voters come first, so the pool is named only where no voter leans. What the market did
    meanwhile is not subtracted: where it went one way, following it counts as leaning too.
    """
    for mix in mixes:
        share = mix.direction_share
        if share is not None and share > BIAS_MIN and mix.calls >= CALLS_MIN:
            side = "SELL" if mix.sell > mix.buy else "BUY"
            return f"{mix.stage}: {share:.0%} of its {mix.calls} calls are {side}"
    return None
