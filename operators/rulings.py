"""What all models of a lane said about the bars of one call, and what a signal takes from it."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from operators.bar_columns import BarColumns
from operators.vote import CLASSES, Opinion
from operators.vote.records import build_opinions
from operators.voters.base import Answers, choose_stance
from schemas.fields import Stance
from schemas.signals import Vote

FloatArray = npt.NDArray[np.float64]
SymbolKey = tuple[str, str]
"""Venue and symbol."""


class Ruling(Struct, frozen=True, kw_only=True):
    """What all models said about one bar."""

    time_ns: int
    """Close of the bar."""
    votes: list[Vote]
    score: float
    """Pooled buy less sell times the multiplier; 0 if every model abstained."""
    agreement: str
    """Empty without a direction."""
    multiplier: float | None
    probabilities: tuple[float, float, float] | None
    """Pooled, of sell, hold and buy; None if every model abstained."""
    edges_bps: tuple[float | None, float | None]
    """Expected after costs of selling and of buying; None without an opinion or a volatility."""
    threshold_bps: float | None
    """What an edge must exceed; None without models."""


class Polled:
    """The models' answers on the bars of one call; a vote in words is made when it is asked for."""

    def __init__(
        self,
        bars: BarColumns,
        opinion: Opinion,
        configured: FloatArray,
        threshold_bps: float,
        said: FloatArray,
        answers: Mapping[str, list[tuple[int, Answers]]],
    ) -> None:
        """Keep what was found.

        Args:
            bars: the bars of the models' timeframe, in order of close.
            opinion: what the panel made of `said`, row for row.
            configured: weights that the settings ask for, by voter.
            threshold_bps: what an expected edge must exceed.
            said: (bars, voters, 3).
            answers: by voter, each with the row from which on it answers.
        """
        self.bars, self.opinion, self.said = bars, opinion, said
        self._configured, self._threshold_bps = configured.tolist(), threshold_bps
        self._answers = answers
        self._starts = {name: [start for start, _ in given] for name, given in answers.items()}

    def columns(self) -> dict[str, FloatArray]:
        """Return what rules may look at (`operators.strategies.base.VOTE_COLUMNS`), row by row."""
        opinion = self.opinion
        return {
            "ensemble_sell": opinion.probabilities[:, 0],
            "ensemble_buy": opinion.probabilities[:, 2],
            "ensemble_edge_bps": opinion.edges_bps[:, 1],
            "ensemble_threshold_bps": np.full(self.bars.height, self._threshold_bps),
            "ensemble_agreeing": opinion.agreeing.astype(np.float64),
        }

    def rule(self, row: int) -> Ruling:
        """Return what was said about one bar."""
        opinion = self.opinion
        pooled, code = opinion.probabilities[row].tolist(), int(opinion.agreements[row])
        known = bool(np.isfinite(pooled[0]))
        sell_bps, buy_bps = (_finite(edge) for edge in opinion.edges_bps[row].tolist())
        return Ruling(
            time_ns=int(self.bars.integers("close_time_ns")[row]),
            votes=self._votes(row),
            score=float(opinion.scores[row]),
            agreement=CLASSES[code].value if code >= 0 else "",
            multiplier=float(opinion.multipliers[row]) if known else None,
            probabilities=(pooled[0], pooled[1], pooled[2]) if known else None,
            edges_bps=(sell_bps, buy_bps),
            threshold_bps=self._threshold_bps,
        )

    def _votes(self, row: int) -> list[Vote]:
        weights = self.opinion.weights[row].tolist()
        on_floor = self.opinion.on_floor[row].tolist()
        counted, tilts = self.opinion.counted[row].tolist(), self.opinion.tilts[row].tolist()
        votes = []
        for place, name in enumerate(self._answers):
            part = bisect_right(self._starts[name], row) - 1
            start, answers = self._answers[name][part]
            vote = answers.vote(row - start)
            if vote.stance is Stance.ABSTAIN:
                changes = {"weight_configured": self._configured[place]}
            else:
                reason = vote.reason + (f"; tilt {tilts[place]:+.4f}" if tilts[place] else "")
                changes = {
                    "stance": choose_stance(counted[place]),
                    "probability_sell": counted[place][0],
                    "probability_buy": counted[place][2],
                    "weight": weights[place],
                    "weight_configured": self._configured[place],
                    "reason": f"{reason}; on the floor" if on_floor[place] else reason,
                }
            votes.append(msgspec.structs.replace(vote, **changes))
        return votes

    @cached_property
    def _rows_of(self) -> dict[SymbolKey, list[int]]:
        found: dict[SymbolKey, list[int]] = {}
        for row, key in enumerate(self.keys):
            found.setdefault(key, []).append(row)
        return found

    @cached_property
    def keys(self) -> list[SymbolKey]:
        """Venue and symbol of each bar."""
        return list(zip(self.bars.texts("venue"), self.bars.texts("symbol"), strict=True))

    def newest_before(self, key: SymbolKey, time_ns: int) -> Ruling | None:
        """Return what was said about the last bar of a symbol that closed before `time_ns`."""
        rows = self._rows_of.get(key, [])
        times = self.bars.integers("close_time_ns")
        before = bisect_left(rows, time_ns, key=lambda row: int(times[row]))
        return self.rule(rows[before - 1]) if before else None

    def newest(self, count: int) -> Iterable[tuple[SymbolKey, list[Ruling]]]:
        """Yield what was said about the last `count` bars of each symbol, the newest last."""
        for key, rows in self._rows_of.items():
            yield key, [self.rule(row) for row in rows[-count:]]

    def opinions(self) -> "OpinionRows":
        """Return the record of each bar, made when it is written: no decision waits for it."""
        return OpinionRows(
            keys=self.keys,
            timeframe=self.bars.texts("timeframe")[0],
            times_ns=self.bars.integers("close_time_ns"),
            provenances=self.bars.texts("provenance"),
            voters=list(self._answers),
            said=self.said,
            opinion=self.opinion,
            threshold_bps=self._threshold_bps,
        )


class OpinionRows(Struct, frozen=True, kw_only=True):
    """The `OpinionPooled` records of the bars of one call; a frame once they are written."""

    keys: list[SymbolKey]
    timeframe: str
    times_ns: npt.NDArray[np.int64]
    provenances: list[str]
    voters: list[str]
    said: FloatArray
    opinion: Opinion
    threshold_bps: float

    @property
    def height(self) -> int:
        """How many there are: one per bar."""
        return len(self.keys)

    def build(self) -> pl.DataFrame:
        """Return one row per bar."""
        return build_opinions(
            self.keys,
            self.timeframe,
            self.times_ns,
            self.provenances,
            self.voters,
            self.said,
            self.opinion,
            self.threshold_bps,
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
