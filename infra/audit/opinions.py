"""The vote on every bar, counted again from the record of it as far as its rounding allows.

What it rests on is taken from elsewhere: who votes and what trading costs from the settings behind the
record, weights and versions from `model.events`, the volatility from the feature vector of the bar.
"""

from math import fsum
from typing import NamedTuple

from infra.audit.ballots import Said, Series, SignalVoteAudit, Terms
from infra.audit.evidence import Evidence
from infra.audit.pooling import (
    CLASSES,
    HALF_STEP,
    HOLD_STEP,
    MULTIPLIER_MAX,
    MULTIPLIER_MIN,
    allowed_agreements,
    count_costs,
    edge_bounds,
    find_leaning,
    pool_bounds,
    project_weights,
)
from infra.audit.report import Check, Place
from infra.audit.serving import ModelHistory, Standing
from infra.audit.tilts import TiltAudit
from schemas.features import FEATURE_SCHEMAS
from schemas.ids import bar_id
from schemas.market import FeaturesComputed
from schemas.models import ModelEventRecorded
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted

STANCES = frozenset({"sell", "hold", "buy", "abstain"})
AGREEMENTS = frozenset({"", *(name for name, _ in CLASSES)})

_VOLATILITY = "volatility_30"
_DECIDED = {-1: {"sell"}, 0: {"sell", "buy"}, 1: {"buy"}}
"""What an edge above the threshold decides, by direction; 0 where rounding hides it."""


class _Vector(NamedTuple):
    """What is kept of the feature vector of a bar that is voted on."""

    partition: int
    volatility: float | None
    has_volatility: bool
    """Whether the schema has it at all."""


