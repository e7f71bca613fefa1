"""All models of one lane: what each says about every bar, what they say together, what they learn."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.bar_columns import BarColumns
from operators.features import (
    SequenceWindows,
    select_channels,
    to_model_inputs,
    vector_matrix,
)
from operators.model_schedule import BEGINNING_NS, ModelSchedule
from operators.rulings import OpinionRows, Polled, Ruling, SymbolKey
from operators.vote import Candidate, PanelState, VotePanel, build_event, build_rule
from operators.vote.panel import join_opinions
from operators.voters.base import Answers, Learner, abstain
from operators.voters.build import MODEL_SCHEMA
from operators.voters.onnx_vote import ModelInputs, OnnxVoter, Scorer
from schemas.features import SEQUENCE_SCHEMAS
from schemas.models import ModelEventRecorded
from schemas.settings import TIMEFRAME_NS, VoteSettings

FloatArray = npt.NDArray[np.float64]

SEQUENCE_SCHEMA = SEQUENCE_SCHEMAS["sq120"]
"""What sequence models read."""

_VOLATILITY = "volatility_30"
_RULINGS_KEPT = 2
"""One more than the newest: that may be of the very close for which the one before is asked."""


class CouncilState(Struct):
    """All that a council remembers; picklable."""

    panel: tuple[str, PanelState]
    """With the fingerprint of the council that made it."""
    timeframe: str
    """Of the bars in `windows`."""
    windows: SequenceWindows
    learners: dict[str, object]
    """By a learner's name and fingerprint."""
    versions: dict[str, tuple[str, str]]
    """Version and content hash by served voter that its record belongs to."""
    newest_ns: int
    rulings: dict[SymbolKey, list[Ruling]]
    """The newest of each symbol and the one before it, the newest last."""


