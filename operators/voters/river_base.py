"""What the online learners of a lane share: predict first, learn late, forget nothing at a restart.

One learner serves all symbols of a lane. At a close it predicts every bar before it learns anything
that this close, or the one before, has settled; so learning can be put off until the signals are out
(`settle`) and still every bar of one close sees the same learner, in however many calls they come.
Labels of one close are learnt in order of venue and symbol.

Each event is learnt twice: as it was, and as it would have been in the mirror, with the label of the
other side (`operators.features.mirror`). In a few weeks a market rises or falls more than it does in the
long run; a learner takes that for a law and says the wrong side for as many weeks after. Of the event
and its image together it learns much less of that (decision 027).

A tree is too large for every snapshot. The state holds a base, the pickled learner as it was some
hundred events ago, and the events since; a restart loads the base and learns them again, bit for bit.
With a `LearnerArchive` the state holds only the hash of the base; a learner that makes a new base of
every close is small, and its base stays in the state.
"""

import pickle
from abc import ABC, abstractmethod
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import river
from msgspec import Struct

from operators.bar_columns import BarColumns
from operators.features import Mirror
from operators.vote.labels import BUY, UNKNOWN, LabelRule, OpenLabels, find_bounds, order_rows
from operators.voters.base import FloatArray, abstain, choose_stance, find_usable, name_unusable
from operators.voters.river_bytes import dump_learner
from schemas.features import FeatureSchema
from schemas.signals import Vote

IntArray = npt.NDArray[np.int64]
Sample = dict[str, float]

VOLATILITY = "volatility_30"
"""The input that the band of a label is made of."""


class LearnerArchive(Protocol):
    """Keeps the bytes of learners outside of snapshots."""

    def put(self, content: bytes) -> str:
        """Keep `content` durably and return its SHA-256 (hex)."""

    def get(self, content_hash: str) -> bytes:
        """Return exactly the bytes of that hash; raises ValueError if they are not there."""


class Lesson(Struct, frozen=True):
    """Labelled bars that one close settled, one per series."""

    codes: IntArray
    labels: IntArray
    inputs: FloatArray
    """(rows, features)"""


class LearnerState(Struct, kw_only=True):
    """All that a learner remembers; picklable."""

    series: dict[tuple[str, str], int]
    labels: OpenLabels
    inputs: FloatArray
    """(series, slots, features) of the bars whose horizon is open."""
    newest: list[Lesson]
    """Settled by the newest close; a later call may bring more of the same close."""
    due: Lesson | None = None
    """Settled by the close before, to be learnt before the next one."""
    since: list[Lesson] = []
    """Learnt since the base."""
    base: str | bytes = b""
    """The hash of the base in the archive, or without one its bytes; empty: a learner that knows nothing."""
    chain: bytes = b""
    """SHA-256 over all that was learnt, in order."""
    learnt: int = 0
    class_counts: FloatArray
    """Labels of events and of their images, and one of each class."""
    before: tuple[int, bytes, FloatArray] | None = None
    """Count, hash and class counts before the lesson learnt last."""
    learnt_at_ns: int = -1
    """Newest close when it was learnt."""
    time_ns: int = -1


