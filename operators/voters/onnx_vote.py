"""The vote of a served model: three probabilities, or an abstention that says why."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from operators.bar_columns import BarColumns
from operators.voters.base import FloatArray, abstain, find_usable, name_unusable
from schemas.features import FeatureSchema
from schemas.fields import Stance
from schemas.signals import Vote

Float32Array = npt.NDArray[np.float32]

_STANCES = (Stance.SELL, Stance.HOLD, Stance.BUY)
_SUM_TOLERANCE = 1e-3
"""How far three float32 probabilities may sum beside 1."""


class Scorer(Protocol):
    """A loaded model whose bytes were verified."""

    @property
    def version(self) -> str:
        """Version of the model."""

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the exact bytes that score."""

    @property
    def timeframe(self) -> str:
        """Timeframe of the bars that the model was trained on."""

    @property
    def feature_schema_hash(self) -> str:
        """Hash of the feature schema that the model was trained on."""

    def score(self, matrix: Float32Array) -> FloatArray:
        """Return (rows, 3) probabilities of sell, hold, buy for (rows, features) inputs."""


class OnnxVoter:
    """Scores the bars that carry a signal, all of one call in one batch; it remembers nothing.

    Without a scorer, with a missing or wild input, or with an output that is no distribution, it
    abstains; nothing else ever votes in its place. Raises `ValueError` on construction if the
    scorer was trained on another feature schema or timeframe.
    """

    kind: ClassVar[str] = "onnx"

    def __init__(
        self,
        name: str,
        scorer: Scorer | None,
        schema: FeatureSchema,
        timeframe: str,
        weight: float = 1.0,
        missing_reason: str = "no model is loaded",
    ) -> None:
        self.name, self.timeframe, self.schema, self.weight = name, timeframe, schema, weight
        self._scorer, self._missing_reason = scorer, missing_reason
        self.version = "" if scorer is None else scorer.version
        self._content_hash = "" if scorer is None else scorer.content_hash
        if scorer is not None:
            self._require("feature schema hash", schema.schema_hash, scorer.feature_schema_hash)
            self._require("timeframe", timeframe, scorer.timeframe)

    def _require(self, subject: str, expected: str, found: str) -> None:
        if expected != found:
            msg = (
                f"{subject} of model {self.name!r} must be {expected!r}; found {found!r}; train "
                f"the model again or choose the artefact that fits"
            )
            raise ValueError(msg)

    @property
    def fingerprint(self) -> str:
        """Return the hash of the model: there is no state that could outlive it."""
        return self._content_hash

    @property
    def state(self) -> object:
        """Return None: a served model remembers nothing."""
        return None

    @state.setter
    def state(self, state: object) -> None:
        assert state is None

    def settle(self) -> None:
        """Do nothing: a model that does not learn puts nothing off."""

    def advance(self, bars: BarColumns, inputs: FloatArray, rows: Sequence[int]) -> dict[int, Vote]:
        """Return the vote on each of `rows`; the other bars are not looked at."""
        assert len(inputs) == bars.height
        if self._scorer is None:
            return {row: self._abstain(self._missing_reason) for row in rows}
        chosen = inputs[list(rows)]
        usable = find_usable(chosen)
        votes = {
            row: self._abstain(f"missing inputs: {name_unusable(self.schema, chosen[i])}")
            for i, row in enumerate(rows)
            if not usable[i]
        }
        scored = [row for i, row in enumerate(rows) if usable[i]]
        if scored:
            found = self._scorer.score(chosen[usable].astype(np.float32))
            if found.shape != (len(scored), len(_STANCES)):
                reason = f"model answered with shape {found.shape!r}"
                return votes | {row: self._abstain(reason) for row in scored}
            votes |= {row: self._vote(p) for row, p in zip(scored, found.tolist(), strict=True)}
        return votes

    def _vote(self, found: Sequence[float]) -> Vote:
        sell, hold, buy = found
        in_range = all(0.0 <= p <= 1.0 for p in (sell, hold, buy))
        if not (in_range and abs(sell + hold + buy - 1.0) <= _SUM_TOLERANCE):
            return self._abstain(f"output is no distribution: {sell!r}, {hold!r}, {buy!r}")
        best = max(sell, hold, buy)
        winners = [
            stance for stance, p in zip(_STANCES, (sell, hold, buy), strict=True) if p == best
        ]
        # Two equal winners are no opinion in either direction.
        stance = winners[0] if len(winners) == 1 else Stance.HOLD
        return Vote(
            voter=self.name,
            kind=self.kind,
            version=self.version,
            content_hash=self._content_hash,
            stance=stance,
            probability_sell=sell,
            probability_hold=hold,
            probability_buy=buy,
            weight=self.weight,
            reason=f"sell {sell:.4f}, hold {hold:.4f}, buy {buy:.4f}",
        )

    def _abstain(self, reason: str) -> Vote:
        return abstain(self.name, self.kind, self.version, self._content_hash, reason)
