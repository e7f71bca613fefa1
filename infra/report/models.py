"""What became of every model: how well it foresaw, what it weighs, and what the vote made of it."""

from typing import Any

import polars as pl

from infra.report.live_scores import newest_scores, pool_scores
from infra.report.session import SessionTables
from schemas.models import VERSION_KINDS, ModelEventKind

DEFINITION = (
    "each prediction was made before its label was known; the log-loss is discounted, newest labels "
    "first, and a mean over the lanes by predictions scored; the weights are the newest of each lane"
)


def summarise_models(session: SessionTables) -> dict[str, Any]:
    """Return one row per model: predictions scored, log-loss, weights, drift alarms; sorted by name."""
    events = session["model.events"]
    told = events.filter(pl.col("weight_effective").is_not_null())
    return {
        "definition": DEFINITION,
        "models": [
            _summarise_model(str(name), found, events.filter(pl.col("model") == name))
            for (name,), found in sorted(told.group_by("model"), key=lambda group: str(group[0][0]))
        ],
        "changes": _changes(events),
    }


def _summarise_model(name: str, told: pl.DataFrame, events: pl.DataFrame) -> dict[str, Any]:
    ordered = told.sort("effective_from_ns", maintain_order=True)
    weights = ordered.filter(pl.col("kind") == ModelEventKind.WEIGHTS.value)
    newest = weights.unique("partition", keep="last", maintain_order=True)
    count, loss = pool_scores(newest_scores(ordered))
    return {
        "model": name,
        "scored": count,
        "log_loss": loss,
        "weight_configured": _mean(newest["weight_configured"]),
        "weight_mean": _mean(newest["weight_effective"]),
        "weights": newest["weight_effective"].to_list(),
        "reasons": sorted(newest["reason"].unique().to_list()),
        "drift_alarms": events.filter(pl.col("kind") == ModelEventKind.DRIFT.value).height,
    }


def _changes(events: pl.DataFrame) -> list[dict[str, Any]]:
    """Return how many lanes adopted or refused each version, in order of name."""
    kinds = [kind.value for kind in (*VERSION_KINDS, ModelEventKind.REFUSED)]
    keys = ["model", "kind", "version", "reason"]
    found = events.filter(pl.col("kind").is_in(kinds))
    return found.group_by(keys).agg(lanes=pl.len().cast(pl.Int64)).sort(keys).to_dicts()


def summarise_opinions(session: SessionTables) -> list[dict[str, Any]]:
    """Return how many bars the models judged, and what was left of it above the threshold."""
    opinions = session["model.opinions"]
    spoken = opinions.filter(pl.col("pooled_buy").is_not_null())
    worth = spoken.filter(pl.col("decided_stance").is_in(["buy", "sell"]))
    buying = worth.filter(pl.col("decided_stance") == "buy")
    return [
        {"stage": "bars that models were asked about", "records": opinions.height},
        {"stage": "on which some model spoke", "records": spoken.height},
        {"stage": "that promise more than they cost", "records": worth.height},
        {"stage": "of these to buy", "records": buying.height},
    ]


def _mean(values: pl.Series) -> float | None:
    found = values.mean()
    return float(found) if isinstance(found, int | float) else None
