"""The figures of models and baselines in rows that a person compares."""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.onnx_session import ModelCard

PERIODS = ("walk_forward", "test", "holdout")
PERIOD_WORDS = {
    "walk_forward": "walk-forward folds",
    "test": "final range, touched once",
    "holdout": "later recording",
}
COLUMNS = (
    "who", "period", "rows", "log-loss", "gain on prior (nats)", "Brier", "ECE", "balanced acc.",
    "direction right %", "gain of direction", "RMSE bps", "net bps / strong opinion", "beats prior",
)  # fmt: skip


SHORT_COLUMNS = ("who", "period", "log-loss", "gain on prior (nats)", "ECE", "direction %")
"""What fits a terminal."""


def short_rows(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Yield the rows of `card_rows`, with `SHORT_COLUMNS`."""
    for period, who, found in _evaluations(card):
        yield short_row(who, period, found)


def short_row(who: str, period: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one evaluation, in the order of `SHORT_COLUMNS`."""
    measures = found["measures"]
    return (
        who,
        period,
        _figure(measures["log_loss"], 4),
        _figure(measures["gain"], 4, interval=True, sign=True),
        _figure(measures["calibration_error"], 3),
        _figure(measures["direction_right"], 1, factor=100.0),
    )


def card_rows(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Yield a row per period of the model and, below it, of its baselines on the same rows."""
    for period, who, found in _evaluations(card):
        yield table_row(who, period, found)


def table_row(who: str, period: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one evaluation, in the order of `COLUMNS`."""
    measures = found["measures"]
    beats = found.get("beats_prior")
    return (
        who,
        PERIOD_WORDS.get(period, period),
        f"{found['rows']:,}",
        _figure(measures["log_loss"], 4),
        _figure(measures["gain"], 4, interval=True, sign=True),
        _figure(measures["brier"], 4),
        _figure(measures["calibration_error"], 3),
        _figure(measures["balanced_accuracy"], 3),
        _figure(measures["direction_right"], 1, interval=True, factor=100.0),
        _figure(measures["gain_of_direction"], 4, interval=True, sign=True),
        _figure(measures["rmse_return_bps"], 1),
        _figure(measures["net_bps_per_strong_opinion"], 1, interval=True, sign=True),
        "" if beats is None else "yes" if beats else "no",
    )


def _evaluations(card: ModelCard) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for period in PERIODS:
        if period in card.evaluation:
            yield period, card.name, card.evaluation[period]
            for name, found in card.evaluation["baselines"][period].items():
                yield period, name, found


def _figure(
    measure: Mapping[str, Any],
    decimals: int,
    *,
    interval: bool = False,
    sign: bool = False,
    factor: float = 1.0,
) -> str:
    if measure["value"] is None:
        return "-"
    form = f"{'+' if sign else ''}.{decimals}f"
    text = format(measure["value"] * factor, form)
    if not interval:
        return text
    low, high = (format(one * factor, form) for one in measure["interval_95"])
    return f"{text} [{low}, {high}]"
