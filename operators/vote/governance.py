"""How much each voter counts: weights earned on settled labels, and who has lost its standing.

Weights follow the Hedge rule, w ~ configured * exp(rate * merit) (Y. Freund and R. E. Schapire, "A
Decision-Theoretic Generalization of On-Line Learning", JCSS 55 (1997)), on a merit that forgets: per
close the mean log-loss below that of the class prior, plus a share of the mean net return per
directional call. A voter that does not beat the prior, answers always the same, does not answer, or
leans against the moves (`operators.vote.direction`), stands on the floor: it keeps the least weight and
no trade may rest on it.

What is in effect changes only at a review: at the first close of a day of event time, if a weight
moved by more than a hundredth, and besides at once when a voter falls to the floor. Every change is a
fact for `model.events`, so what the log says is what was used.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.direction import DirectionRecords
from operators.vote.drift import LossDrift
from operators.vote.facts import VoterFact
from operators.vote.pooling import project_weights
from operators.vote.track_record import SettledOpinions, TrackRecords
from schemas.models import ModelEventKind

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DAY_NS = 86_400_000_000_000
_SUM_TOLERANCE = 1e-9


class GovernanceRule(Struct, frozen=True, kw_only=True):
    """The numbers of governance."""

    floor: float = 0.05
    cap: float = 0.60
    rate: float = 1.0
    """Hedge's learning rate per nat of merit; 1 is Bayes' rule for independent closes."""
    half_life_closes: float = 336.0
    """Closes after which a score counts half: two weeks of hourly bars."""
    recent_half_life_events: float = 250.0
    """The same for what makes a voter fall at once."""
    return_share: float = 0.02
    """Nats per deviation of net return per directional call."""
    scored_min: int = 300
    """Predictions that must have settled before a voter is judged by its score."""
    spread_min: float = 0.002
    """Least range of buy less sell of a voter that is no constant."""
    answered_min: float = 0.5
    """Least share of the recent events that a voter answered."""
    worse_errors: float = 2.5
    """A recent loss above the prior's by so many standard errors makes a voter fall."""
    horizon_closes: int = 4
    """Closes until a label settles; labels of closes nearer than that share bars."""
    direction_slack: float = 0.01
    """Mean lean against the moves that is let pass: that of a voter right in 45 % of the moves."""
    direction_errors: float = 3.0
    """A lean against the moves beyond the slack by so many standard errors makes a voter fall."""
    moved_min: float = 0.01
    """Least change of a weight that a daily review puts into effect."""


class Candidate(Struct, frozen=True, kw_only=True):
    """One voter as it is configured."""

    name: str
    weight: float = 1.0
    """Configured weight, relative to the others'."""
    trusted: bool = False
    """Whether it starts with a standing: its card says that it beats the prior on data it never saw."""


class GovernorState(Struct):
    """All that a governor remembers; picklable."""

    records: TrackRecords
    directions: DirectionRecords
    drifts: list[LossDrift]
    class_counts: FloatArray
    """Discounted labels by class, which make the prior."""
    weights: FloatArray
    """In effect."""
    on_floor: BoolArray
    """In effect."""
    reasons: list[str]
    """Why each voter stands where it stands."""
    reviewed_day: int = -1
    """Day of event time of the last daily review."""
    told_scored: list[int] = []
    """Scored events of each voter when its score was last told."""


