"""How well each model foresees live, beside the interval that its card promised out of sample."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from msgspec import Struct

from infra.report.session import SessionTables
from infra.report.voters import CARD_NAME
from schemas.models import ModelEventKind, ModelEventRecorded

PERIOD = "test"
"""Rows that a model was judged on once, after everything about it was decided."""
SCORED_MIN = 300
"""Settled predictions below which a log-loss says little: governance judges from there on."""

DEFINITION = (
    "live: each prediction was made before its label was known, log-loss discounted, newest first, "
    "a mean over the lanes by predictions; band: 95 % interval of the log-loss in the final range of "
    "the card, which the model never saw; a market that moves more often has a higher log-loss for "
    "everybody, so above the band is a question to the weights, not a verdict"
)


class Standing(StrEnum):
    """Where a live log-loss lies."""

    BELOW = "below"
    """Better than the card promised."""
    INSIDE = "inside"
    ABOVE = "above"
    """Worse than the card promised."""
    TOO_FEW = "too few"
    """Not enough predictions have settled."""
    NO_BAND = "no band"
    """No card gives an interval: it learns online, or its card is of an older release."""


class Band(Struct, frozen=True, kw_only=True):
    """Log-loss of a version out of sample, in nats."""

    log_loss: float
    low: float
    high: float


Bands = Mapping[str, Band]
"""By content hash of a model."""


class LiveScore(Struct, frozen=True, kw_only=True):
    """One voter's log-loss live and out of sample."""

    model: str
    version: str
    content_hash: str
    lanes: int
    """Partitions whose newest score is of this version."""
    scored: int
    """Settled predictions of these."""
    log_loss: float | None
    """In nats; lower is better."""
    band: Band | None
    standing: Standing


def read_bands(artefacts: Iterable[Path]) -> dict[str, Band]:
    """Return the band of each model by the hashes of its files.

    An artefact without a card, or whose card gives no interval of the log-loss, is left out.
    """
    found: dict[str, Band] = {}
    for folder in artefacts:
        path = folder / CARD_NAME
        if not path.is_file():
            continue
        card = msgspec.json.decode(path.read_bytes())
        judged = card.get("evaluation", {}).get(PERIOD, {}).get("measures", {}).get("log_loss", {})
        if judged.get("interval_95") is None:
            continue
        low, high = judged["interval_95"]
        band = Band(log_loss=judged["value"], low=low, high=high)
        found |= dict.fromkeys(card.get("files", {}).values(), band)
    return found


def score_live(events: pl.DataFrame, bands: Bands, scored_min: int = SCORED_MIN) -> list[LiveScore]:
    """Return the newest score of every voter in `events` (`model.events`), by name.

    Where lanes disagree on the version, those with the newest score count.
    """
    newest = newest_scores(events).group_by("model")
    return [
        _score_one(str(name), rows, bands, scored_min)
        for (name,), rows in sorted(newest, key=lambda group: str(group[0][0]))
    ]


def newest_scores(events: pl.DataFrame) -> pl.DataFrame:
    """Return the newest score of each voter in each lane, in order of time."""
    return (
        events.filter(pl.col("kind") == ModelEventKind.SCORED.value)
        .drop_nulls(["scored_events", "log_loss"])
        .sort("effective_from_ns", maintain_order=True)
        .unique(["model", "partition"], keep="last", maintain_order=True)
    )


def pool_scores(scores: pl.DataFrame) -> tuple[int, float | None]:
    """Return how many predictions `scores` rest on, and their mean log-loss; None without any."""
    count = int(scores["scored_events"].sum())
    total = (scores["log_loss"] * scores["scored_events"]).sum()
    return count, float(total) / count if count else None


def summarise_live_scores(session: SessionTables, bands: Bands | None) -> dict[str, Any]:
    """Return the scores of a session as plain values, with what they mean."""
    scores = score_live(session[ModelEventRecorded.topic], bands or {})
    return {"definition": DEFINITION, "models": msgspec.to_builtins(scores)}


def judge(log_loss: float | None, scored: int, band: Band | None, scored_min: int) -> Standing:
    """Return where a live log-loss over `scored` predictions lies."""
    if band is None:
        return Standing.NO_BAND
    if log_loss is None or scored < scored_min:
        return Standing.TOO_FEW
    if log_loss < band.low:
        return Standing.BELOW
    return Standing.ABOVE if log_loss > band.high else Standing.INSIDE


def _score_one(name: str, newest: pl.DataFrame, bands: Bands, scored_min: int) -> LiveScore:
    ordered = newest.sort("effective_from_ns", "partition")
    version, content_hash = ordered["version"][-1], ordered["content_hash"][-1]
    # A lane that has not adopted the newest version yet scored another one.
    same = ordered.filter(pl.col("version") == version)
    scored, log_loss = pool_scores(same)
    band = bands.get(content_hash)
    return LiveScore(
        model=name,
        version=version,
        content_hash=content_hash,
        lanes=same.height,
        scored=scored,
        log_loss=log_loss,
        band=band,
        standing=judge(log_loss, scored, band, scored_min),
    )
