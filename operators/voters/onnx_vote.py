"""The vote of a served model: three probabilities, or an abstention that says why."""

from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from operators.features import SequenceBatch
from operators.vote.pooling import find_present
from operators.voters.base import FloatArray, abstain, choose_stance, find_usable, name_unusable
from schemas.features import FeatureSchema, SequenceSchema
from schemas.signals import Vote

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


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
        """Hash of the feature or sequence schema that the model was trained on."""

    @property
    def horizon_bars(self) -> int:
        """Bars after which the label is known that the model was trained on."""

    @property
    def trusted(self) -> bool:
        """Whether it was shown to beat the class prior on data that it never saw."""

    def score(self, matrix: Float32Array) -> FloatArray:
        """Return (rows, 3) probabilities of sell, hold, buy for (rows, *input shape) inputs."""


class ModelInputs:
    """The inputs of the bars of one call, in both views that models read."""

    def __init__(
        self,
        schema: FeatureSchema,
        vectors: FloatArray,
        sequence: SequenceSchema,
        windows: SequenceBatch,
    ) -> None:
        """Take the scale-free `vectors` (bars, features) and the `windows` that end with each bar."""
        self.schema, self.sequence = schema, sequence
        self.vectors, self._windows = vectors, windows
        self._usable: dict[str, BoolArray] = {}

    def usable(self, schema_hash: str) -> BoolArray:
        """Return which bars have a whole input of that schema."""
        if schema_hash not in self._usable:
            whole = find_usable(self.vectors)
            if schema_hash == self.sequence.schema_hash:
                whole = self._windows.complete
            self._usable[schema_hash] = whole
        return self._usable[schema_hash]

    def take(self, schema_hash: str, rows: npt.NDArray[np.int64]) -> Float32Array:
        """Return the inputs of `rows` as a model of that schema reads them."""
        if schema_hash == self.sequence.schema_hash:
            return self._windows.take(rows)
        return self.vectors[rows].astype(np.float32)

    def explain(self, schema_hash: str, row: int) -> str:
        """Return why the input of a bar is not usable."""
        if schema_hash == self.sequence.schema_hash:
            return f"missing inputs: fewer than {self.sequence.steps} bars with all channels"
        return f"missing inputs: {name_unusable(self.schema, self.vectors[row])}"


class OnnxVoter:
    """Scores bars with whatever version serves; it remembers nothing.

    Without a model, with a missing or wild input, or with an output that is no distribution, it
    abstains; nothing else ever votes in its place. So does a model that was trained on other
    features, another timeframe or another horizon.
    """

    kind: ClassVar[str] = "onnx"

    def __init__(
        self, name: str, model: str, timeframe: str, horizon_bars: int, weight: float = 1.0
    ) -> None:
        """Vote as `name` with the versions of `model` of the registry."""
        self.name, self.model, self.timeframe, self.weight = name, model, timeframe, weight
        self.horizon_bars = horizon_bars

    @property
    def fingerprint(self) -> str:
        """Return what must be equal, but for the version, for its record to be continued."""
        return f"{self.kind}/{self.timeframe}/{self.horizon_bars}"

    def answer(
        self, scorer: Scorer | None, reason: str, inputs: ModelInputs, rows: slice
    ) -> "OnnxAnswers":
        """Return what `scorer` says about `rows` of a call; `reason` tells why there is none."""
        if scorer is not None:
            reason = self._find_misfit(scorer, inputs)
        return OnnxAnswers(self, scorer, reason, inputs, rows)

    def _find_misfit(self, scorer: Scorer, inputs: ModelInputs) -> str:
        schemas = (inputs.schema.schema_hash, inputs.sequence.schema_hash)
        facts = (
            ("feature schema hash", scorer.feature_schema_hash, schemas),
            ("timeframe", scorer.timeframe, (self.timeframe,)),
            ("horizon in bars", scorer.horizon_bars, (self.horizon_bars,)),
        )
        for subject, found, wanted in facts:
            if found not in wanted:
                expected = " or ".join(str(one) for one in wanted)
                return f"{subject} of the model must be {expected}; found {found}"
        return ""


class OnnxAnswers:
    """What one version said about some bars of a call."""

    def __init__(
        self,
        voter: OnnxVoter,
        scorer: Scorer | None,
        reason: str,
        inputs: ModelInputs,
        rows: slice,
    ) -> None:
        """Score `rows`, unless `reason` says why not."""
        self._voter, self._scorer, self._reason = voter, scorer, reason
        self._inputs, self._first = inputs, rows.start
        count = rows.stop - rows.start
        self._raw = np.full((count, 3), np.nan)
        if scorer is not None and not reason:
            usable = np.flatnonzero(inputs.usable(scorer.feature_schema_hash)[rows])
            self._score(scorer, usable)
        self.probabilities = self._raw.copy()
        self.probabilities[~find_present(self._raw)] = np.nan

    def _score(self, scorer: Scorer, chosen: npt.NDArray[np.int64]) -> None:
        if not len(chosen):
            return
        inputs = self._inputs.take(scorer.feature_schema_hash, chosen + self._first)
        found = scorer.score(inputs)
        if found.shape != (len(chosen), 3):
            self._reason = f"model answered with shape {found.shape!r}"
            return
        self._raw[chosen] = found

    def vote(self, row: int) -> Vote:
        """Return the vote on one bar, its weight still zero; rows count from the first of these."""
        scorer, voter = self._scorer, self._voter
        if scorer is None:
            return abstain(voter.name, voter.kind, "", "", self._reason)
        reason = self._reason
        if not reason and not self._inputs.usable(scorer.feature_schema_hash)[row + self._first]:
            reason = self._inputs.explain(scorer.feature_schema_hash, row + self._first)
        sell, hold, buy = self._raw[row].tolist()
        if not reason and np.isnan(self.probabilities[row, 0]):
            reason = f"output is no distribution: {sell!r}, {hold!r}, {buy!r}"
        if reason:
            return abstain(voter.name, voter.kind, scorer.version, scorer.content_hash, reason)
        return Vote(
            voter=voter.name,
            kind=voter.kind,
            version=scorer.version,
            content_hash=scorer.content_hash,
            stance=choose_stance((sell, hold, buy)),
            probability_sell=sell,
            probability_hold=hold,
            probability_buy=buy,
            weight=0.0,
            reason=f"sell {sell:.4f}, hold {hold:.4f}, buy {buy:.4f}",
        )
