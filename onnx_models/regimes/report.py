"""The figures of a regime model beside the rule's, in rows and words that a person compares."""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.onnx_session import REGIME_CLASSES, ModelCard
from onnx_models.regimes.train import PERIODS
from onnx_models.report import ReportPart
from onnx_models.tables import PERIOD_WORDS
from schemas.regime import REGIMES

REGIME_COLUMNS = (
    "who", "period", "rows", "accuracy %", "less rule", "balanced %", "less rule", "log-loss",
    "gain on prior (nats)",
)  # fmt: skip


def is_regime(card: ModelCard) -> bool:
    """Return whether a card is of a regime model."""
    return card.classes == REGIME_CLASSES


def regime_rows(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Yield a row per period and caller, with `REGIME_COLUMNS`."""
    for period, name, found in _callers(card):
        measures, less = found["measures"], found["less_rule"]
        yield (
            name,
            PERIOD_WORDS[period],
            f"{found['rows']:,}",
            _figure(measures["accuracy"], 1, 100.0),
            _figure(less["accuracy"], 1, 100.0, sign="+"),
            _figure(measures["balanced_accuracy"], 1, 100.0),
            _figure(less["balanced_accuracy"], 1, 100.0, sign="+"),
            _figure(measures["log_loss"], 3),
            _figure(measures["gain"], 3, sign="+"),
        )


def class_rows(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Yield per period, caller and regime: share said, share that came, precision, recall, F1 in %."""
    for period, name, found in _callers(card):
        for regime in REGIMES:
            cells = [
                found["measures"][f"{kind}_{regime}"] for kind in ("precision", "recall", "f1")
            ]
            shares = (f"{100 * found[key][regime]:.1f}" for key in ("said", "came"))
            told = (_figure(one, 1, 100.0, interval=False) for one in cells)
            yield (name, PERIOD_WORDS[period], regime.value, *shares, *told)


def describe_regime(card: ModelCard) -> ReportPart:
    """Return the section of a regime model: in words, because its figures have other columns."""
    training = card.training
    notes = [
        card.gate["reason"],
        f"{card.family} {card.version}; label: {training['label']}",
        (
            f"data: {training['data']['bars']:,} hourly bars of {len(training['data']['symbols'])} "
            f"symbols, provenance {training['data']['provenance']}; features {card.feature_schema} "
            f"({card.feature_schema_hash})"
        ),
        *(
            ", ".join(map(": ".join, zip(REGIME_COLUMNS, row, strict=True)))
            for row in regime_rows(card)
        ),
        *(f"left out: {one}" for one in training["left_out"]),
    ]
    return ReportPart(title=card.name, notes=notes, rows=[], figures=[])


def _callers(card: ModelCard) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for period in PERIODS:
        for name, found in card.evaluation.get(period, {}).items():
            yield period, name, found


def _figure(
    measure: Mapping[str, Any],
    decimals: int,
    factor: float = 1.0,
    *,
    sign: str = "",
    interval: bool = True,
) -> str:
    if measure["value"] is None:
        return "-"
    text = format(measure["value"] * factor, f"{sign}.{decimals}f")
    if not interval:
        return text
    low, high = (format(one * factor, f"{sign}.{decimals}f") for one in measure["interval_95"])
    return f"{text} [{low}, {high}]"
