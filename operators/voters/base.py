"""What the signal machine asks of a model that votes."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from operators.bar_columns import BarColumns
from schemas.features import FeatureSchema
from schemas.fields import Stance
from schemas.signals import Vote

FloatArray = npt.NDArray[np.float64]

INPUT_MAX = 1e6
"""A model input beyond this is out of range: scale-free inputs are of the order of 1 to 100."""

_STANCES = (Stance.SELL, Stance.HOLD, Stance.BUY)


class Answers(Protocol):
    """What one voter says about the bars of one call."""

    @property
    def probabilities(self) -> FloatArray:
        """(bars, 3) of sell, hold, buy; NaN where the voter abstains."""

    def vote(self, row: int) -> Vote:
        """Return the vote on one bar, its weight still zero."""


class Learner(Protocol):
    """A model that learns from every bar of one timeframe and votes on each."""

    name: str
    kind: ClassVar[str]
    version: str
    timeframe: str
    schema: FeatureSchema
    weight: float

    @property
    def fingerprint(self) -> str:
        """Text that changes when state of this voter would mean something else."""

    @property
    def state(self) -> object:
        """All that the voter remembers, picklable; not a copy."""

    @state.setter
    def state(self, state: object) -> None: ...

    def settle(self) -> None:
        """Do the work that `answer` put off; it changes no vote."""

    def answer(self, bars: BarColumns, inputs: FloatArray) -> Answers:
        """Take all of `bars` in order and return what it says about each.

        `bars` are those of the voter's timeframe (columns venue, symbol, close, close_time_ns), each
        series in time order; `inputs` (bars, features of `schema`) is their scale-free view, NaN
        where missing. A vote uses nothing later than its own bar and never depends on the cut.
        """


def abstain(name: str, kind: str, version: str, content_hash: str, reason: str) -> Vote:
    """Return a vote that counts for nothing, and says why."""
    return Vote(
        voter=name,
        kind=kind,
        version=version,
        content_hash=content_hash,
        stance=Stance.ABSTAIN,
        probability_sell=None,
        probability_hold=None,
        probability_buy=None,
        weight=0.0,
        reason=reason,
    )


def choose_stance(probabilities: Sequence[float]) -> Stance:
    """Return the most probable of sell, hold, buy; two equal winners are no opinion: HOLD."""
    best = max(probabilities)
    winners = [one for one, p in zip(_STANCES, probabilities, strict=True) if p == best]
    return winners[0] if len(winners) == 1 else Stance.HOLD


def name_unusable(schema: FeatureSchema, vector: FloatArray) -> str:
    """Return the names of the inputs of `vector` that are missing or out of range."""
    with np.errstate(invalid="ignore"):
        usable = np.abs(vector) <= INPUT_MAX
    names = [name for name, good in zip(schema.names, usable, strict=True) if not good]
    return ", ".join(names)


def find_usable(inputs: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which rows of `inputs` have every value finite and in range."""
    # Comparisons with NaN are false, so what must hold is asked.
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(inputs) <= INPUT_MAX).all(axis=1), dtype=np.bool_)
