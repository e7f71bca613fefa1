"""`quantstream train`: models from recorded bars, judged on what they never saw."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dataflows.cli.output import (
    JsonFlag,
    SafetyRefusedError,
    console,
    errors,
    print_json,
    print_table,
    reporting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx_models.dataset import DataSet
    from onnx_models.families import Family
    from onnx_models.train import TrainedModel, TrainOptions

    Maker = Callable[[Any], TrainedModel]
    """Trains one model and reports how far it is."""

REPORT_NAME = "report.html"

DataOption = Annotated[
    list[Path],
    typer.Option("--data", exists=True, dir_okay=False, help="Recorded 5m to 1h bars; repeatable."),
]
OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="Folder of the results.")]
HoldoutOption = Annotated[
    list[Path] | None,
    typer.Option("--holdout", exists=True, dir_okay=False, help="Later bars that only judge."),
]
HorizonOption = Annotated[int, typer.Option(min=1, help="Bars until a label is known: 1 or 4.")]
BudgetOption = Annotated[
    float | None, typer.Option(min=0.1, help="Minutes for all models; says what it left out.")
]


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(train)


def train(
    data: DataOption,
    out: OutOption,
    kind: Annotated[
        str,
        typer.Argument(
            help="xgboost, lightgbm, nhits, patchtst, regime, random_forest, lstm or all."
        ),
    ] = "all",
    holdout: HoldoutOption = None,
    horizon: HorizonOption = 4,
    folds: Annotated[int, typer.Option(min=0, max=20, help="Walk-forward folds.")] = 4,
    budget: BudgetOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same model.")] = 7,
    device: Annotated[str, typer.Option(help="cpu or cuda, for networks.")] = "cpu",
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="Only this symbol; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train models on recorded bars: labels, walk-forward, fit, calibration, ONNX, parity, gate.

    What is finished in --out is kept and not made again. Of several models, one that the recording
    is too short for (the regime model needs every regime) is left out and named. Exit codes: 0
    trained (also when the prior is not beaten: the table says so), 1 failed, 2 usage or nothing
    could be trained, 3 the data was not recorded from a market.
    """
    with reporting(as_json=as_json):
        models, left_out = _train_all(
            kind, data, holdout or [], symbol or [], out, horizon, folds, budget, seed, device,
            quiet=as_json,
        )  # fmt: skip
        page = _write_report(models, left_out, out)
    if as_json:
        made = {"models": [_plain(one) for one in models], "left_out": left_out}
        print_json({"ok": True, **made, "report": str(page)})
        return
    _show(models, left_out)
    console.print(f"Report written to {page}", soft_wrap=True)


def _train_all(
    kind: str,
    data: list[Path],
    holdout: list[Path],
    symbols: list[str],
    out: Path,
    horizon: int,
    folds: int,
    budget_minutes: float | None,
    seed: int,
    device: str,
    *,
    quiet: bool,
) -> tuple[list["TrainedModel"], list[str]]:
    """Return the models, and which could not be made of this data and why; raises if none could."""
    from onnx_models.kinds import (  # noqa: PLC0415  # the train extra
        REGIME,
        build_family,
        choose_kinds,
        wants_regime,
    )
    from onnx_models.periods import BaselineBench  # noqa: PLC0415
    from onnx_models.train import Training, TrainOptions  # noqa: PLC0415

    families, regime = [build_family(one) for one in choose_kinds(kind)], wants_regime(kind)
    bench = BaselineBench()
    if families:
        known, later = _load(data, symbols), _load(holdout, symbols) if holdout else None
    share_seconds = None
    if budget_minutes is not None:
        share_seconds = 60.0 * budget_minutes / (len(families) + regime)
    options = TrainOptions(
        horizon_bars=horizon, folds=folds, seed=seed, budget_seconds=share_seconds, device=device
    )

    def make(family: "Family", report: Any) -> "TrainedModel":
        return Training(family, known, options, out, later, bench, report).run()

    def make_regime(report: Any) -> "TrainedModel":
        return _train_regime(data, holdout, symbols, out, options, report)

    makers: dict[str, Maker] = {family.name: partial(make, family) for family in families}
    return _make_each(makers | ({REGIME: make_regime} if regime else {}), quiet=quiet)