class OpinionAudit:
    """Looks at every opinion, then at the signals that carry one.

    Events of models are seen before feature vectors, these before opinions, these before signals.
    """

    def __init__(self, check: Check, evidence: Evidence) -> None:
        self._check, self._evidence = check, evidence
        self._history = ModelHistory()
        self._terms: dict[str, Terms] = {}
        self._vectors: dict[Series, dict[int, _Vector]] = {}
        """By close."""
        self._said: dict[Series, dict[int, Said]] = {}
        """By close."""
        self._signals = SignalVoteAudit(check, self._said, self._history)
        self._tilts = TiltAudit(check, self._history)
        self._shares: dict[tuple[object, ...], list[float]] = {}

    def see_event(self, event: ModelEventRecorded) -> None:
        """Keep who serves from when on, and who counts what."""
        self._history.see(event)

    def see_vector(self, message: FeaturesComputed, config: str) -> None:
        """Keep what a vote on this bar rests on; `config` names the settings behind the vector."""
        if message.timeframe not in self._terms_of(config).timeframes:
            return
        schema = FEATURE_SCHEMAS.get(message.schema_name)
        has = schema is not None and _VOLATILITY in schema.names
        volatility = None
        if schema is not None and has and len(message.vector) == len(schema):
            volatility = message.vector[schema.names.index(_VOLATILITY)]
        series = self._vectors.setdefault(_series(message), {})
        series[message.close_time_ns] = _Vector(message.partition, volatility, has)

    def begin_late(self) -> None:
        """Take note that the first opinions of some partition are gone."""
        self._signals.whole = False

    def see(self, place: Place, one: OpinionPooled, config: str) -> None:
        """Check the parts, then what was made of them; `config` names the settings behind it."""
        self._check.rows += 1
        terms, series = self._terms_of(config), _series(one)
        vector = self._vectors.get(series, {}).get(one.event_time_ns)
        partition = place.partition if vector is None else vector.partition
        self._said.setdefault(series, {})[one.event_time_ns] = Said.of(one, partition)
        lists = (one.voters, one.sell, one.buy, one.stances, one.weights)
        # A release from before tilts were taken off told neither.
        told = (*lists, one.raw_stances, one.tilts) if one.raw_stances or one.tilts else lists
        lengths = sorted({len(each) for each in told})
        if lengths != [len(set(one.voters))]:
            rule = "every voter of an opinion has one entry in each list"
            self._check.violate(rule, place, one.id, len(set(one.voters)), lengths)
            return
        rule = "the voters of an opinion are the models of the settings"
        self._check.require(rule, place, one.id, terms.voters, one.voters)
        for row in zip(*lists, strict=True):
            self._check_voter(place, f"{one.id}/{row[0]}", *row[1:])
        standings = self._history.standings(partition, one.voters, one.event_time_ns)
        self._check_weights(place, one, terms, standings)
        if told is lists:
            self._check.skip("opinions without tilts: what was taken off was not counted again")
        elif self._signals.whole:
            self._tilts.see(place, one, partition, terms)
        self._check_pool(place, one)
        self._check_agreement(place, one, terms, standings)
        self._check_edge(place, one, terms, vector)
        self._check_decision(place, one)

    def see_signal(self, place: Place, signal: SignalEmitted, config: str) -> None:
        """Hold what a signal says of the models against their opinion; opinions were read before."""
        self._signals.see(place, signal, self._terms_of(config))

    def compare(self) -> None:
        """Record the bars of the models' timeframe on which there is no opinion."""
        missing: dict[str, list[tuple[int, int, Series]]] = {}
        expected: dict[str, int] = {}
        for series, vectors in self._vectors.items():
            said = self._said.get(series, {})
            due = [ns for ns in vectors if not self._signals.is_gone(series, ns)]
            expected[series[2]] = expected.get(series[2], 0) + len(due)
            missing.setdefault(series[2], []).extend(
                (ns, vectors[ns].partition, series) for ns in due if ns not in said
            )
            if any(not vectors[ns].has_volatility for ns in said if ns in vectors):
                self._check.skip(f"edges of vectors without {_VOLATILITY} were not counted again")
        if not self._signals.whole:
            self._check.skip(
                "the first opinions are gone: bars before them were not looked at, nor any tilt"
            )
        for timeframe, bars in sorted(missing.items()):
            if bars:
                rule = "there is one opinion on each bar of the models with a feature vector"
                ns, partition, series = min(bars)
                place = Place(OpinionPooled.topic, partition, -1)
                found = expected[timeframe] - len(bars)
                self._check.violate(rule, place, bar_id(*series, ns), expected[timeframe], found)

    def _terms_of(self, config: str) -> Terms:
        if config not in self._terms:
            self._terms[config] = Terms.of(self._evidence.settings_of(config))
        return self._terms[config]

    def _check_voter(
        self,
        place: Place,
        key: str,
        sell: float | None,
        buy: float | None,
        stance: str,
        weight: float,
    ) -> None:
        if stance == "abstain" or sell is None or buy is None:
            rule = "who abstains has no weight and says nothing"
            expected = (None, None, "abstain", 0.0)
            self._check.require(rule, place, key, expected, (sell, buy, stance, weight))
            return
        if not (sell >= 0 and buy >= 0 and sell + buy <= 1 + HOLD_STEP and stance in STANCES):
            rule = "who votes gives a distribution and a stance"
            self._check.violate(rule, place, key, "a distribution", (sell, buy, stance))
        self._check_stance(place, key, sell, buy, stance)

    def _check_stance(self, place: Place, key: str, sell: float, buy: float, stance: str) -> None:
        # Both are measured against one base rate, so the greater one is lifted more.
        if (stance == "buy" and buy < sell) or (stance == "sell" and sell < buy):
            rule = "a stance is the greater of buy and sell, or hold"
            self._check.violate(rule, place, key, f"not {stance}", (sell, buy, stance))

    def _check_weights(
        self, place: Place, one: OpinionPooled, terms: Terms, standings: list[Standing | None]
    ) -> None:
        total, count = fsum(one.weights), sum(weight > 0 for weight in one.weights)
        expected = 1.0 if count else 0.0
        whole = abs(total - expected) <= count * HALF_STEP
        if not (whole and all(weight >= 0 for weight in one.weights)):
            rule = "the weights of an opinion are shares of one vote: they sum to one"
            self._check.violate(rule, place, one.id, expected, total)
        told = [None if each is None else each.weight for each in standings]
        shares = self._share(told, [said is not None for said in one.sell], terms)
        if shares is None or any(
            abs(share - weight) > HALF_STEP
            for share, weight in zip(shares, one.weights, strict=True)
        ):
            rule = "the weights of an opinion are those that were told before"
            shown = None if shares is None else [round(share, 4) for share in shares]
            self._check.violate(rule, place, one.id, shown, one.weights)

    def _share(
        self, told: list[float | None], speaks: list[bool], terms: Terms
    ) -> list[float] | None:
        """Return the weights of those who speak, 0 for others; None if a weight was never told."""
        key = (*told, *speaks, terms.vote.weight_floor, terms.vote.weight_cap)
        if key not in self._shares:
            raw = [one for one, said in zip(told, speaks, strict=True) if said and one is not None]
            if len(raw) < sum(speaks):
                return None
            vote = terms.vote
            found = iter(project_weights(raw, vote.weight_floor, vote.weight_cap) if raw else ())
            self._shares[key] = [next(found) if said else 0.0 for said in speaks]
        return self._shares[key]

    def _check_pool(self, place: Place, one: OpinionPooled) -> None:
        voting = [place for place, weight in enumerate(one.weights) if weight > 0]
        found = (one.pooled_sell, one.pooled_buy)
        if not voting or None in found:
            rule = "there is a pooled opinion if and only if a voter has a weight"
            self._check.require(rule, place, one.id, bool(voting), None not in found)
            return
        sells, buys = ([part[i] or 0.0 for i in voting] for part in (one.sell, one.buy))
        weights = [one.weights[i] for i in voting]
        low_sell, high_sell, low_buy, high_buy = pool_bounds(sells, buys, weights)
        for name, value, low, high in (
            ("sell", one.pooled_sell, low_sell, high_sell),
            ("buy", one.pooled_buy, low_buy, high_buy),
        ):
            assert value is not None
            if not low - HALF_STEP <= value <= high + HALF_STEP:
                rule = f"the pooled probability of {name} follows from the parts"
                self._check.violate(rule, place, one.id, (round(low, 4), round(high, 4)), value)

    def _check_agreement(
        self, place: Place, one: OpinionPooled, terms: Terms, standings: list[Standing | None]
    ) -> None:
        if one.agreement not in AGREEMENTS or one.pooled_stance not in STANCES:
            rule = "an opinion names a known agreement and stance"
            found = (one.agreement, one.pooled_stance)
            self._check.violate(rule, place, one.id, "known names", found)
        direction = _direction(one)
        classes, counts = ({""}, {0}) if not direction else (set[str](), set[int]())
        spoken = one.pooled_sell is not None and one.pooled_buy is not None
        # Where both round to the same the pool may lean either way, or not at all.
        for way in (direction,) if direction else (-1, 1) if spoken else ():
            leaning = find_leaning(one.sell, one.buy, way, terms.vote.lean_min)
            classes |= allowed_agreements(leaning, one.weights)
            counted = [
                leans
                for leans, standing in zip(leaning, standings, strict=True)
                if standing is not None and not standing.on_floor
            ]
            least = counted.count(True)
            counts |= set(range(least, least + counted.count(None) + 1))
        if one.agreement not in classes:
            rule = "the agreement follows from who leans with the pool, and from the weights"
            self._check.violate(rule, place, one.id, sorted(classes), one.agreement)
        if one.agreeing not in counts:
            rule = "those who agree are the voters off the floor that lean with the pool"
            self._check.violate(rule, place, one.id, sorted(counts), one.agreeing)
        low, high = (MULTIPLIER_MIN, MULTIPLIER_MAX) if one.agreement else (1.0, 1.0)
        if not low <= one.multiplier <= high:
            rule = "a multiplier is within its bounds, and one without a direction"
            self._check.violate(rule, place, one.id, (low, high), one.multiplier)

    def _check_edge(
        self, place: Place, one: OpinionPooled, terms: Terms, vector: _Vector | None
    ) -> None:
        threshold_bps = count_costs(terms.vote).threshold_bps
        if not abs(one.threshold_bps - threshold_bps) <= HALF_STEP:
            rule = "the threshold follows from the costs of the settings"
            self._check.violate(rule, place, one.id, threshold_bps, one.threshold_bps)
        if one.pooled_sell is None or one.pooled_buy is None:
            rule = "an edge follows from the pool, the multiplier and the volatility"
            self._check.require(rule, place, one.id, None, one.edge_bps)
            return
        if vector is None or not vector.has_volatility:
            return  # An opinion without its vector is an orphan, which the causal chain names.
        rule = "an edge follows from the pool, the multiplier and the volatility"
        if vector.volatility is None or one.edge_bps is None:
            known = vector.volatility is not None
            self._check.require(rule, place, one.id, known, one.edge_bps is not None)
            return
        lean = one.pooled_buy - one.pooled_sell
        low, high = edge_bounds(lean, one.multiplier, vector.volatility, terms.vote)
        if not low <= one.edge_bps <= high:
            self._check.violate(rule, place, one.id, (round(low, 4), round(high, 4)), one.edge_bps)

    def _check_decision(self, place: Place, one: OpinionPooled) -> None:
        sell, buy, edge_bps = one.pooled_sell, one.pooled_buy, one.edge_bps
        if sell is None or buy is None:
            allowed = {"abstain"}
            rule = "a pool without an opinion abstains"
            self._check.require(rule, place, one.id, "abstain", one.pooled_stance)
        else:
            decided = _DECIDED[_direction(one)]
            if edge_bps is None or edge_bps < one.threshold_bps - HALF_STEP:
                allowed = {"hold"}
            elif edge_bps > one.threshold_bps + HALF_STEP:
                allowed = decided
            else:
                allowed = {"hold", *decided}
            self._check_stance(place, one.id, sell, buy, one.pooled_stance)
        if one.decided_stance not in allowed:
            rule = "what is decided follows from the pool, the edge and the threshold"
            self._check.violate(rule, place, one.id, sorted(allowed), one.decided_stance)


def _series(message: OpinionPooled | FeaturesComputed) -> Series:
    return message.venue, message.symbol, message.timeframe


def _direction(one: OpinionPooled) -> int:
    """Return the sign of pooled buy less sell, 0 where there is no pool or rounding hides it."""
    if one.pooled_sell is None or one.pooled_buy is None:
        return 0
    return (one.pooled_buy > one.pooled_sell) - (one.pooled_buy < one.pooled_sell)
