"""An online learner per symbol that predicts first and learns once the label's horizon has closed."""

from collections import deque
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from math import log
from struct import Struct
from typing import ClassVar

import river
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from operators.bar_columns import BarColumns
from operators.voters.base import FloatArray, abstain, find_usable, name_unusable
from schemas.features import FeatureSchema
from schemas.fields import Stance
from schemas.signals import Vote

LEARNING_RATE = 0.0003
"""Step of weights and intercept. Chosen on the recorded hourly bars of January to May 2024: mean
prequential log-loss 0.6923 nats, a coin's is 0.6931; River's default 0.01 gave 0.7621."""

WAITING_BARS_MAX = 10_000
"""Bars that may wait over all symbols before they are worked through at once."""

_PROBABILITY_MIN = 1e-15
"""A probability is kept this far from 0 and 1 in the log-loss, which would be infinite there."""


class SymbolLearner:
    """Scaler, weights and the samples of one symbol whose horizon is still open."""

    __slots__ = ("learnt", "log_loss_sum", "model", "pending", "scaler", "scored", "waiting")

    def __init__(self) -> None:
        self.scaler = StandardScaler()
        self.model = LogisticRegression(SGD(LEARNING_RATE), intercept_lr=LEARNING_RATE)
        self.pending: deque[tuple[dict[str, float] | None, float, float | None]] = deque()
        """Per bar within the horizon: inputs, close, and what was predicted, if anything was."""
        self.waiting: deque[tuple[list[float] | None, float]] = deque()
        """Bars that were given but not worked through yet: inputs and close."""
        self.learnt = 0
        self.scored = 0
        self.log_loss_sum = 0.0

    def catch_up(
        self, names: tuple[str, ...], horizon_bars: int, warm_up_events: int
    ) -> float | None:
        """Work through the waiting bars in order; return what was predicted at the last one."""
        predicted = None
        while self.waiting:
            vector, close = self.waiting.popleft()
            sample = None if vector is None else dict(zip(names, vector, strict=True))
            self.learn(close, horizon_bars)
            ready = sample is not None and self.learnt >= warm_up_events
            predicted = self.predict(sample) if ready and sample is not None else None
            self.pending.append((sample, close, predicted))
        return predicted

    def learn(self, close: float, horizon_bars: int) -> None:
        """Learn the one sample whose horizon closes with `close`, if there is one."""
        if len(self.pending) < horizon_bars:
            return
        sample, close_before, predicted = self.pending.popleft()
        if sample is None:
            return
        rose = close > close_before
        if predicted is not None:
            likelihood = predicted if rose else 1.0 - predicted
            self.log_loss_sum -= log(max(likelihood, _PROBABILITY_MIN))
            self.scored += 1
        self.scaler.learn_one(sample)
        self.model.learn_one(self.scaler.transform_one(sample), rose)
        self.learnt += 1

    def predict(self, sample: dict[str, float]) -> float:
        """Return the probability of a positive forward return."""
        return float(self.model.predict_proba_one(self.scaler.transform_one(sample))[True])

    def content_hash(self) -> str:
        """Return the SHA-256 (hex) of everything that a prediction depends on."""
        means, variances = self.scaler.means, self.scaler.vars
        weight_of = self.model.weights.get
        names = tuple(sorted(means))
        layout, encoded = _hash_layout(names)
        parts: list[object] = []
        for name, text in zip(names, encoded, strict=True):
            parts += (text, means[name], variances[name], weight_of(name, 0.0))
        return sha256(layout.pack(self.learnt, self.model.intercept, *parts)).hexdigest()


@cache
def _hash_layout(names: tuple[str, ...]) -> tuple[Struct, tuple[bytes, ...]]:
    """Return how a learner is packed: events, intercept, then each name with its three numbers."""
    encoded = tuple(name.encode() for name in names)
    return Struct("<qd" + "".join(f"{len(text)}s3d" for text in encoded)), encoded