class Council:
    """The models that vote in one lane, on the bars of their one timeframe.

    Raises ValueError if they are of several timeframes, or if the vote's numbers disagree.
    """

    def __init__(
        self,
        partition: int,
        served: Sequence[OnnxVoter],
        learners: Sequence[Learner],
        schedule: ModelSchedule,
        settings: VoteSettings,
    ) -> None:
        timeframes = {one.timeframe for one in served} | {one.timeframe for one in learners}
        if len(timeframes) != 1:
            msg = (
                f"models must all vote on one timeframe; found {sorted(timeframes)}; set `timeframe` "
                f"of each to the same"
            )
            raise ValueError(msg)
        (self.timeframe,) = timeframes
        self.schedule = schedule
        self._partition = partition
        self._served = list(served)
        self._learners = list(learners)
        self._voters: list[OnnxVoter | Learner] = [*served, *learners]
        self._voters.sort(key=lambda one: one.name)
        self._places = {one.name: place for place, one in enumerate(self._voters)}
        self._windows = SequenceWindows(SEQUENCE_SCHEMA)
        self._versions: dict[str, tuple[str, str]] = {}
        candidates = [self._begin(one) for one in self._voters]
        self._panel = VotePanel(candidates, build_rule(settings))
        self._rulings: dict[SymbolKey, list[Ruling]] = {}
        self._pending: Polled | None = None
        self._events: list[ModelEventRecorded] = []
        self._opinions: OpinionRows | None = None

    def _begin(self, voter: OnnxVoter | Learner) -> Candidate:
        trusted = False
        if isinstance(voter, OnnxVoter):
            serving = self.schedule.serving(voter.model, BEGINNING_NS)
            scorer = serving.scorer
            self._versions[voter.name] = _version_of(serving.version, scorer)
            trusted = scorer is not None and scorer.trusted
        return Candidate(name=voter.name, weight=voter.weight, trusted=trusted)

    @property
    def voters(self) -> list[str]:
        """Names of the models, in the order of their votes."""
        return [one.name for one in self._voters]

    @property
    def threshold_bps(self) -> float:
        """Return what an expected edge must exceed."""
        return self._panel.rule.costs.threshold_bps

    @property
    def fingerprint(self) -> str:
        """Return what must be equal for a remembered vote to be continued.

        The version of a served model is no part of it: another one begins anew for itself.
        """
        voters = ",".join(f"{one.name}={one.fingerprint}" for one in self._voters)
        return f"{self.timeframe}/{voters}/{self._panel.rule}"

    @property
    def state(self) -> CouncilState:
        """Return what is remembered; pickle it before the next call, it is not a copy."""
        self._keep_rulings()
        return CouncilState(
            panel=(self.fingerprint, self._panel.state),
            timeframe=self.timeframe,
            windows=self._windows,
            learners={_state_key(one): one.state for one in self._learners},
            versions=self._versions,
            newest_ns=self.schedule.state,
            rulings=self._rulings,
        )

    @state.setter
    def state(self, state: CouncilState) -> None:
        # What other voters or other numbers left behind would mean something else now.
        fingerprint, panel = state.panel
        if fingerprint == self.fingerprint:
            self._panel.state, self._versions = panel, state.versions
            self._rulings = state.rulings
        # Who votes changes no window: a model of sequences need not begin anew with another voter.
        made_of = (state.timeframe, state.windows.schema)
        if made_of == (self.timeframe, self._windows.schema):
            self._windows = state.windows
        for learner in self._learners:
            if _state_key(learner) in state.learners:
                learner.state = state.learners[_state_key(learner)]
        self.schedule.state = state.newest_ns

    def settle(self) -> None:
        """Do the work that was put off so that signals go out first; it changes no vote."""
        self._keep_rulings()
        for learner in self._learners:
            learner.settle()

    def take_events(self) -> list[ModelEventRecorded]:
        """Return what happened to weights and scores since the last call, and forget it."""
        events, self._events = self._events, []
        return events

    def take_opinions(self) -> OpinionRows | None:
        """Return what the last poll said about each bar, once."""
        opinions, self._opinions = self._opinions, None
        return opinions

    def poll(self, bars: BarColumns, rows: Sequence[int]) -> "Polled":
        """Ask every model about `rows`, the bars of the council's timeframe in order of close."""
        self._keep_rulings()
        own = bars if len(rows) == bars.height else bars.take(rows)
        times, closes = own.integers("close_time_ns"), own.floats("close")
        matrix = vector_matrix(own, MODEL_SCHEMA)
        vectors = to_model_inputs(matrix, closes, MODEL_SCHEMA)
        channels = select_channels(vectors, MODEL_SCHEMA, SEQUENCE_SCHEMA)
        windows = self._windows.advance(own, channels)
        inputs = ModelInputs(MODEL_SCHEMA, vectors, SEQUENCE_SCHEMA, windows)
        said = np.full((len(rows), len(self._voters), 3), np.nan)
        answers: dict[str, list[tuple[int, Answers]]] = {}
        for learner in self._learners:
            given = learner.answer(own, vectors)
            answers[learner.name] = [(0, given)]
            said[:, self._places[learner.name]] = given.probabilities
        keys = list(zip(own.texts("venue"), own.texts("symbol"), strict=True))
        volatilities = own.floats(_VOLATILITY)
        opinions = []
        for part in self.schedule.cut(times.tolist()):
            if part.start == part.stop:
                continue
            self._ask_served(inputs, part, int(times[part.start]), said, answers)
            opinions.append(
                self._panel.advance(
                    keys[part], times[part], closes[part], volatilities[part], said[part]
                )
            )
            # Told now: behind the next change a fact would be about another version.
            self._tell()
        if len(times):
            self.schedule.on_bars(int(times[-1]))
        polled = Polled(
            own,
            join_opinions(opinions, len(self._voters)),
            self._panel.governor.configured,
            self.threshold_bps,
            said,
            {name: answers.get(name, []) for name in self.voters},
        )
        self._pending, self._opinions = polled, polled.opinions()
        return polled

    def _ask_served(
        self,
        inputs: ModelInputs,
        part: slice,
        time_ns: int,
        said: FloatArray,
        answers: dict[str, list[tuple[int, Answers]]],
    ) -> None:
        for voter in self._served:
            serving = self.schedule.serving(voter.model, time_ns)
            version = _version_of(serving.version, serving.scorer)
            # Bytes that were missing for a while are the same bytes: what they said before counts.
            if serving.scorer is not None and version != self._versions.get(voter.name):
                self._versions[voter.name] = version
                trusted = serving.scorer.trusted
                self._panel.begin_anew(voter.name, trusted=trusted, time_ns=time_ns)
            given = voter.answer(serving.scorer, serving.reason, inputs, part)
            answers.setdefault(voter.name, []).append((part.start, given))
            said[part, self._places[voter.name]] = given.probabilities

    def _tell(self) -> None:
        learners = {one.name: one for one in self._learners}
        for fact in self._panel.take_facts():
            version, content_hash = self._versions.get(fact.model, ("", ""))
            if fact.model in learners:
                version = learners[fact.model].version
            self._events.append(build_event(fact, self._partition, version, content_hash))

    def rule_before(self, key: SymbolKey, time_ns: int, polled: Polled | None) -> Ruling:
        """Return the newest ruling on a symbol before a bar of another timeframe closed at `time_ns`.

        `polled` is the poll of the same call. A bar of the same close may come before or after, as
        the log was cut, so it is not looked at. One that is older than one bar of the council's
        timeframe says nothing any more: all abstain.
        """
        found = None if polled is None else polled.newest_before(key, time_ns)
        if found is None:
            if polled is None:
                self._keep_rulings()
            kept = reversed(self._rulings.get(key, []))
            found = next((one for one in kept if one.time_ns < time_ns), None)
        if found is None or time_ns - found.time_ns > TIMEFRAME_NS[self.timeframe]:
            return self._abstain()
        age_seconds = (time_ns - found.time_ns) // 1_000_000_000
        note = f"; on the {self.timeframe} bar closed {age_seconds} s before"
        votes = [msgspec.structs.replace(one, reason=one.reason + note) for one in found.votes]
        return msgspec.structs.replace(found, votes=votes)

    def _abstain(self) -> Ruling:
        reason = f"no {self.timeframe} bar closed within one bar before"
        return Ruling(
            time_ns=-1,
            votes=[abstain(one.name, one.kind, "", "", reason) for one in self._voters],
            score=0.0,
            agreement="",
            multiplier=None,
            probabilities=None,
            edges_bps=(None, None),
            threshold_bps=self.threshold_bps,
        )

    def _keep_rulings(self) -> None:
        polled, self._pending = self._pending, None
        if polled is not None:
            for key, rulings in polled.newest(_RULINGS_KEPT):
                self._rulings[key] = [*self._rulings.get(key, []), *rulings][-_RULINGS_KEPT:]


def _version_of(version: str, scorer: Scorer | None) -> tuple[str, str]:
    return (version, "" if scorer is None else scorer.content_hash)


def _state_key(learner: Learner) -> str:
    return f"{learner.name}/{learner.fingerprint}"
