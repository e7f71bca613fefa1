"""What a signal says of the models, held against their opinion and against who served."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

from infra.audit.pooling import HALF_STEP, count_costs
from infra.audit.report import Check, Place
from infra.audit.serving import ModelHistory
from infra.audit.votes import alike
from infra.settings import Settings
from schemas.fields import Action, Stance
from schemas.opinions import OpinionPooled
from schemas.settings import TIMEFRAME_NS, VoteSettings
from schemas.signals import SignalEmitted, Vote

Series = tuple[str, str, str]
"""Venue, symbol and timeframe."""


class Terms(NamedTuple):
    """What the settings behind a record say about the vote."""

    council: str
    """All that the settings say of models and vote: what else they say changes no memory of the vote."""
    voters: list[str]
    timeframes: frozenset[str]
    """That of the models; empty without any."""
    registry: dict[str, str]
    """Name in the registry of each model that is a file, by voter."""
    vote: VoteSettings

    @classmethod
    def of(cls, settings: Settings) -> "Terms":
        """Return the terms of `settings`."""
        models = {name: one for name, one in sorted(settings.models.items()) if one.enabled}
        return cls(
            council=f"{sorted(models.items())} {settings.vote}",
            voters=list(models),
            timeframes=frozenset(one.timeframe for one in models.values()),
            registry={
                name: one.artefact or name for name, one in models.items() if one.kind == "onnx"
            },
            vote=settings.vote,
        )


class Said(NamedTuple):
    """What is kept of an opinion for the signals that carry it."""

    partition: int
    time_ns: int
    """Close of the bar."""
    pooled: tuple[float | None, float | None]
    """Probabilities of sell and buy."""
    agreement: str
    multiplier: float
    edge_bps: float | None
    voters: tuple[str, ...]
    parts: "array[float]"
    """Sell, buy and weight of one voter after the other; NaN where nothing was said."""

    @classmethod
    def of(cls, one: OpinionPooled, partition: int) -> "Said":
        """Return what is kept of `one`, which stands in the lane of `partition`."""
        rows = zip(one.sell, one.buy, one.weights, strict=False)
        parts = array("d", (nan if each is None else each for row in rows for each in row))
        return cls(
            partition,
            one.event_time_ns,
            (one.pooled_sell, one.pooled_buy),
            one.agreement,
            one.multiplier,
            one.edge_bps,
            tuple(one.voters),
            parts,
        )


class SignalVoteAudit:
    """Looks at every signal once all opinions were read."""

    def __init__(
        self, check: Check, said: Mapping[Series, Mapping[int, Said]], history: ModelHistory
    ) -> None:
        """`said` is by series and close, and complete before the first signal."""
        self._check, self._said, self._history = check, said, history
        self.whole = True
        """Whether the first opinion of every partition is still there."""
        self._closes: dict[Series, list[int]] = {}

    def is_gone(self, series: Series, time_ns: int) -> bool:
        """Return whether the opinion on a bar may have been there and is kept no longer."""
        if self.whole:
            return False
        closes = self._closes_of(series)
        return not closes or time_ns < closes[0]

    def see(self, place: Place, signal: SignalEmitted, terms: Terms) -> None:
        """Check pool, agreement, edge, votes and versions of a signal."""
        said = None
        for timeframe in terms.timeframes:
            series = (signal.venue, signal.symbol, timeframe)
            said, missing = self._find(series, signal)
            if missing and self.is_gone(series, signal.event_time_ns):
                return
            if missing and said is None:
                rule = "a signal carries the pooled opinion on its bar"
                found = (signal.probability_sell, signal.probability_buy)
                self._check.violate(rule, place, signal.id, "an opinion on its bar", found)
                return
        models = [vote for vote in signal.votes if vote.kind != "rule"]
        self._check_pool(place, signal, said, terms)
        if said is not None:
            self._check_parts(place, signal, said, models)
        for vote in models:
            if vote.voter in terms.registry:
                self._check_version(place, signal, said, vote, terms.registry[vote.voter])

    def _find(self, series: Series, signal: SignalEmitted) -> tuple[Said | None, bool]:
        """Return the opinion that a signal carries, and whether one that must be is missing.

        On a bar of another timeframe it is the newest before it that is no older than one bar.
        """
        said = self._said.get(series, {})
        time_ns, timeframe = signal.event_time_ns, series[2]
        if signal.timeframe == timeframe:
            return said.get(time_ns), time_ns not in said
        closes = self._closes_of(series)
        at = bisect_left(closes, time_ns)
        oldest_ns = time_ns - TIMEFRAME_NS[timeframe]
        if at and closes[at - 1] >= oldest_ns:
            return said[closes[at - 1]], False
        return None, self.is_gone(series, oldest_ns)

    def _closes_of(self, series: Series) -> list[int]:
        if series not in self._closes:
            self._closes[series] = sorted(self._said.get(series, {}))
        return self._closes[series]

    def _check_pool(
        self, place: Place, signal: SignalEmitted, said: Said | None, terms: Terms
    ) -> None:
        found = (signal.probability_sell, signal.probability_buy)
        expected = (None, None) if said is None else said.pooled
        if not all(_near(a, b) for a, b in zip(expected, found, strict=True)):
            rule = "a signal carries the pooled opinion on its bar"
            self._check.violate(rule, place, signal.id, expected, found)
            return
        multiplier = None if said is None or None in said.pooled else said.multiplier
        agreement = "" if said is None else said.agreement
        if signal.agreement != agreement or not _near(multiplier, signal.multiplier):
            rule = "a signal carries agreement and multiplier of the opinion on its bar"
            told = (signal.agreement, signal.multiplier)
            self._check.violate(rule, place, signal.id, (agreement, multiplier), told)
        costs = count_costs(terms.vote)
        edges_bps = _edges_bps(said, signal.action, costs.round_trip_bps)
        threshold_bps = costs.threshold_bps if terms.voters else None
        if not (
            any(_near(one, signal.expected_edge_bps) for one in edges_bps)
            and _near(threshold_bps, signal.edge_threshold_bps)
        ):
            rule = "a signal carries edge and threshold of the opinion on its bar"
            told_bps = (signal.expected_edge_bps, signal.edge_threshold_bps)
            self._check.violate(rule, place, signal.id, (edges_bps, threshold_bps), told_bps)

    def _check_parts(
        self, place: Place, signal: SignalEmitted, said: Said, models: Sequence[Vote]
    ) -> None:
        rule = "the votes of a signal are those of the opinion on its bar"
        names = tuple(vote.voter for vote in models)
        if names != said.voters:
            self._check.violate(rule, place, signal.id, said.voters, names)
            return
        for i, vote in enumerate(models):
            expected = [None if isnan(each) else each for each in said.parts[3 * i : 3 * i + 3]]
            found = [vote.probability_sell, vote.probability_buy, vote.weight]
            if not all(_near(a, b) for a, b in zip(expected, found, strict=False)):
                key = f"{signal.id}/{vote.voter}"
                self._check.violate(rule, place, key, expected, found)

    def _check_version(
        self, place: Place, signal: SignalEmitted, said: Said | None, vote: Vote, model: str
    ) -> None:
        # Without an opinion nobody was asked; who could not be loaded abstains without a version.
        served = ("", "")
        if said is not None:
            served = self._history.version(said.partition, model, said.time_ns)
        found = (vote.version, vote.content_hash)
        if found != served and not (vote.stance is Stance.ABSTAIN and found == ("", "")):
            rule = "a model votes with the version that served then"
            self._check.violate(rule, place, f"{signal.id}/{vote.voter}", served, found)


def _edges_bps(
    said: Said | None, action: Action, round_trip_bps: float
) -> tuple[float | None, ...]:
    """Return what the edge of buying (enter) or selling (exit) may be, the opinion has the better."""
    if said is None or None in said.pooled or said.edge_bps is None:
        return (None,)
    sell, buy = said.pooled
    worse = -said.edge_bps - 2.0 * round_trip_bps
    if sell == buy:
        return said.edge_bps, worse  # Rounding hides which is the better one.
    assert sell is not None
    assert buy is not None
    return (said.edge_bps if (buy > sell) is (action is Action.ENTER) else worse,)


def _near(rounded: float | None, exact: float | None) -> bool:
    return alike(rounded, exact, HALF_STEP)
