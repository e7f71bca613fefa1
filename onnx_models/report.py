"""One self-contained HTML page about models: tables, reliability and loss curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct
from plotly.offline import get_plotlyjs

from infra.onnx_session import ModelCard
from infra.whole_files import replace_file
from onnx_models.evaluation import INTERVAL_METHOD
from onnx_models.tables import COLUMNS, PERIOD_WORDS, PERIODS, card_rows

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "models.html.j2"
CLASS_COLOURS = {"sell": "#c0322b", "hold": "#6b7688", "buy": "#0b7a53"}

Figure = dict[str, Any]


class ReportPart(Struct, frozen=True, kw_only=True):
    """A section of the page: a table, figures and what has to be known about both."""

    title: str
    notes: list[str]
    rows: list[tuple[str, ...]]
    figures: list[Figure]


def describe_card(card: ModelCard) -> ReportPart:
    """Return the section of one trained model."""
    training, gate = card.training, card.gate
    data = training["data"]
    notes = [
        f"{card.family} {card.version}, horizon {card.horizon_bars} bars; label: {training['label']}",
        (
            f"data: {data['bars']:,} hourly bars of {len(data['symbols'])} symbols, provenance "
            f"{data['provenance']}; features {card.feature_schema} ({card.feature_schema_hash})"
        ),
        (
            f"fit: {training['wall_seconds']} s, kept round {training['best_round'] + 1} of "
            f"{training['rounds']}; calibration: {card.calibration['method']}"
        ),
        f"gate: {'passed' if gate['passed'] else 'NOT passed'}; "
        + "; ".join(
            f"{name} {one['value']:.3g} ({one['rule']})" for name, one in gate["checks"].items()
        ),
        "most important inputs: "
        + ", ".join(
            f"{one['input']} {one['log_loss_lost']:+.4f}" for one in card.evaluation["importance"]
        ),
    ]
    notes += [f"left out: {one}" for one in training["left_out"]]
    if not card.beats_prior:
        notes.append(
            "does NOT beat the class prior: it knows nothing more than the class shares; it gets the "
            "floor weight"
        )
    figures = [
        draw_reliability(
            f"{card.name}: {PERIOD_WORDS[period]}", card.evaluation["reliability"][period]
        )
        for period in PERIODS
        if period in card.evaluation["reliability"]
    ]
    figures.append(_draw_losses(card))
    return ReportPart(title=card.name, notes=notes, rows=list(card_rows(card)), figures=figures)


def draw_reliability(title: str, found: dict[str, Any]) -> Figure:
    """Return what was said against what came true, in tenths of the rows."""
    traces: list[dict[str, Any]] = [
        {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": {"dash": "dot"}, "name": "perfect"}
    ]
    for name, bins in found.items():
        marker = {"color": CLASS_COLOURS[name]}
        traces.append(
            {"x": bins["said"], "y": bins["came"], "mode": "lines+markers", "marker": marker,
             "name": name}
        )  # fmt: skip
    return _figure(title, traces, "said", "came true")


def write_page(path: Path, title: str, parts: Sequence[ReportPart], notes: Sequence[str]) -> int:
    """Write the page to `path`, whole or not at all, and return its size in bytes."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    figures = [figure for part in parts for figure in part.figures]
    page = (
        templates.get_template(TEMPLATE)
        .render(
            title=title,
            notes=[*notes, f"intervals: {INTERVAL_METHOD}"],
            columns=COLUMNS,
            parts=parts,
            # `<` cannot end the script: what is in a name is data, not a tag.
            figures=Markup(json.dumps(figures).replace("<", r"\u003c")),  # noqa: S704
            plotly=Markup(get_plotlyjs()),  # noqa: S704  # the library's own text
        )
        .encode()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page)
    return len(page)


def _draw_losses(card: ModelCard) -> Figure:
    traces = [
        {"y": card.training[key], "mode": "lines", "name": name}
        for key, name in (("loss_train", "train"), ("loss_calibration", "calibration"))
    ]
    return _figure(f"{card.name}: loss", traces, "round (thinned)", "log-loss")


def _figure(title: str, traces: list[dict[str, Any]], x: str, y: str) -> Figure:
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "height": 380,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    }
    return {"data": traces, "layout": layout}
