"""`quantstream models score`: what every model is worth on other recorded data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dataflows.cli.context import FilesArgument
from dataflows.cli.output import (
    JsonFlag,
    SafetyRefusedError,
    console,
    print_json,
    print_table,
    reporting,
)

if TYPE_CHECKING:
    from onnx_models.scoring import Score

ARTEFACTS = Path(__file__).resolve().parents[2] / "onnx_models" / "artefacts"
REPORT_NAME = "models-score.html"

RootOption = Annotated[
    Path,
    typer.Option(
        "--root",
        exists=True,
        file_okay=False,
        show_default="the shipped registry",
        help="Registry or other folder.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write the page.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the verbs of `models`."""
    app.command()(score)


def score(
    files: FilesArgument,
    root: RootOption = ARTEFACTS,
    horizon: Annotated[int, typer.Option(min=1, help="Bars until a label is known: 1 or 4.")] = 4,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="Only this symbol; repeatable.")
    ] = None,
    out: OutOption = Path(REPORT_NAME),
    as_json: JsonFlag = False,
) -> None:
    """Score every model, their equal-weight pool and the baselines on recorded bars.

    Log-loss, Brier, ECE, per-class figures, direction, RMSE and net return, with 95 % intervals and
    reliability plots. Says IN-SAMPLE where a model's training data overlaps the scored range.
    """
    with reporting(as_json=as_json):
        found = _score(files, root, horizon, symbol or [])
        _write_page(found, out)
    if as_json:
        plain = msgspec.to_builtins(found)
        print_json({"ok": True, "in_sample": found.in_sample, **plain, "report": str(out)})
        return
    _show(found)
    console.print(f"Report written to {out}", soft_wrap=True)


def _score(files: list[Path], root: Path, horizon: int, symbols: list[str]) -> "Score":
    from onnx_models.dataset import ProvenanceError, load_data_set  # noqa: PLC0415
    from onnx_models.scoring import score_models  # noqa: PLC0415

    try:
        data = load_data_set(files, symbols=symbols)
    except ProvenanceError as error:
        raise SafetyRefusedError(str(error)) from error
    if horizon not in data.targets:
        msg = f"horizon must be one of {sorted(data.targets)!r} bars; found {horizon!r}; choose one"
        raise ValueError(msg)
    return score_models(root, data, horizon)


def _write_page(found: "Score", out: Path) -> None:
    from onnx_models.report import ReportPart, draw_reliability, write_page  # noqa: PLC0415
    from onnx_models.tables import table_row  # noqa: PLC0415

    part = ReportPart(
        title=f"{found.rows:,} rows, horizon {found.horizon_bars} bars",
        notes=[f"left out: {one}" for one in found.left_out],
        rows=[table_row(one.title, "scored", one.evaluation) for one in found.scored],
        figures=[draw_reliability(one.title, one.reliability) for one in found.scored],
    )
    write_page(out, "Models on recorded data", [part], [_verdict(found)])


def _show(found: "Score") -> None:
    from onnx_models.tables import SHORT_COLUMNS, short_row  # noqa: PLC0415

    rows = [short_row(one.title, "scored", one.evaluation) for one in found.scored]
    title = f"{found.rows:,} rows, horizon {found.horizon_bars} bars, 95 % intervals"
    print_table(title, SHORT_COLUMNS, rows)
    console.print(_verdict(found))
    for one in found.left_out:
        console.print(f"left out: {one}", soft_wrap=True)


def _verdict(found: "Score") -> str:
    if found.in_sample:
        return "IN-SAMPLE: models marked so have seen this range; their figures prove nothing"
    return "out of sample: no model has seen this range"
