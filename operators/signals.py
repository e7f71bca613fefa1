"""From the features of closed bars to signals: edges of rules, and every vote on the same bar."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from operators.bar_columns import BarColumns, SeriesKey
from operators.council import Council, CouncilState
from operators.rulings import OpinionRows, Polled, Ruling
from operators.strategies import Conditions
from operators.strategies.base import BAR_COLUMNS, VOTE_COLUMNS, Strategy, number
from operators.voters.base import abstain
from schemas.fields import Action, Provenance, Stance
from schemas.ids import derive_id, features_id
from schemas.models import ModelEventRecorded
from schemas.operations import AlertRaised, ControlCommanded
from schemas.signals import SignalEmitted, Vote

BoolArray = npt.NDArray[np.bool_]
_ACTIONS = (Action.ENTER, Action.EXIT)
_NO_RULING = Ruling(
    time_ns=-1,
    votes=[],
    score=0.0,
    agreement="",
    multiplier=None,
    probabilities=None,
    edges_bps=(None, None),
    threshold_bps=None,
)
_TEXTS = ("venue", "symbol", "timeframe", "id", "provenance")


class SignalState(Struct):
    """All that a signal machine remembers; it pickles, and continues bit for bit."""

    series: list[SeriesKey]
    """Every series seen, in order of appearance."""
    holds: dict[str, BoolArray]
    """By a strategy's content hash: (series, 2) whether entry and exit held on the last bar."""
    council: CouncilState | None
    """What the models remember."""


