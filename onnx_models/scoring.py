"""Finished models, their equal-weight pool and the baselines on data that they were not made of."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from infra.models.manifest import Status
from infra.onnx_session import CARD_NAME, ModelCard, ModelRefusedError, OnnxSession
from onnx_models.dataset import HOUR_NS, DataSet
from onnx_models.evaluation import Judged, Yardstick, evaluate, reliability
from onnx_models.families import FloatArray, IntArray
from onnx_models.periods import FixedBaseline, answer_rows, read_outcomes
from schemas.checked import convert
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS, FeatureSchema, SequenceSchema

IN_SAMPLE = "IN-SAMPLE"
ENSEMBLE = "ensemble (equal weights)"
PROBABILITY_MIN = 1e-7

SERVES = Status.ACTIVE.value

Statuses = Mapping[tuple[str, str], str]
"""Standing in a registry by (model, version)."""
_NO_STATUSES: Statuses = MappingProxyType({})
Span = tuple[int, int]
"""First and last instant in ns that is judged."""
EVER: Span = (0, 2**63 - 1)


class Scored(Struct, frozen=True, kw_only=True):
    """What one forecaster was worth on the scored rows."""

    name: str
    version: str
    in_sample: bool
    """Whether its training data overlaps the scored range: its figures then prove nothing."""
    evaluation: dict[str, Any]
    reliability: dict[str, Any]
    status: str = ""
    """Standing in its registry; empty without one, and of what is no model."""

    @property
    def title(self) -> str:
        """Name for a table, with its standing; says IN-SAMPLE where that is so."""
        status = f"({self.status})" if self.status else ""
        words = [self.name, self.version, status, IN_SAMPLE if self.in_sample else ""]
        return " ".join(word for word in words if word)


class Score(Struct, frozen=True, kw_only=True):
    """Every forecaster on the same rows."""

    rows: int
    horizon_bars: int
    first_open_ns: int
    """The judged bars lie between this and `last_close_ns`."""
    last_close_ns: int
    unseen_from_ns: int
    """Close of the newest bar that any of the models was made with."""
    scored: list[Scored]
    """Models, the pool of those that serve (of all, where no status is known), then the baselines."""
    left_out: list[str]
    """Artefacts that could not be scored, and why."""

    @property
    def in_sample(self) -> bool:
        """Whether any of it is."""
        return any(one.in_sample for one in self.scored)


def score_models(
    root: Path,
    data: DataSet,
    horizon_bars: int,
    statuses: Statuses = _NO_STATUSES,
    span: Span = EVER,
) -> Score:
    """Return the score of every artefact below `root` on the rows that all of them can read.

    Judged are the bars that open in `span` and whose label is known within it; what lies before
    them is only read.

    Raises:
        ValueError: There is no artefact that can be scored, or no row.
    """
    sessions, left_out = _open_artefacts(root, data, horizon_bars)
    if not sessions:
        why = "; ".join(left_out) or "none"
        msg = (
            f"folder {root.name!r} must hold a model of {horizon_bars} bars; found {why}; train one"
        )
        raise ValueError(msg)
    cards = [one.card for one in sessions]
    rows = _common_rows(data, horizon_bars, cards, span)
    judged = [_judge(one, data, rows) for one in sessions]
    first_ns = max(data.manifest.first_open_ns, span[0])
    last_ns = min(data.manifest.last_close_ns, span[1])
    in_sample = [overlaps(card, first_ns, last_ns) for card in cards]
    standing = [statuses.get((card.name, card.version), "") for card in cards]
    scored = [
        _scored(card.name, card.version, part, in_sample=known, status=status)
        for card, part, known, status in zip(cards, judged, in_sample, standing, strict=True)
    ]
    members = [i for i, status in enumerate(standing) if status == SERVES] or range(len(cards))
    if len(members) > 1:
        pooled = pool([judged[i] for i in members])
        seen = any(in_sample[i] for i in members)
        scored.append(_scored(ENSEMBLE, "", pooled, in_sample=seen))
    scored += _score_baselines(cards[0], data, rows, in_sample=in_sample[0])
    return Score(
        rows=len(rows),
        horizon_bars=horizon_bars,
        first_open_ns=first_ns,
        last_close_ns=last_ns,
        unseen_from_ns=max(card.training["data"]["last_close_ns"] for card in cards),
        scored=scored,
        left_out=left_out,
    )


def pool(parts: Sequence[Judged]) -> Judged:
    """Return the logarithmic pool of equal weights: the normalised geometric mean."""
    logs = np.mean(
        [np.log(np.maximum(part.probabilities, PROBABILITY_MIN)) for part in parts], axis=0
    )
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    marks = [part.yardstick for part in parts]

    def mean(name: str) -> float:
        return float(np.mean([getattr(mark, name) for mark in marks]))

    yardstick = msgspec.structs.replace(
        marks[0],
        moves_per_deviation=mean("moves_per_deviation"),
        returns_per_score=mean("returns_per_score"),
        strong_score=mean("strong_score"),
    )
    return Judged(
        probabilities=np.asarray(powers / powers.sum(axis=1, keepdims=True)),
        outcomes=parts[0].outcomes,
        yardstick=yardstick,
    )


def overlaps(card: ModelCard, first_open_ns: int, last_close_ns: int) -> bool:
    """Return whether the data that a model was made with and a range share any time."""
    used = card.training["data"]
    return bool(used["first_open_ns"] < last_close_ns and first_open_ns < used["last_close_ns"])


def _open_artefacts(
    root: Path, data: DataSet, horizon_bars: int
) -> tuple[list[OnnxSession], list[str]]:
    sessions, left_out = [], []
    for path in sorted(root.rglob(CARD_NAME)):
        try:
            session = OnnxSession(path.parent)
        except ModelRefusedError as e:
            left_out.append(str(e))
            continue
        reason = _unfit(session.card, data, horizon_bars)
        if reason:
            left_out.append(f"{session.card.name} {session.version}: {reason}")
        else:
            sessions.append(session)
    return sessions, left_out


def _unfit(card: ModelCard, data: DataSet, horizon_bars: int) -> str:
    """Return why a model cannot be compared here; empty if it can."""
    if card.horizon_bars != horizon_bars:
        return f"its horizon is {card.horizon_bars} bars"
    if card.training.get("label") != data.targets[horizon_bars].labelling.definition:
        return "its label has another definition"
    if "yardstick" not in card.evaluation:
        return "its card has no yardstick"
    return ""


def _schema(card: ModelCard) -> FeatureSchema | SequenceSchema:
    tabular = FEATURE_SCHEMAS.get(card.feature_schema)
    return SEQUENCE_SCHEMAS[card.feature_schema] if tabular is None else tabular


def _common_rows(
    data: DataSet, horizon_bars: int, cards: Sequence[ModelCard], span: Span
) -> IntArray:
    rows = data.usable_rows(horizon_bars, data.schema)
    opens_ns = data.close_times_ns[rows] - HOUR_NS
    rows = rows[(opens_ns >= span[0]) & (data.targets[horizon_bars].ends_ns[rows] <= span[1])]
    for card in cards:
        rows = np.intersect1d(rows, data.usable_rows(horizon_bars, _schema(card)))
    if not len(rows):
        msg = (
            "data must hold rows that every model can read and whose label is known; found none; "
            "judge a longer time"
        )
        raise ValueError(msg)
    return rows


def _judge(session: OnnxSession, data: DataSet, rows: IntArray) -> Judged:
    answers: FloatArray = answer_rows(data.reader(_schema(session.card)), rows, session.score)
    return Judged(
        probabilities=answers,
        outcomes=read_outcomes(data, session.card.horizon_bars, rows),
        yardstick=convert(session.card.evaluation["yardstick"], Yardstick),
    )


def _score_baselines(
    card: ModelCard, data: DataSet, rows: IntArray, *, in_sample: bool
) -> Iterator[Scored]:
    """Yield the baselines that the first model was compared with, as they were fitted then."""
    baselines = convert(card.training["baselines"], dict[str, FixedBaseline])
    for name, fixed in baselines.items():
        yield _scored(name, "", fixed.judge(data, rows), in_sample=in_sample)


def _scored(name: str, version: str, part: Judged, *, in_sample: bool, status: str = "") -> Scored:
    return Scored(
        name=name,
        version=version,
        in_sample=in_sample,
        evaluation=evaluate([part]),
        reliability=reliability(part.probabilities, part.outcomes.labels),
        status=status,
    )