def _make_each(
    makers: dict[str, "Maker"], *, quiet: bool
) -> tuple[list["TrainedModel"], list[str]]:
    """Return what `makers` made, and by name why the recording was too short for the others.

    Raises RecordingTooShortError if it was for all of them.
    """
    from onnx_models.walk_forward import RecordingTooShortError  # noqa: PLC0415  # the train extra

    trained: list[TrainedModel] = []
    reasons: dict[str, RecordingTooShortError] = {}
    with _bar(quiet=quiet) as bar:
        for name, make in makers.items():
            with _follow(bar, name) as report:
                try:
                    trained.append(make(report))
                except RecordingTooShortError as error:
                    report(1.0, "left out")
                    reasons[name] = error
    if not trained:
        raise next(iter(reasons.values()))
    return trained, [f"{name}: {reason}" for name, reason in reasons.items()]


def _train_regime(
    data: list[Path],
    holdout: list[Path],
    symbols: list[str],
    out: Path,
    options: "TrainOptions",
    report: Any,
) -> "TrainedModel":
    from onnx_models.dataset import ProvenanceError  # noqa: PLC0415
    from onnx_models.regimes.rows import load_regime_rows  # noqa: PLC0415
    from onnx_models.regimes.train import RegimeTraining  # noqa: PLC0415

    try:
        known = load_regime_rows(data, symbols=symbols)
        later = load_regime_rows(holdout, symbols=symbols) if holdout else None
    except ProvenanceError as error:
        raise SafetyRefusedError(str(error)) from error
    return RegimeTraining(known, out, later, options=options, report=report).run()


def _load(paths: list[Path], symbols: list[str]) -> "DataSet":
    from onnx_models.dataset import ProvenanceError, load_data_set  # noqa: PLC0415

    try:
        return load_data_set(paths, symbols=symbols)
    except ProvenanceError as error:
        raise SafetyRefusedError(str(error)) from error


@contextmanager
def _follow(bar: Progress, name: str) -> Iterator[Any]:
    task = bar.add_task(name, total=1.0, note="")

    def report(share: float, note: str) -> None:
        bar.update(task, completed=share, note=note)

    yield report


def _bar(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=errors,
        disable=quiet,
    )


def _write_report(models: list["TrainedModel"], left_out: list[str], out: Path) -> Path:
    from onnx_models.regimes.report import describe_regime, is_regime  # noqa: PLC0415
    from onnx_models.report import describe_card, write_page  # noqa: PLC0415  # Plotly is heavy

    page = out / REPORT_NAME
    cards = [one.card for one in models]
    parts = [describe_regime(one) if is_regime(one) else describe_card(one) for one in cards]
    notes = [
        "all figures are of rows the model never saw",
        *(f"left out: {one}" for one in left_out),
    ]
    write_page(page, "Trained models", parts, notes)
    return page


def _show(models: list["TrainedModel"], left_out: list[str]) -> None:
    from onnx_models.regimes.report import (  # noqa: PLC0415
        REGIME_COLUMNS,
        is_regime,
        regime_rows,
    )
    from onnx_models.tables import SHORT_COLUMNS, short_rows  # noqa: PLC0415

    cards = [one.card for one in models]
    rows = [row for card in cards if not is_regime(card) for row in short_rows(card)]
    if rows:
        print_table("Out of sample, 95 % intervals", SHORT_COLUMNS, rows)
    for card in filter(is_regime, cards):
        print_table("Regimes out of sample, 95 % intervals", REGIME_COLUMNS, regime_rows(card))
        console.print(card.gate["reason"], soft_wrap=True)
    for one in models:
        card = one.card
        beaten = "beats" if card.beats_prior else "does [bold]not[/] beat"
        passed = "passed" if card.gate["passed"] else "[bold red]not passed[/]"
        console.print(
            f"{card.name} {card.version}{' (kept)' if one.kept else ''}: {beaten} the class prior, "
            f"gate {passed}, {one.folder}",
            soft_wrap=True,
        )
        for left in card.training["left_out"]:
            console.print(f"  left out: {left}")
    for reason in left_out:
        console.print(f"left out: {reason}", soft_wrap=True)


def _plain(model: "TrainedModel") -> dict[str, Any]:
    card = model.card
    return {
        "model": card.name,
        "version": card.version,
        "folder": str(model.folder),
        "kept": model.kept,
        "beats_prior": card.beats_prior,
        "beats_prior_of_direction": card.beats_prior_of_direction,
        "gate": card.gate,
        "left_out": card.training["left_out"],
        "wall_seconds": card.training["wall_seconds"],
        "evaluation": card.evaluation,
    }