class SignalMachine:
    """Emits a signal when a strategy's entry or exit starts to hold on a symbol.

    A condition that held on the symbol's previous bar of that timeframe emits nothing. With every
    signal come the votes of all strategies and models; rules propose, so their votes weigh nothing,
    and the score is what the models of the council say together. A bar of another timeframe than the
    council's is judged by the newest opinion on its symbol, if that is no older than one bar. The
    output depends on the bars alone, never on how they were cut into frames.
    """

    def __init__(self, strategies: Sequence[Strategy[Any]], council: Council | None = None) -> None:
        self._strategies = sorted(strategies, key=lambda strategy: strategy.name)
        self._council = council
        self._hashes = [strategy.content_hash for strategy in self._strategies]
        self._timeframes: set[str] = {one.timeframe for one in strategies}
        if council is not None:
            self._timeframes.add(council.timeframe)
        self._conditions = Conditions(self._strategies)
        inputs = {name for one in strategies for name in one.inputs}
        self._numbers = sorted(inputs.union(BAR_COLUMNS))
        self._series: dict[SeriesKey, int] = {}
        self._holds: BoolArray = np.zeros((0, len(self._strategies), 2), dtype=np.bool_)

    @property
    def state(self) -> SignalState:
        """Return what is remembered; pickle it before the next `on_features`, it is not a copy."""
        used = len(self._series)
        return SignalState(
            series=list(self._series),
            holds={key: self._holds[:used, i] for i, key in enumerate(self._hashes)},
            council=None if self._council is None else self._council.state,
        )

    @state.setter
    def state(self, state: SignalState) -> None:
        # A strategy or model whose content changed since starts anew: what the old one remembered
        # would mean something else under the new numbers.
        self._series = {key: i for i, key in enumerate(state.series)}
        self._holds = np.zeros((len(state.series), len(self._strategies), 2), dtype=np.bool_)
        for i, key in enumerate(self._hashes):
            if key in state.holds:
                self._holds[:, i] = state.holds[key]
        if self._council is not None and state.council is not None:
            self._council.state = state.council

    def on_features(self, frame: pl.DataFrame | BarColumns) -> list[SignalEmitted]:
        """Return the signals of closed bars, sorted by (event time, venue, symbol, strategy, action).

        `frame` has one row per bar: `venue`, `symbol`, `timeframe`, `close_time_ns`, `id` (of the
        bar), `provenance`, open, high, low, close, volume, and the columns that `FeatureMachine`
        returned for it; the bars of one series are in time order.
        """
        bars = BarColumns.of(frame).select(self._timeframes)
        if not bars.height:
            return []
        # The models take every bar, be there a signal on it or not.
        polled, places = self._poll(bars)
        bars = bars.joined(_spread(polled, places, bars.height))
        known = self._conditions.evaluate(bars)
        edges = self._find_edges(bars, known[:, :, :2])
        rows = np.flatnonzero(edges.any(axis=(1, 2))).tolist()
        if not rows:
            return []
        found = []
        details = self._read_rows(bars, rows, known[rows, :, 0])
        for position, row in enumerate(rows):
            detail = details[position]
            ruling = self._rule(detail, polled, places.get(row))
            votes = [*self._rule_votes(detail, known[row]), *ruling.votes]
            for strategy, action in np.argwhere(edges[row]).tolist():
                found.append(self._emit(detail, strategy, _ACTIONS[action], votes, ruling))
        return sorted(found, key=_order)

    def on_commands(
        self, commands: Iterable[ControlCommanded]
    ) -> list[ModelEventRecorded | AlertRaised]:
        """Return what commands about models change; it must be durable before later records."""
        return [] if self._council is None else self._council.schedule.on_commands(commands)

    def take_events(self) -> list[ModelEventRecorded]:
        """Return what happened to weights and scores of models since the last call."""
        return [] if self._council is None else self._council.take_events()

    def take_opinions(self) -> OpinionRows | None:
        """Return what the models said about each bar of the last call, once; None without any."""
        return None if self._council is None else self._council.take_opinions()

    def settle(self) -> None:
        """Do the work that the models put off so that signals go out first; it changes no vote."""
        if self._council is not None:
            self._council.settle()

    def _find_edges(self, bars: BarColumns, holds: BoolArray) -> BoolArray:
        """Return which conditions hold that did not on the series' previous bar; remember the last."""
        codes = self._assign_codes(bars)
        order = np.argsort(codes, kind="stable")
        by_series, sorted_holds = codes[order], holds[order]
        first = np.r_[True, by_series[1:] != by_series[:-1]]
        last = np.r_[first[1:], True]
        before = np.roll(sorted_holds, 1, axis=0)
        before[first] = self._holds[by_series[first]]
        self._holds[by_series[last]] = sorted_holds[last]
        edges = np.empty_like(holds)
        edges[order] = sorted_holds & ~before
        return edges

    def _assign_codes(self, bars: BarColumns) -> npt.NDArray[np.int64]:
        series = self._series
        codes = [series.setdefault(key, len(series)) for key in bars.keys()]  # noqa: SIM118
        added = len(series) - len(self._holds)
        if added > 0:
            room = np.zeros((max(added, len(self._holds)), *self._holds.shape[1:]), dtype=np.bool_)
            self._holds = np.concatenate([self._holds, room])
        return np.array(codes, dtype=np.int64)

    def _poll(self, bars: BarColumns) -> tuple[Polled | None, dict[int, int]]:
        """Give the council its bars; return its answers, and the place of each row among them."""
        if self._council is None:
            return None, {}
        timeframe = self._council.timeframe
        own = [row for row, one in enumerate(bars.texts("timeframe")) if one == timeframe]
        if not own:
            return None, {}
        return self._council.poll(bars, own), {row: place for place, row in enumerate(own)}

    def _rule(self, detail: Mapping[str, Any], polled: Polled | None, place: int | None) -> Ruling:
        """Return what the models say about a bar: on the bar itself, or newest before it."""
        council = self._council
        if council is None:
            return _NO_RULING
        if polled is not None and place is not None:
            return polled.rule(place)
        key, time_ns = (detail["venue"], detail["symbol"]), detail["close_time_ns"]
        return council.rule_before(key, time_ns, polled)

    def _read_rows(
        self, bars: BarColumns, rows: list[int], entries: BoolArray
    ) -> list[dict[str, Any]]:
        """Return what a signal on each of `rows` needs, with the prices of those that enter there.

        `entries` (rows, strategies) tells who does.
        """
        floats = {name: bars.floats(name)[rows] for name in self._numbers}
        columns: dict[str, list[Any]] = {name: one.tolist() for name, one in floats.items()}
        for name in _TEXTS:
            texts = bars.texts(name)
            columns[name] = [texts[row] for row in rows]
        columns["close_time_ns"] = bars.integers("close_time_ns")[rows].tolist()
        for i in np.flatnonzero(entries.any(axis=0)).tolist():
            strategy = self._strategies[i]
            with np.errstate(all="ignore"):
                stop = strategy.stop_price(floats)
                target, trail = strategy.target_price(floats), strategy.trail_distance(floats)
            none = [None] * len(rows)
            columns[f"{i}/stop_price"] = stop.tolist()
            columns[f"{i}/target_price"] = none if target is None else target.tolist()
            columns[f"{i}/trail_distance"] = none if trail is None else trail.tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _rule_votes(self, detail: Mapping[str, Any], known: BoolArray) -> list[Vote]:
        stances = known.tolist()
        return [
            _rule_vote(strategy, self._hashes[i], detail, stances[i], i)
            for i, strategy in enumerate(self._strategies)
        ]

    def _emit(
        self,
        detail: Mapping[str, Any],
        index: int,
        action: Action,
        votes: list[Vote],
        ruling: Ruling,
    ) -> SignalEmitted:
        strategy, enters = self._strategies[index], action is Action.ENTER
        venue, symbol, time_ns = detail["venue"], detail["symbol"], detail["close_time_ns"]
        cause = features_id(venue, symbol, detail["timeframe"], time_ns)
        # The sequence must not change when a strategy is added, so it is a function of the name.
        sequence = crc32(f"{strategy.name}/{action}".encode())
        row = _name_prices(detail, index) if enters else detail
        return SignalEmitted(
            id=derive_id("trade.signals", f"{venue}:{symbol}", time_ns, sequence, cause),
            cause=cause,
            venue=venue,
            symbol=symbol,
            event_time_ns=time_ns,
            strategy=strategy.name,
            timeframe=detail["timeframe"],
            action=action,
            stance=Stance.BUY if enters else Stance.SELL,
            close=detail["close"],
            stop_price=row["stop_price"] if enters else None,
            target_price=row["target_price"] if enters else None,
            trail_distance=row["trail_distance"] if enters else None,
            horizon_bars=strategy.parameters.horizon_bars,
            score=ruling.score,
            votes=votes,
            reason=strategy.reason_entry(row) if enters else strategy.reason_exit(row),
            bar_id=detail["id"],
            provenance=Provenance(detail["provenance"]),
            agreement=ruling.agreement,
            multiplier=ruling.multiplier,
            expected_edge_bps=ruling.edges_bps[1 if enters else 0],
            edge_threshold_bps=ruling.threshold_bps,
            **_pooled(ruling),
        )