class RiverVoter(ABC):
    """A classifier of River over all symbols of a lane, with the labels of the offline models.

    A bar with a missing or wild input is neither predicted nor learnt, because one NaN would stay in
    a learner for ever; it still counts as a bar of the horizon.
    """

    kind: ClassVar[str] = "river"
    version = f"river-{river.__version__}"
    parameters: ClassVar[str]
    """The numbers of the learner, in words: other numbers are another learner."""
    shrinkage: ClassVar[float]
    """Share of the running class prior in every prediction."""
    events_per_base: ClassVar[int]
    """A new base is made when so many events were learnt since the last one; 0: at every close."""

    def __init__(
        self,
        name: str,
        schema: FeatureSchema,
        timeframe: str,
        *,
        label: LabelRule,
        warm_up_events: int = 100,
        weight: float = 1.0,
        archive: LearnerArchive | None = None,
    ) -> None:
        self.name, self.schema, self.timeframe, self.weight = name, schema, timeframe, weight
        self.label, self.warm_up_events = label, warm_up_events
        self._names = schema.names
        self._volatility = self._names.index(VOLATILITY)
        self._mirror = Mirror.of(schema)
        self._archive = archive
        self._model: Any = self.build_model()
        self._base_bytes = b""
        self._state = LearnerState(
            series={},
            labels=OpenLabels.none(label),
            inputs=np.zeros((0, label.horizon_bars, len(schema))),
            newest=[],
            class_counts=np.ones(3),
        )

    @abstractmethod
    def build_model(self) -> Any:
        """Return the classifier before its first event, seeded."""

    @cached_property
    def fingerprint(self) -> str:
        """Return what must be equal for a remembered state to be continued."""
        learner = (self.parameters, self._mirror.digest)
        parts = (self.version, self.schema.schema_hash, self.timeframe, self.label, *learner)
        return "/".join(str(part) for part in parts)

    @property
    def state(self) -> object:
        """Return what is remembered, with what is not learnt yet; it is not a copy.

        A base goes to the archive only here: between two snapshots many may be made, and a file that
        a snapshot names must outlive them.
        """
        state = self._state
        large = self.events_per_base > 0
        if large and self._archive is not None and state.base and isinstance(state.base, bytes):
            state.base = self._archive.put(state.base)
        return state

    @state.setter
    def state(self, state: object) -> None:
        assert isinstance(state, LearnerState)
        self._state = state
        if isinstance(state.base, str):
            assert self._archive is not None
            self._base_bytes = self._archive.get(state.base)
        else:
            self._base_bytes = state.base
        self._rebuild()

    @property
    def learnt(self) -> int:
        """Events learnt so far."""
        return self._state.learnt

    def answer(self, bars: BarColumns, inputs: FloatArray) -> "LearnerAnswers":
        """Predict every one of `bars` in order."""
        return LearnerAnswers(self, inputs, *self._predict_all(bars, inputs))

    def settle(self) -> None:
        """Learn what the close before the newest one settled; when it happens changes no vote."""
        state = self._state
        if state.due is not None:
            if sum(len(lesson.labels) for lesson in state.since) >= self.events_per_base:
                self._make_base()
            state.before = (state.learnt, state.chain, state.class_counts)
            state.learnt_at_ns = state.time_ns
            self._learn(state.due)
            state.chain = _extend(state.chain, state.due)
            state.learnt += len(state.due.labels)
            counts = np.bincount(state.due.labels, minlength=3)
            state.class_counts = state.class_counts + counts + counts[::-1]
            state.since.append(state.due)
            state.due = None

    def _predict_all(
        self, bars: BarColumns, inputs: FloatArray
    ) -> tuple[FloatArray, list[int], list[bytes]]:
        """Return the predictions, and how much was learnt before each, as a count and as a hash."""
        state = self._state
        keys = list(zip(bars.texts("venue"), bars.texts("symbol"), strict=True))
        codes = np.array(
            [state.series.setdefault(key, len(state.series)) for key in keys], dtype=np.int64
        )
        self._make_room(len(state.series))
        times, usable = bars.integers("close_time_ns"), find_usable(inputs)
        closes = bars.floats("close")
        predicted = np.full((len(keys), 3), np.nan)
        counts: list[int] = []
        chains: list[bytes] = []
        for start, end in pairwise(find_bounds(times)):
            self._open_close(int(times[start]))
            group = slice(start, end)
            if state.learnt >= self.warm_up_events:
                rows = start + np.flatnonzero(usable[group])
                predicted[rows] = self._predict(inputs[rows])
            counts += [state.learnt] * (end - start)
            chains += [state.chain] * (end - start)
            self._remember(codes[group], closes[group], inputs[group], usable[group])
        return predicted, counts, chains

    def _open_close(self, time_ns: int) -> None:
        state = self._state
        if time_ns == state.time_ns:
            # The rest of a close whose first bars were predicted before something was learnt.
            if state.learnt_at_ns == time_ns:
                self._unlearn_last()
            return
        assert time_ns > state.time_ns, (time_ns, state.time_ns)
        self.settle()
        if state.newest:
            state.due = _merge(state.newest, list(state.series))
            state.newest = []
        state.time_ns = time_ns

    def _unlearn_last(self) -> None:
        """Go back to before the last lesson, which is due again."""
        state = self._state
        assert state.before is not None
        state.due = state.since.pop()
        state.learnt, state.chain, state.class_counts = state.before
        state.learnt_at_ns = -1
        self._rebuild()

    def _rebuild(self) -> None:
        """Load the base and learn again what was learnt since."""
        # The bytes are our own: they come from the snapshot, or hash to what the snapshot says.
        self._model = pickle.loads(self._base_bytes) if self._base_bytes else self.build_model()  # noqa: S301
        for lesson in self._state.since:
            self._learn(lesson)

    def _make_base(self) -> None:
        state = self._state
        self._base_bytes = dump_learner(self._model)
        state.base = self._base_bytes
        state.since = []
        # From here on this learner and one that is restored are made of the same bytes.
        self._rebuild()

    def _learn(self, lesson: Lesson) -> None:
        images = self._mirror.reflect(lesson.inputs).tolist()
        events = zip(lesson.inputs.tolist(), images, lesson.labels.tolist(), strict=True)
        for vector, image, label in events:
            self._model.learn_one(dict(zip(self._names, vector, strict=True)), label)
            self._model.learn_one(dict(zip(self._names, image, strict=True)), BUY - label)

    def ask(self, inputs: FloatArray) -> FloatArray:
        """Return (rows, 3): what River says of `inputs` (rows, features), 0 for a label never seen."""
        raw = np.zeros((len(inputs), 3))
        for row, vector in enumerate(inputs.tolist()):
            found = self._model.predict_proba_one(dict(zip(self._names, vector, strict=True)))
            raw[row] = [found.get(label, 0.0) for label in range(3)]
        return raw

    def _predict(self, inputs: FloatArray) -> FloatArray:
        """Return (rows, 3): what is said of `inputs`, the class prior where that is no distribution."""
        raw, counts = self.ask(inputs), self._state.class_counts
        prior = counts / counts.sum()
        total = raw[:, 0] + raw[:, 1] + raw[:, 2]
        # Comparisons with NaN are false, so what must hold is asked.
        good = (total > 0.0) & np.isfinite(total) & (raw >= 0.0).all(axis=1)
        found = np.tile(prior, (len(raw), 1))
        shares = raw[good] / total[good, None]
        found[good] = (1.0 - self.shrinkage) * shares + self.shrinkage * prior
        return found

    def _remember(
        self,
        codes: IntArray,
        closes: FloatArray,
        inputs: FloatArray,
        usable: npt.NDArray[np.bool_],
    ) -> None:
        state = self._state
        volatilities = np.where(usable, inputs[:, self._volatility], np.nan)
        settled, slots = state.labels.advance(codes, closes, volatilities)
        # A bar that was unusable has no volatility, hence no band and no label.
        known = settled.labels != UNKNOWN
        if known.any():
            held = (settled.codes[known], settled.slots[known])
            state.newest.append(
                Lesson(
                    held[0],
                    settled.labels[known],
                    state.inputs[held],
                )
            )
        state.inputs[codes, slots] = inputs

    def _make_room(self, count: int) -> None:
        state, added = self._state, count - len(self._state.inputs)
        if added > 0:
            slots = self.label.horizon_bars
            missing = np.full((added, slots, len(self._names)), np.nan)
            state.inputs = np.concatenate([state.inputs, missing])

    def describe(self, found: FloatArray, vector: FloatArray, learnt: int, chain: bytes) -> Vote:
        """Return what it predicted from `vector` when it had learnt so much, as a vote."""
        content_hash = sha256(self.fingerprint.encode() + chain).hexdigest()
        sell, hold, buy = found.tolist()
        if not abs(sell + hold + buy - 1.0) <= 1e-9:
            unusable = name_unusable(self.schema, vector)
            reason = f"warming up: {learnt} of {self.warm_up_events} events learnt"
            if unusable:
                reason = f"missing inputs: {unusable}"
            return abstain(self.name, self.kind, self.version, content_hash, reason)
        return Vote(
            voter=self.name,
            kind=self.kind,
            version=self.version,
            content_hash=content_hash,
            stance=choose_stance((sell, hold, buy)),
            probability_sell=sell,
            probability_hold=hold,
            probability_buy=buy,
            weight=0.0,
            reason=f"sell {sell:.4f}, hold {hold:.4f}, buy {buy:.4f} after {learnt} events learnt",
        )


class LearnerAnswers:
    """What a learner predicted in one call."""

    def __init__(
        self,
        learner: RiverVoter,
        inputs: FloatArray,
        probabilities: FloatArray,
        learnt: list[int],
        chains: list[bytes],
    ) -> None:
        self.probabilities = probabilities
        self._learner, self._inputs, self._learnt, self._chains = learner, inputs, learnt, chains

    def vote(self, row: int) -> Vote:
        """Return the vote on one bar, its weight still zero."""
        return self._learner.describe(
            self.probabilities[row], self._inputs[row], self._learnt[row], self._chains[row]
        )


def _merge(lessons: list[Lesson], names: list[tuple[str, str]]) -> Lesson:
    """Return all lessons of one close in order of venue and symbol, however they came in."""
    order = order_rows(np.concatenate([one.codes for one in lessons]), names)
    return Lesson(
        *(
            np.concatenate([getattr(one, name) for one in lessons])[order]
            for name in Lesson.__struct_fields__
        )
    )


def _extend(chain: bytes, lesson: Lesson) -> bytes:
    return sha256(chain + lesson.labels.tobytes() + lesson.inputs.tobytes()).digest()
