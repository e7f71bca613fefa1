"""Reference pages derived from the code: `python -m dataflows.cli.reference --docs docs --readme README.md`.

The command line, every setting, every metric, and the picture of the trading flow in the README.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from bytewax.dataflow import Dataflow
from bytewax.operators import output
from bytewax.testing import TestingSink, TestingSource
from bytewax.visualize import to_mermaid
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

from dataflows.cli.main import app
from dataflows.parts import build_lane
from dataflows.trading import NAME, wire_trading
from infra.serve import Workload
from infra.settings import PREFIX, Settings
from schemas.instruments import InstrumentBook

RENDERED = "<!-- Rendered by `make render`; do not edit. -->\n\n"
FLOW_BEGIN, FLOW_END = "<!-- flow: begin -->", "<!-- flow: end -->"
_BOUNDS: tuple[tuple[type[BaseMetadata], str, str], ...] = (
    (Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"),
)  # fmt: skip


def render_cli() -> str:
    """Return the page of the command line: every verb with its arguments, options and defaults."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="quantstream")
    text = get_docs_for_click(obj=command, ctx=context, name="quantstream", title="Command line")
    return RENDERED + text.strip() + "\n"


def render_settings() -> str:
    """Return the page of the settings: key, default, range and meaning of each."""
    lines = [
        "# Settings",
        "",
        "One TOML file (`quantstream.toml` in the working folder, or the one that `QUANTSTREAM_FILE` names), then",
        f"variables `{PREFIX}…` over it: `{PREFIX}KAFKA__BOOTSTRAP` sets `kafka.bootstrap`. An unknown key stops the",
        "start and names the nearest known one. `quantstream config show` prints the effective values and their origin.",
    ]
    for title, rows in _sections():
        lines += ["", f"## {title}", "", "| key | default | allowed | meaning |"]
        lines += ["| --- | --- | --- | --- |", *rows]
    return RENDERED + "\n".join(lines) + "\n"


def _sections() -> Iterator[tuple[str, list[str]]]:
    top = {name: field for name, field in Settings.model_fields.items() if not _is_section(field)}
    yield "The whole", _rows(Settings, "", top)
    for name, field in Settings.model_fields.items():
        if _is_section(field):
            yield f"`[{name}]`", _rows(field.annotation, f"{name}.", field.annotation.model_fields)  # type: ignore[union-attr, arg-type]
    for name in ("strategies", "models"):
        default = next(iter(getattr(Settings(), name).values()))
        model = type(default)
        yield f"`[{name}.NAME]`", _rows(model, f"{name}.NAME.", model.model_fields)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _rows(model: type[BaseModel], at: str, fields: dict[str, FieldInfo]) -> list[str]:
    meanings = _meanings(model)
    return [
        f"| `{at}{name}` | {_default(field)} | {_allowed(field)} | {meanings.get(name, '')} |"
        for name, field in fields.items()
    ]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        before.target.id: " ".join(str(after.value.value).split())
        for before, after in pairwise(tree.body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value) or "`{}`"
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(plain, default=str)}`"


def _allowed(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(found, attribute)}"
        for found in field.metadata
        for kind, attribute, sign in _BOUNDS
        if isinstance(found, kind)
    ]
    patterns = [f"`{found.pattern}`" for found in field.metadata if hasattr(found, "pattern")]
    choices = [f"`{choice}`" for choice in _choices(field.annotation)]
    return ", ".join([*bounds, *patterns, *choices]).replace("|", "\\|")


def _choices(annotation: Any) -> list[str]:
    """Return the values of a `Literal`, also inside a tuple or an optional."""
    arguments = getattr(annotation, "__args__", ())
    found: list[str] = []
    for argument in arguments:
        if isinstance(argument, str):
            found.append(argument or "empty")
        else:
            found += [choice for choice in _choices(argument) if choice not in found]
    return found


def render_metrics() -> str:
    """Return the page of the metrics that every dataflow serves."""
    lines = [
        "# Metrics",
        "",
        "Every dataflow serves `/metrics` (Prometheus text) and `/health` (JSON; status 503 when not ok) on loopback: port",
        "`serve.base_port` for `trading`, and 10, 20, 30, 40 above it for `archive`, `features`, `signals`, `portfolio`;",
        "worker N of a flow adds N. Health means recent useful work: waiting records and no progress is not ok.",
        "",
        "| metric | type | meaning |",
        "| --- | --- | --- |",
    ]
    for family in Workload(NAME, "paper", 30).registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        lines.append(f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |")
    return RENDERED + "\n".join(lines) + "\n"


def render_flow() -> str:
    """Return the steps of the `trading` flow as a Mermaid graph."""
    flow, settings = Dataflow(NAME), Settings()
    lane = build_lane(settings, InstrumentBook(), lambda _kind, _count: None)
    nothing: TestingSource[tuple[str, object]] = TestingSource([])
    sources = {"ticks": nothing, "controls": nothing}
    records = wire_trading(flow, settings, lane, sources, [0])
    output("records", records, TestingSink([]))
    return f"```mermaid\n{to_mermaid(flow).strip()}\n```"


def place_flow(readme: str) -> str:
    """Return `readme` with the picture of the flow between its two marks.

    Raises:
        ValueError: A mark is missing.
    """
    before, _, rest = readme.partition(FLOW_BEGIN)
    _, found, after = rest.partition(FLOW_END)
    if not found:
        msg = f"README must hold {FLOW_BEGIN!r} and {FLOW_END!r}; found one or none; put them back"
        raise ValueError(msg)
    return f"{before}{FLOW_BEGIN}\n{render_flow()}\n{FLOW_END}{after}"


def render_all(docs: Path, readme: Path) -> dict[Path, str]:
    """Return every page by its path."""
    return {
        docs / "reference" / "cli.md": render_cli(),
        docs / "reference" / "settings.md": render_settings(),
        docs / "reference" / "metrics.md": render_metrics(),
        readme: place_flow(readme.read_text(encoding="utf-8")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dataflows.cli.reference", description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args(arguments)
    pages = render_all(options.docs, options.readme)
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(pages)} pages written\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
