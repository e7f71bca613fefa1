"""Finished models, their equal-weight pool and the baselines on other recorded data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from infra.onnx_session import CARD_NAME, ModelCard, ModelRefusedError, OnnxSession
from onnx_models.dataset import DataSet
from onnx_models.evaluation import Judged, Yardstick, evaluate, reliability
from onnx_models.families import FloatArray, IntArray
from onnx_models.periods import FixedBaseline, answer_rows, read_outcomes
from schemas.checked import convert
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS, FeatureSchema, SequenceSchema

IN_SAMPLE = "IN-SAMPLE"
ENSEMBLE = "ensemble (equal weights)"
PROBABILITY_MIN = 1e-7


class Scored(Struct, frozen=True, kw_only=True):
    """What one forecaster was worth on the scored rows."""

    name: str
    version: str
    in_sample: bool
    """Whether its training data overlaps the scored range: its figures then prove nothing."""
    evaluation: dict[str, Any]
    reliability: dict[str, Any]

    @property
    def title(self) -> str:
        """Name for a table; says IN-SAMPLE where that is so."""
        words = [self.name, self.version, IN_SAMPLE if self.in_sample else ""]
        return " ".join(word for word in words if word)


class Score(Struct, frozen=True, kw_only=True):
    """Every forecaster on the same rows."""

    rows: int
    horizon_bars: int
    scored: list[Scored]
    """Models, the ensemble if there are two or more, then the baselines."""
    left_out: list[str]
    """Artefacts that could not be scored, and why."""

    @property
    def in_sample(self) -> bool:
        """Whether any of it is."""
        return any(one.in_sample for one in self.scored)


def score_models(root: Path, data: DataSet, horizon_bars: int) -> Score:
    """Return the score of every artefact below `root` on the rows that all of them can read.

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
    rows = _common_rows(data, horizon_bars, [one.card for one in sessions])
    judged = [_judge(one, data, rows) for one in sessions]
    in_sample = [overlaps(one.card, data) for one in sessions]
    scored = [
        _scored(session.card.name, session.version, part, in_sample=known)
        for session, part, known in zip(sessions, judged, in_sample, strict=True)
    ]
    if len(judged) > 1:
        scored.append(_scored(ENSEMBLE, "", pool(judged), in_sample=any(in_sample)))
    scored += _score_baselines(sessions[0].card, data, rows, in_sample=in_sample[0])
    return Score(rows=len(rows), horizon_bars=horizon_bars, scored=scored, left_out=left_out)


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


def overlaps(card: ModelCard, data: DataSet) -> bool:
    """Return whether the data that a model was made with and `data` share any time."""
    used, found = card.training["data"], data.manifest
    return bool(
        used["first_open_ns"] < found.last_close_ns and found.first_open_ns < used["last_close_ns"]
    )


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


def _common_rows(data: DataSet, horizon_bars: int, cards: Sequence[ModelCard]) -> IntArray:
    rows = data.usable_rows(horizon_bars, data.schema)
    for card in cards:
        rows = np.intersect1d(rows, data.usable_rows(horizon_bars, _schema(card)))
    if not len(rows):
        msg = "data must hold rows that every model can read; found none; give a longer recording"
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


def _scored(name: str, version: str, part: Judged, *, in_sample: bool) -> Scored:
    return Scored(
        name=name,
        version=version,
        in_sample=in_sample,
        evaluation=evaluate([part]),
        reliability=reliability(part.probabilities, part.outcomes.labels),
    )
