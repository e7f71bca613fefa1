"""How each voter voted, whether it foresaw direction, and whether it had seen the period before."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from infra.report.performance import known
from infra.report.session import SERIES, SessionTables
from schemas.fields import Stance
from schemas.settings import TIMEFRAME_NS

CARD_NAME = "card.json"
SCORED_MIN = 30
SCORES = ("prior_rise", "brier", "brier_prior", "log_loss", "log_loss_prior", "right_pct")

SCORE_DEFINITION = (
    "P(rise) = P(buy) / (P(buy) + P(sell)) against whether the close stood higher when the signal's "
    "horizon closed; the prior is the share of rises among the same signals, known only afterwards "
    "and so the hardest constant to beat; overlapping signals are not independent"
)

Floats = npt.NDArray[np.float64]

Periods = Mapping[str, tuple[int, int]]
"""Training period (first ns, last ns) by content hash of a model."""


def read_training_periods(artefacts: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return the period of all data that each model was made with, by the hashes of its files.

    The period covers what it was fitted, stopped and judged on. An artefact without a card, or
    whose card names no period, is left out, and its votes count as unknown.
    """
    found: dict[str, tuple[int, int]] = {}
    for folder in artefacts:
        path = folder / CARD_NAME
        if not path.is_file():
            continue
        card = msgspec.json.decode(path.read_bytes())
        used = card.get("training", {}).get("data", {})
        if {"first_open_ns", "last_close_ns"} <= used.keys():
            period = (used["first_open_ns"], used["last_close_ns"])
            found |= dict.fromkeys(card.get("files", {}).values(), period)
    return found


def summarise_voters(
    session: SessionTables, training_periods: Periods | None = None
) -> list[dict[str, Any]]:
    """Return stances, abstentions and scores of every voter, by name.

    `training_periods` tells which votes were cast inside a model's training data.
    """
    votes = _votes(session)
    return [
        _summarise_voter(str(name), found, training_periods or {})
        for (name,), found in sorted(votes.group_by("voter"), key=lambda group: str(group[0][0]))
    ]


def _votes(session: SessionTables) -> pl.DataFrame:
    """Return one row per vote with the close at which its signal's horizon closed."""
    length_ns = pl.col("timeframe").replace_strict(TIMEFRAME_NS, return_dtype=pl.Int64)
    settled = session.settling_bars.select(
        *SERIES, "timeframe", "close_time_ns", settled_close="close"
    )
    return (
        session["trade.signals"]
        .select(
            *SERIES,
            "timeframe",
            "event_time_ns",
            "close",
            "votes",
            close_time_ns=pl.col("event_time_ns") + pl.col("horizon_bars") * length_ns,
        )
        .join(settled, on=[*SERIES, "timeframe", "close_time_ns"], how="left")
        .explode("votes")
        .drop_nulls("votes")
        .unnest("votes")
    )


def _summarise_voter(name: str, votes: pl.DataFrame, periods: Periods) -> dict[str, Any]:
    count = votes.height
    stances = dict(votes["stance"].value_counts().rows())
    weight = votes["weight"].mean()
    return {
        "voter": name,
        "kind": votes["kind"][0],
        "versions": votes["version"].unique().sort().to_list(),
        "votes": count,
        "stance_share_pct": {
            stance.value: 100 * stances.get(stance.value, 0) / count for stance in Stance
        },
        "abstain_share_pct": 100 * stances.get(Stance.ABSTAIN.value, 0) / count,
        "weight_mean": float(weight),  # type: ignore[arg-type]
        "sample": _state_sample(votes, periods),
        "score": _score(votes),
    }


def _state_sample(votes: pl.DataFrame, periods: Periods) -> str:
    """Return in words whether the voter had seen the period on which it voted."""
    kind = votes["kind"][0]
    if kind == "rule":
        return "a rule with fixed parameters; nothing was trained"
    if kind == "river":
        return "out of sample, as it predicts before it learns the outcome"
    hashes = votes["content_hash"].unique().to_list()
    if any(found not in periods for found in hashes):
        return "unknown, as no card says on which period this model was trained"
    inside = sum(
        votes.filter(
            pl.col("content_hash") == found,
            pl.col("event_time_ns").is_between(*periods[found]),
        ).height
        for found in hashes
    )
    if inside:
        return f"IN SAMPLE for {inside} of {votes.height} votes, as the model was trained on that period"
    return "out of sample, as every vote lies outside the training period"


def _score(votes: pl.DataFrame) -> dict[str, Any]:
    """Return Brier score and log-loss of the direction beside those of the prior."""
    lean = pl.col("probability_buy") + pl.col("probability_sell")
    scored = votes.filter(pl.col("settled_close").is_not_null(), lean > 0).select(
        rise=(pl.col("settled_close") > pl.col("close")).cast(pl.Float64),
        probability=pl.col("probability_buy") / lean,
    )
    count = scored.height
    figures: dict[str, float | None] = dict.fromkeys(SCORES)
    why = f"{count} votes with a probability and a closed horizon, fewer than {SCORED_MIN}"
    if count >= SCORED_MIN:
        rise, probability = scored["rise"].to_numpy(), scored["probability"].to_numpy()
        prior = np.full(count, rise.mean())
        leaning = probability != 0.5
        why = "the votes are certain (0 or 1), so one miss makes the log-loss infinite"
        figures = {
            "prior_rise": float(prior[0]),
            "brier": _brier(probability, rise),
            "brier_prior": _brier(prior, rise),
            "log_loss": _log_loss(probability, rise),
            "log_loss_prior": _log_loss(prior, rise),
            "right_pct": _share_right(probability[leaning], rise[leaning]),
        }
    whys = {"right_pct": "no vote leant to either side"} if count >= SCORED_MIN else {}
    return {"n": count, "definition": SCORE_DEFINITION} | known(
        **{name: (value, whys.get(name, why)) for name, value in figures.items()}
    )


def _share_right(probability: Floats, rise: Floats) -> float | None:
    if not probability.size:
        return None
    return 100 * float(((probability > 0.5) == (rise > 0.5)).mean())


def _brier(probability: Floats, rise: Floats) -> float:
    return float(((probability - rise) ** 2).mean())


def _log_loss(probability: Floats, rise: Floats) -> float | None:
    if ((probability <= 0.0) | (probability >= 1.0)).any():
        return None
    return float(-(rise * np.log(probability) + (1.0 - rise) * np.log1p(-probability)).mean())
