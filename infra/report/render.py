"""One self-contained HTML page of a session: no network, no file beside it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from infra.report import words
from infra.report.figures import build_figures
from infra.report.funnel import meaning_of
from infra.report.session import SessionTables
from infra.report.summary import time_text
from infra.whole_files import replace_file

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
TEMPLATE = "report.html.j2"

FILLS_SHOWN = 50
"""Newest fills in the table."""


def render_report(session: SessionTables, summary: dict[str, Any]) -> str:
    """Return the page of `session`; `summary` is what `summarise` found for it."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "amount": words.amount,
        "percent": words.percent,
        "number": words.number,
        "tone": _tone,
        "meaning": meaning_of,
    }
    # The library's own text; nothing of the session is in it.
    library = Markup(get_plotlyjs())  # noqa: S704
    return templates.get_template(TEMPLATE).render(
        summary=summary,
        figures=build_figures(session, summary),
        fills=newest_fills(session),
        fills_shown=FILLS_SHOWN,
        plotly=library,
    )


def write_report(session: SessionTables, summary: dict[str, Any], path: Path) -> int:
    """Write the page to `path`, whole or not at all, and return its size in bytes."""
    page = render_report(session, summary).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page)
    return len(page)


def newest_fills(session: SessionTables) -> list[dict[str, Any]]:
    """Return the newest fills with the rule and the decision behind them, the newest first."""
    decisions = session["trade.decisions"].select("id", "justification", signal_id="cause")
    signals = session["trade.signals"].select("id", signal_reason="reason")
    rows = (
        session["trade.fills"]
        .tail(FILLS_SHOWN)
        .join(decisions, left_on="decision_id", right_on="id", how="left", maintain_order="left")
        .join(signals, left_on="signal_id", right_on="id", how="left", maintain_order="left")
        .reverse()
    )
    return [row | {"time": time_text(row["event_time_ns"])} for row in rows.to_dicts()]


def _tone(value: object) -> str:
    """Return the class of a figure by its sign."""
    shown = str(value)
    return "loss" if shown.startswith("-") else "gain" if shown.startswith("+") else "flat"