def _pooled(ruling: Ruling) -> dict[str, float]:
    if ruling.probabilities is None:
        return {}
    sell, hold, buy = ruling.probabilities
    return {
        "confidence": max(sell, hold, buy),
        "probability_sell": sell,
        "probability_hold": hold,
        "probability_buy": buy,
    }


def _spread(
    polled: Polled | None, places: Mapping[int, int], height: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the vote's columns for all bars: NaN on those that were not voted on."""
    if polled is not None and polled.bars.height == height:
        return polled.columns()
    spread = {name: np.full(height, np.nan) for name in VOTE_COLUMNS}
    if polled is not None:
        for name, column in polled.columns().items():
            spread[name][list(places)] = column
    return spread


def _name_prices(detail: Mapping[str, Any], index: int) -> dict[str, Any]:
    prices = ("stop_price", "target_price", "trail_distance")
    return {**detail, **{name: detail[f"{index}/{name}"] for name in prices}}


def _rule_vote(
    strategy: Strategy[Any],
    content_hash: str,
    detail: Mapping[str, Any],
    stance: list[bool],
    index: int,
) -> Vote:
    name, version, timeframe = strategy.name, strategy.version, detail["timeframe"]
    if timeframe != strategy.timeframe:
        reason = f"votes on {strategy.timeframe} bars; this bar is {timeframe}"
        return abstain(name, "rule", version, content_hash, reason)
    enters, leaves, unknown = stance
    if unknown:
        return abstain(name, "rule", version, content_hash, _explain_unknown(strategy, detail))
    if enters or leaves:
        reason = (
            strategy.reason_entry(_name_prices(detail, index))
            if enters
            else strategy.reason_exit(detail)
        )
    else:
        numbers = ", ".join(f"{one} {number(detail[one])}" for one in strategy.inputs)
        reason = f"neither entry nor exit; {numbers}"
    return Vote(
        voter=name,
        kind="rule",
        version=version,
        content_hash=content_hash,
        stance=Stance.BUY if enters else Stance.SELL if leaves else Stance.HOLD,
        probability_sell=float(leaves),
        probability_hold=float(not (enters or leaves)),
        probability_buy=float(enters),
        weight=0.0,
        reason=reason,
    )


def _explain_unknown(strategy: Strategy[Any], detail: Mapping[str, Any]) -> str:
    missing = [name for name in strategy.inputs if not _is_finite(detail[name])]
    if missing:
        return f"missing inputs: {', '.join(missing)}"
    return "entry without a stop between zero and the close"


def _is_finite(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _order(signal: SignalEmitted) -> tuple[int, str, str, str, str]:
    return (signal.event_time_ns, signal.venue, signal.symbol, signal.strategy, signal.action)