class WeightGovernor:
    """Learns from settled opinions, and says which weights count from the next close on.

    It sees one close after the other: `review(t)` before anything of the close at `t` is weighed, and
    `learn` with what that close settled, once all of it is known. So what is in effect at `t` rests
    on labels that were settled strictly before `t`, however the bars were cut.
    """

    def __init__(self, candidates: Sequence[Candidate], rule: GovernanceRule, cost: float) -> None:
        assert candidates
        self.candidates, self.rule, self._cost = tuple(candidates), rule, cost
        self._configured = np.array([max(one.weight, 0.0) for one in candidates])
        count = len(candidates)
        self.state = GovernorState(
            records=TrackRecords.none(count),
            directions=DirectionRecords.none(count, rule.horizon_closes),
            drifts=[LossDrift() for _ in candidates],
            class_counts=np.ones(3),
            weights=np.full(count, 1.0 / count),
            on_floor=np.array([not one.trusted for one in candidates]),
            reasons=[_describe_start(one) for one in candidates],
            told_scored=[0] * count,
        )

    @property
    def configured(self) -> FloatArray:
        """Return the configured weights, summing to 1."""
        total = float(self._configured.sum())
        count = len(self._configured)
        return self._configured / total if total > 0.0 else np.full(count, 1.0 / count)

    @property
    def prior(self) -> FloatArray:
        """Return the class prior (3,) from the labels settled so far."""
        counts = self.state.class_counts
        return np.asarray(counts / counts.sum(), dtype=np.float64)

    def begin_anew(self, voter: int, *, trusted: bool, time_ns: int) -> list[VoterFact]:
        """Forget a voter's record because another version of it votes from `time_ns` on.

        One that is trusted begins at the mean merit of the others off the floor: what they earned
        since the start is no evidence about it, neither against nor for it.
        """
        state = self.state
        state.records.forget(voter)
        state.directions.forget(voter)
        others = ~state.on_floor
        others[voter] = False
        if trusted and others.any():
            state.records.merit[voter] = state.records.merit[others].mean()
        state.drifts[voter] = LossDrift()
        state.told_scored[voter] = 0
        state.on_floor[voter] = not trusted
        candidate = self.candidates[voter]
        state.reasons[voter] = _describe_start(
            Candidate(name=candidate.name, weight=candidate.weight, trusted=trusted)
        )
        return self._adopt(time_ns, state.on_floor.copy())

    def learn(self, opinions: SettledOpinions, time_ns: int) -> list[VoterFact]:
        """Take what the close at `time_ns` settled; return the alarms of the drift detectors."""
        state, rule = self.state, self.rule
        keep = 0.5 ** (1.0 / rule.half_life_closes)
        excess = state.records.learn(
            opinions,
            slow_keep=keep,
            fast_keep=0.5 ** (1.0 / rule.recent_half_life_events),
            cost=self._cost,
            return_share=rule.return_share,
        )
        state.directions.learn(opinions, keep=keep, slack=rule.direction_slack)
        # One pseudo-count per class is kept, so that no class ever becomes impossible.
        state.class_counts = 1.0 + keep * (state.class_counts - 1.0)
        state.class_counts += np.bincount(opinions.labels, minlength=3)
        facts = []
        for voter, loss in enumerate(excess.tolist()):
            if not np.isfinite(loss):
                continue
            for alarm in state.drifts[voter].update(loss):
                reason = (
                    f"{alarm.detector}: log-loss less the prior's rose from "
                    f"{alarm.mean_before:+.4f} to {alarm.mean_after:+.4f} nats"
                )
                facts.append(self._tell(voter, ModelEventKind.DRIFT, time_ns, reason))
        return facts

    def review(self, time_ns: int) -> list[VoterFact]:
        """Put into effect what counts for the close at `time_ns`; return what changed."""
        state = self.state
        on_floor, reasons = self._judge()
        day = time_ns // DAY_NS
        due = day > state.reviewed_day
        fallen = bool((on_floor & ~state.on_floor).any())
        if not (due or fallen):
            return []
        first = state.reviewed_day < 0
        facts = self._tell_scores(time_ns) if due else []
        target = self._weigh(on_floor)
        moved = float(np.abs(target - state.weights).max()) > self.rule.moved_min
        state.reviewed_day = max(day, state.reviewed_day)
        if not (first or moved or (on_floor != state.on_floor).any()):
            return facts
        state.reasons = reasons
        return facts + self._adopt(time_ns, on_floor)

    def _adopt(self, time_ns: int, on_floor: BoolArray) -> list[VoterFact]:
        state = self.state
        state.on_floor = on_floor
        state.weights = self._weigh(on_floor)
        assert abs(float(state.weights.sum()) - 1.0) <= _SUM_TOLERANCE, state.weights
        return [
            self._tell(voter, ModelEventKind.WEIGHTS, time_ns, state.reasons[voter])
            for voter in range(len(self.candidates))
        ]

    def _weigh(self, on_floor: BoolArray) -> FloatArray:
        free = ~on_floor
        if not free.any():
            return project_weights(self.configured, self.rule.floor, self.rule.cap)
        merit = self.rule.rate * self.state.records.merit
        lifted = np.exp(np.where(free, merit - merit[free].max(), -np.inf))
        # Without weight of their own the others are lifted to the floor, and share what the cap
        # leaves over.
        return project_weights(self.configured * lifted, self.rule.floor, self.rule.cap)

    def _judge(self) -> tuple[BoolArray, list[str]]:
        """Return who belongs on the floor now, and why each stands where it stands."""
        state, records = self.state, self.state.records
        gains, errors = records.gains
        numbers = zip(
            records.recent_offered.tolist(),
            records.recent_answered_share.tolist(),
            records.recent_spread.tolist(),
            *(one.tolist() for one in records.recent_gains),
            gains.tolist(),
            errors.tolist(),
            *(one.tolist() for one in state.directions.signed_leans),
            strict=True,
        )
        on_floor, reasons = state.on_floor.copy(), list(state.reasons)
        for voter, values in enumerate(numbers):
            verdict = self._judge_one(int(records.scored[voter]), bool(on_floor[voter]), *values)
            if verdict is not None:
                on_floor[voter], reasons[voter] = verdict
        return on_floor, reasons

    def _judge_one(
        self,
        scored: int,
        stands_on_floor: bool,
        offered: float,
        answered: float,
        spread: float,
        recent_gain: float,
        recent_error: float,
        recent_closes: float,
        gain: float,
        error: float,
        signed_lean: float,
        lean_error: float,
    ) -> tuple[bool, str] | None:
        """Return whether a voter belongs on the floor, and why; None if nothing speaks for a change."""
        rule = self.rule
        enough = min(rule.scored_min, rule.recent_half_life_events) / 2.0
        if offered >= enough and answered < rule.answered_min:
            return True, f"floor: answered {answered:.0%} of the recent events"
        if spread < rule.spread_min:
            return True, f"floor: buy less sell ranges over {spread:.5f} only; a constant"
        worst = recent_gain + rule.worse_errors * recent_error
        if recent_closes >= 3.0 and offered >= enough and worst < 0.0:
            return True, f"floor: {-recent_gain:.4f} nats worse than the prior on recent events"
        best = signed_lean + rule.direction_slack + rule.direction_errors * lean_error
        if best < 0.0:
            against = f"{-signed_lean:.4f} per move against the moves, error {lean_error:.4f}"
            return True, f"floor: leans {against}"
        if scored < rule.scored_min:
            return None
        if gain <= 0.0:
            return True, f"floor: {-gain:.4f} nats worse than the prior"
        # Whoever stands on the floor must show more than luck; whoever does not may be unlucky.
        if stands_on_floor and gain <= error:
            return True, f"floor: {gain:.4f} nats better than the prior, error {error:.4f}"
        return False, f"{gain:.4f} nats better than the prior, error {error:.4f}"

    def _tell_scores(self, time_ns: int) -> list[VoterFact]:
        state = self.state
        gains, _ = state.records.gains
        facts = []
        for voter, scored in enumerate(state.records.scored.tolist()):
            if scored <= state.told_scored[voter]:
                continue
            state.told_scored[voter] = scored
            reason = f"discounted; {gains[voter]:+.4f} nats better than the class prior"
            facts.append(self._tell(voter, ModelEventKind.SCORED, time_ns, reason))
        return facts

    def _tell(self, voter: int, kind: ModelEventKind, time_ns: int, reason: str) -> VoterFact:
        log_loss = float(self.state.records.log_losses[voter])
        return VoterFact(
            model=self.candidates[voter].name,
            kind=kind,
            effective_from_ns=time_ns,
            reason=reason,
            weight_configured=float(self.configured[voter]),
            weight_effective=float(self.state.weights[voter]),
            scored_events=int(self.state.records.scored[voter]),
            log_loss=log_loss if np.isfinite(log_loss) else None,
        )


def _describe_start(candidate: Candidate) -> str:
    if candidate.trusted:
        return "not scored here yet; its card says that it beats the prior"
    return "floor: not scored yet"
