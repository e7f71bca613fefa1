"""The vote on every bar of one partition: pooled opinion, agreement, edge, and what it taught."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from operators.vote.agreement import (
    Multipliers,
    classify,
    count_agreeing,
    find_confidence,
    find_directions,
    find_leans,
    scale_scores,
)
from operators.vote.edge import TradingCosts, expected_edges_bps, expected_move_bps
from operators.vote.facts import VoterFact
from operators.vote.governance import Candidate, GovernanceRule, GovernorState, WeightGovernor
from operators.vote.labels import (
    HOLD,
    UNKNOWN,
    LabelRule,
    OpenLabels,
    Settled,
    find_bounds,
    order_rows,
)
from operators.vote.pooling import find_present, pool_opinions, spread_weights
from operators.vote.tilt import Tilts, take_off
from operators.vote.track_record import SettledOpinions
from schemas.models import ModelEventKind

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
SymbolKey = tuple[str, str]
"""Venue and symbol."""


class PanelRule(Struct, frozen=True, kw_only=True):
    """The numbers of the vote."""

    label: LabelRule = LabelRule()
    costs: TradingCosts = TradingCosts()
    governance: GovernanceRule = GovernanceRule()
    lean_min: float = 0.02
    """Least difference of buy and sell with which a voter agrees with a direction."""
    tilt_half_life_closes: float = 168.0
    """Closes after which an opinion counts half in what a voter says always; 0 takes nothing off."""


class Opinion(Struct, frozen=True, kw_only=True):
    """What the panel says about each row of a call; every array has one entry per row."""

    counted: FloatArray
    """(rows, voters, 3): what each voter said, its tilt taken off; NaN where it abstained."""
    tilts: FloatArray
    """(rows, voters): what was taken off the log-odds of buy against sell, in nats."""
    probabilities: FloatArray
    """(rows, 3) pooled; NaN where every voter abstained."""
    weights: FloatArray
    """(rows, voters) effective, summing to 1; 0 for a voter that abstained."""
    on_floor: BoolArray
    """(rows, voters): voters on which no trade may rest."""
    present: BoolArray
    """(rows, voters): voters that gave a distribution."""
    directions: IntArray
    """-1 sell, 0 none, 1 buy."""
    agreements: IntArray
    """Place in `operators.vote.agreement.CLASSES`; -1 without a direction."""
    agreeing: IntArray
    """Voters off the floor that lean in the direction."""
    multipliers: FloatArray
    confidence: FloatArray
    """max(buy, sell) / (buy + sell) of the pool; NaN without an opinion."""
    scores: FloatArray
    """(buy - sell) * multiplier within +-0.95; 0 without an opinion."""
    edges_bps: FloatArray
    """(rows, 2): expected edge after costs of selling and of buying, multiplied; NaN if unknown."""
    stances: IntArray
    """After the threshold: 0 sell, 1 hold, 2 buy, -1 no opinion."""
    priors: FloatArray
    """(rows, 3): the class prior in effect."""


class _Open(Struct):
    """What was said about the bars whose horizon is open, by (series, slot)."""

    probabilities: FloatArray
    leans: FloatArray
    priors: FloatArray
    deviations: FloatArray
    codes: IntArray
    directions: IntArray
    confidence: FloatArray


class _Lesson(Struct):
    """What one call learnt about the newest close; a later call may bring more of the same close."""

    codes: IntArray
    opinions: SettledOpinions
    agreements: IntArray
    directions: IntArray
    confidence: FloatArray


class PanelState(Struct):
    """All that a panel remembers; picklable, and it continues bit for bit."""

    series: dict[SymbolKey, int]
    labels: OpenLabels
    open: _Open
    lessons: list[_Lesson]
    """Of the newest close, until a later one shows that it is complete."""
    governor: GovernorState
    multipliers: Multipliers
    tilts: Tilts
    time_ns: int = -1
    """Newest close."""


class VotePanel:
    """Weighs the voters on every bar of one timeframe and learns from the bars that close later.

    Give it every bar of the timeframe, in order of close; bars of one close may come in several
    calls. All bars of one close see the same weights, and these rest on labels that were settled
    strictly before. The output depends on the bars alone, never on the cut.
    """

    def __init__(self, candidates: Sequence[Candidate], rule: PanelRule) -> None:
        self.rule = rule
        cost = rule.costs.round_trip_bps / 1e4
        self._governor = WeightGovernor(candidates, rule.governance, cost)
        count = len(candidates)
        self._state = PanelState(
            series={},
            labels=OpenLabels.none(rule.label),
            open=_no_open(count, rule.label.horizon_bars),
            lessons=[],
            governor=self._governor.state,
            multipliers=Multipliers.fresh(),
            tilts=Tilts.none(count),
        )
        self._facts: list[VoterFact] = []

    @property
    def voters(self) -> tuple[str, ...]:
        """Names of the voters, in the order of every array."""
        return tuple(one.name for one in self._governor.candidates)

    @property
    def state(self) -> PanelState:
        """Return what is remembered; pickle it before the next call, it is not a copy."""
        return self._state

    @state.setter
    def state(self, state: PanelState) -> None:
        self._state = state
        self._governor.state = state.governor

    @property
    def governor(self) -> WeightGovernor:
        """Weights, standing and reasons in effect."""
        return self._governor

    def take_facts(self) -> list[VoterFact]:
        """Return what happened to the voters since the last call, in order, and forget it.

        Of the weights that a voter was given at one close only the last ones count.
        """
        facts, self._facts = self._facts, []
        newest = {
            (fact.model, fact.effective_from_ns): fact
            for fact in facts
            if fact.kind is ModelEventKind.WEIGHTS
        }
        return [
            fact
            for fact in facts
            if newest.get((fact.model, fact.effective_from_ns), fact) is fact
            or fact.kind is not ModelEventKind.WEIGHTS
        ]

    def begin_anew(self, voter: str, *, trusted: bool, time_ns: int) -> None:
        """Forget what another version of `voter` said; `time_ns` is the first close of the new one."""
        place = self.voters.index(voter)
        self._state.tilts.forget(place)
        self._state.open.probabilities[:, :, place] = np.nan
        for lesson in self._state.lessons:
            lesson.opinions.probabilities[:, place] = np.nan
        self._facts += self._governor.begin_anew(place, trusted=trusted, time_ns=time_ns)

    def advance(
        self,
        keys: Sequence[SymbolKey],
        times_ns: IntArray,
        closes: FloatArray,
        volatilities: FloatArray,
        probabilities: FloatArray,
    ) -> Opinion:
        """Return the opinion on every bar.

        `times_ns` are closes and never fall; `volatilities` (standard deviation of the return of one
        bar, as a fraction) are NaN where missing; `probabilities` (rows, voters, 3) are NaN where a
        voter abstains. What is no distribution counts as an abstention.
        """
        assert probabilities.shape == (len(keys), len(self.voters), 3)
        series = self._state.series
        codes = np.array([series.setdefault(key, len(series)) for key in keys], dtype=np.int64)
        self._make_room(len(series))
        parts = []
        for start, end in pairwise(find_bounds(times_ns)):
            time_ns, rows = int(times_ns[start]), slice(start, end)
            self._open_close(time_ns)
            said = probabilities[rows].copy()
            said[~find_present(said)] = np.nan
            opinion = self._weigh(said, volatilities[rows])
            if self.rule.tilt_half_life_closes:
                self._state.tilts.remember(codes[rows], said)
            self._remember(codes[rows], closes[rows], volatilities[rows], said, opinion)
            parts.append(opinion)
        return join_opinions(parts, len(self.voters))

    def _open_close(self, time_ns: int) -> None:
        """Begin with the close at `time_ns`: what the one before it settled is complete now."""
        state = self._state
        if time_ns == state.time_ns:
            return
        assert time_ns > state.time_ns, (time_ns, state.time_ns)
        if state.lessons:
            lesson = _merge(state.lessons, list(state.series))
            state.multipliers.learn(
                lesson.agreements, lesson.directions, lesson.confidence, lesson.opinions.labels
            )
            self._facts += self._governor.learn(lesson.opinions, time_ns)
            state.lessons = []
        state.tilts.close(list(state.series), self.rule.tilt_half_life_closes)
        state.time_ns = time_ns
        self._facts += self._governor.review(time_ns)

    def _weigh(self, said: FloatArray, volatilities: FloatArray) -> Opinion:
        rule, governor = self.rule, self._governor.state
        present = np.isfinite(said[..., 0])
        weights = spread_weights(
            governor.weights, present, rule.governance.floor, rule.governance.cap
        )
        tilts = np.tile(self._state.tilts.in_nats, (len(said), 1))
        counted = take_off(said, tilts)
        pooled = pool_opinions(counted, weights)
        directions, leans = find_directions(pooled), find_leans(counted, rule.lean_min)
        agreements = classify(leans, weights, directions)
        multipliers = self._state.multipliers.of(agreements)
        on_floor = np.tile(governor.on_floor, (len(said), 1))
        moves = expected_move_bps(volatilities, rule.label) * multipliers
        edges = expected_edges_bps(pooled, moves, rule.costs)
        return Opinion(
            counted=counted,
            tilts=tilts,
            probabilities=pooled,
            weights=weights,
            on_floor=on_floor,
            present=present,
            directions=directions,
            agreements=agreements,
            agreeing=count_agreeing(leans, present & ~on_floor, directions),
            multipliers=multipliers,
            confidence=find_confidence(pooled),
            scores=scale_scores(pooled, multipliers),
            edges_bps=edges,
            stances=_decide(pooled, edges, rule.costs.threshold_bps),
            priors=np.tile(self._governor.prior, (len(said), 1)),
        )

    def _remember(
        self,
        codes: IntArray,
        closes: FloatArray,
        volatilities: FloatArray,
        said: FloatArray,
        opinion: Opinion,
    ) -> None:
        state = self._state
        settled, slots = state.labels.advance(codes, closes, volatilities)
        if len(settled.rows):
            state.lessons.append(_take_lesson(state.open, settled))
        at = (codes, slots)
        state.open.probabilities[at] = opinion.counted
        state.open.leans[at] = said[..., 2] - said[..., 0]
        state.open.priors[at] = opinion.priors
        state.open.deviations[at] = volatilities * self.rule.label.horizon_bars**0.5
        state.open.codes[at] = opinion.agreements
        state.open.directions[at] = opinion.directions
        state.open.confidence[at] = opinion.confidence

    def _make_room(self, count: int) -> None:
        held = self._state.open
        added = count - len(held.priors)
        if added > 0:
            more = _no_open(len(self.voters), self.rule.label.horizon_bars, added)
            self._state.open = _Open(
                *(
                    np.concatenate([getattr(held, name), getattr(more, name)])
                    for name in _Open.__struct_fields__
                )
            )


def _no_open(voters: int, slots: int, series: int = 0) -> _Open:
    shape = (series, slots)
    return _Open(
        np.full((*shape, voters, 3), np.nan),
        np.full((*shape, voters), np.nan),
        np.full((*shape, 3), np.nan),
        np.full(shape, np.nan),
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.full(shape, np.nan),
    )


def _take_lesson(held: _Open, settled: Settled) -> _Lesson:
    """Return what was said about the bars that are settled; those without a label teach nothing."""
    known = settled.labels != UNKNOWN
    codes, slots = settled.codes[known], settled.slots[known]
    at = (codes, slots)
    return _Lesson(
        codes,
        SettledOpinions(
            probabilities=held.probabilities[at],
            leans=held.leans[at],
            priors=held.priors[at],
            labels=settled.labels[known],
            returns=settled.returns[known],
            deviations=held.deviations[at],
        ),
        held.codes[at],
        held.directions[at],
        held.confidence[at],
    )


def _merge(lessons: list[_Lesson], names: list[SymbolKey]) -> _Lesson:
    """Return all lessons of one close in order of venue and symbol, however they came in."""
    codes = np.concatenate([one.codes for one in lessons])
    order = order_rows(codes, names)
    opinions = {
        name: np.concatenate([getattr(one.opinions, name) for one in lessons])[order]
        for name in SettledOpinions.__struct_fields__
    }
    rest = (
        np.concatenate([getattr(one, name) for one in lessons])[order]
        for name in ("agreements", "directions", "confidence")
    )
    return _Lesson(codes[order], SettledOpinions(**opinions), *rest)


def _decide(pooled: FloatArray, edges_bps: FloatArray, threshold_bps: float) -> IntArray:
    """Return the stance that the threshold leaves: an edge that is unknown approves nothing."""
    stances = np.full(len(pooled), HOLD)
    # Comparisons with NaN are false: what must hold is asked.
    with np.errstate(invalid="ignore"):
        stances[edges_bps[:, 0] > threshold_bps] = 0
        stances[edges_bps[:, 1] > threshold_bps] = 2
    stances[~np.isfinite(pooled[:, 0])] = -1
    return stances.astype(np.int64)


def join_opinions(parts: list[Opinion], voters: int) -> Opinion:
    """Return the rows of all `parts` as one opinion of so many voters."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _no_opinion(voters)
    return Opinion(
        **{
            name: np.concatenate([getattr(one, name) for one in parts])
            for name in Opinion.__struct_fields__
        }
    )


def _no_opinion(voters: int) -> Opinion:
    numbers, codes = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Opinion(
        counted=np.zeros((0, voters, 3)),
        tilts=np.zeros((0, voters)),
        probabilities=np.zeros((0, 3)),
        weights=np.zeros((0, voters)),
        on_floor=np.zeros((0, voters), dtype=np.bool_),
        present=np.zeros((0, voters), dtype=np.bool_),
        directions=codes,
        agreements=codes,
        agreeing=codes,
        multipliers=numbers,
        confidence=numbers,
        scores=numbers,
        edges_bps=np.zeros((0, 2)),
        stances=codes,
        priors=np.zeros((0, 3)),
    )