class RiverLogisticVoter:
    """Scaled logistic regression on whether the close `horizon_bars` bars later is higher.

    A symbol without a signal may wait: its bars are worked through before its next vote, when there
    is time (`settle`), or when many wait, so learning never delays another symbol's signal.

    At every bar of a symbol it first learns the sample of `horizon_bars` bars before, whose label
    that bar's close has just settled, and then predicts. A bar with a missing or wild input is
    neither predicted nor learnt, because one NaN would stay in the scaler for ever; it still counts
    as a bar of the horizon. The horizon counts bars: one that is missing from the stream makes it
    longer in time, never shorter.
    """

    kind: ClassVar[str] = "river"
    version = f"river-{river.__version__}"

    def __init__(
        self,
        name: str,
        schema: FeatureSchema,
        timeframe: str,
        *,
        horizon_bars: int = 4,
        warm_up_events: int = 100,
        weight: float = 1.0,
    ) -> None:
        self.name, self.schema, self.timeframe, self.weight = name, schema, timeframe, weight
        self.horizon_bars, self.warm_up_events = horizon_bars, warm_up_events
        self._names = schema.names
        self._learners: dict[tuple[str, str], SymbolLearner] = {}
        self._waiting_bars = 0

    @property
    def fingerprint(self) -> str:
        """Return what must be equal for a remembered state to be continued."""
        parts = (
            self.version,
            self.schema.schema_hash,
            self.timeframe,
            self.horizon_bars,
            LEARNING_RATE,
        )
        return "/".join(str(part) for part in parts)

    @property
    def state(self) -> object:
        """Return the learners by (venue, symbol), with nothing left to work through."""
        self.settle()
        return self._learners

    @state.setter
    def state(self, state: object) -> None:
        assert isinstance(state, dict)
        self._learners = state

    @property
    def scored_count(self) -> int:
        """Predictions whose label has become known, over all symbols."""
        self.settle()
        return sum(learner.scored for learner in self._learners.values())

    @property
    def log_loss(self) -> float | None:
        """Mean prequential log-loss in nats over `scored_count`; None before the first."""
        count = self.scored_count
        total = sum(learner.log_loss_sum for learner in self._learners.values())
        return total / count if count else None

    def advance(self, bars: BarColumns, inputs: FloatArray, rows: Sequence[int]) -> dict[int, Vote]:
        """Learn and predict at every one of `bars` in order; return the vote on each of `rows`."""
        wanted, votes = set(rows), {}
        usable = find_usable(inputs).tolist()
        keys = zip(bars.texts("venue"), bars.texts("symbol"), strict=True)
        closes, vectors = bars.floats("close").tolist(), inputs.tolist()
        for row, key in enumerate(keys):
            learner = self._learners.get(key)
            if learner is None:
                learner = self._learners.setdefault(key, SymbolLearner())
            learner.waiting.append((vectors[row] if usable[row] else None, closes[row]))
            if row in wanted:
                predicted = learner.catch_up(self._names, self.horizon_bars, self.warm_up_events)
                votes[row] = self._vote(learner, predicted, inputs[row])
        self._waiting_bars += len(closes)
        if self._waiting_bars > WAITING_BARS_MAX:
            self.settle()
        return votes

    def settle(self) -> None:
        """Work through every bar that waits; when it happens changes no vote."""
        for learner in self._learners.values():
            learner.catch_up(self._names, self.horizon_bars, self.warm_up_events)
        self._waiting_bars = 0

    def _vote(self, learner: SymbolLearner, buy: float | None, vector: FloatArray) -> Vote:
        content_hash = learner.content_hash()
        if buy is None or not 0.0 <= buy <= 1.0:
            unusable = name_unusable(self.schema, vector)
            reason = f"warming up: {learner.learnt} of {self.warm_up_events} events learnt"
            if buy is not None:
                reason = f"output is no probability: {buy!r}"
            elif unusable:
                reason = f"missing inputs: {unusable}"
            return abstain(self.name, self.kind, self.version, content_hash, reason)
        stance = Stance.HOLD if buy == 0.5 else Stance.BUY if buy > 0.5 else Stance.SELL
        return Vote(
            voter=self.name,
            kind=self.kind,
            version=self.version,
            content_hash=content_hash,
            stance=stance,
            probability_sell=1.0 - buy,
            probability_hold=0.0,
            probability_buy=buy,
            weight=self.weight,
            reason=f"buy {buy:.4f} after {learner.learnt} events learnt",
        )
