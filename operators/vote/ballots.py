"""What was said lately, voter by voter and stage by stage: does a stage lean to one action?"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

IntArray = npt.NDArray[np.int64]

ACTIONS = ("sell", "hold", "buy")
POOLED, DECIDED = "pooled", "after threshold"
"""Stages behind the voters: the pooled opinion, and what is left of it above the threshold."""
BALLOTS_MAX = 1000
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


class Ballots(Struct):
    """The last `BALLOTS_MAX` stances per voter and stage, as a ring; picklable."""

    stances: npt.NDArray[np.int8]
    """(ballots, voters + 2): 0 sell, 1 hold, 2 buy, -1 abstained; the last two are the stages."""
    cast: int = 0

    @classmethod
    def none(cls, voters: int) -> "Ballots":
        """Return an empty ring."""
        return cls(np.full((BALLOTS_MAX, voters + 2), -1, dtype=np.int8))

    def add(self, voters: IntArray, pooled: IntArray, decided: IntArray) -> None:
        """Take the stances of one close: (rows, voters), (rows,) and (rows,)."""
        rows = np.column_stack([voters, pooled, decided])[-BALLOTS_MAX:]
        places = np.arange(self.cast, self.cast + len(rows)) % BALLOTS_MAX
        self.stances[places] = rows
        self.cast += len(rows)

    def mixes(self, names: Sequence[str]) -> list[ActionMix]:
        """Return the mix of every voter and stage over the ballots that are kept."""
        kept = self.stances[: min(self.cast, BALLOTS_MAX)]
        stages = [*names, POOLED, DECIDED]
        return [count_mix(stage, kept[:, i]) for i, stage in enumerate(stages)]


def count_mix(stage: str, stances: npt.NDArray[np.integer]) -> ActionMix:
    """Return the mix of `stances` (0 sell, 1 hold, 2 buy, anything else abstained)."""
    sell, hold, buy = (int((stances == i).sum()) for i in range(3))
    return ActionMix(
        stage=stage, sell=sell, hold=hold, buy=buy, abstained=len(stances) - sell - hold - buy
    )


def find_biased_stage(mixes: Sequence[ActionMix], labels: Mapping[str, int]) -> str | None:
    """Return the first stage of `mixes` that adds bias, in words; None if none does.

    A stage is biased if one direction has more than `BIAS_MIN` of its calls, of which there must be
    `CALLS_MIN`; voters come first, so a bias of the pool is named only where no voter brought it in.
    `labels` counts what really happened by action ("sell", "buy"): where the market itself went one
    way more than that, following it is no bias.
    """
    happened = labels.get("sell", 0) + labels.get("buy", 0)
    allowed = BIAS_MIN
    if happened:
        allowed = max(allowed, max(labels.get("sell", 0), labels.get("buy", 0)) / happened)
    for mix in mixes:
        share = mix.direction_share
        if share is not None and share > allowed and mix.calls >= CALLS_MIN:
            side = "SELL" if mix.sell > mix.buy else "BUY"
            return f"{mix.stage}: {share:.0%} of its {mix.calls} calls are {side}"
    return None
