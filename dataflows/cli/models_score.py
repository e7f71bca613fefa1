"""`quantstream models score`: what every version is worth on recorded files or on what an environment saw."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from dataflows.cli.context import settings_for
from dataflows.cli.output import (
    JsonFlag,
    SafetyRefusedError,
    console,
    print_json,
    print_table,
    reporting,
)
from infra.settings import Settings
from schemas.times import format_time_ns, parse_time_ns

if TYPE_CHECKING:
    from onnx_models.dataset import DataSet
    from onnx_models.scoring import Score, Span, Statuses

REPORT_NAME = "models-score.html"

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        show_default=False,
        help="Recorded 5m to 1h bars (Parquet or CSV); or --env.",
    ),
]
SeenOption = Annotated[
    str | None,
    typer.Option("--env", "-e", help="Judge on the 5m to 1h bars that this environment saw."),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        exists=True,
        file_okay=False,
        show_default="the shipped registry; with --env the one that serves",
        help="Registry or other folder.",
    ),
]
SinceOption = Annotated[
    str | None, typer.Option(help="Judge bars that open from then on (ISO); older ones warm up.")
]
UntilOption = Annotated[
    str | None, typer.Option(help="Judge bars whose label was known by then (ISO).")
]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write the page.")]


class Source(NamedTuple):
    """The bars to judge on, and whose versions are judged."""

    data: "DataSet"
    root: Path
    told: dict[str, Any]
    """For programs: environment or files, timeframe, number of bars by provenance."""
    text: str
    """The same for people."""


def register(app: typer.Typer) -> None:
    """Add the verb to the verbs of `models`."""
    app.command()(score)


def score(
    files: FilesArgument = None,
    environment: SeenOption = None,
    root: RootOption = None,
    horizon: Annotated[int, typer.Option(min=1, help="Bars until a label is known: 1 or 4.")] = 4,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="Only this symbol; repeatable.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    out: OutOption = Path(REPORT_NAME),
    as_json: JsonFlag = False,
) -> None:
    """Score every version, the equal-weight pool of what serves and the baselines on the same bars.

    The bars are those of recorded FILEs, or with --env those that an environment saw, as far as they
    are archived: what serves there and what is in the shadow side by side, each with its status.
    Log-loss, Brier, ECE, per-class figures, direction, RMSE and net return, with 95 % intervals and
    reliability plots. Says IN-SAMPLE where a model's training data overlaps the judged range. Exit
    codes: 0 judged, 1 no store answers, 2 usage or nothing to judge, 3 the bars are of no market.
    """
    with reporting(as_json=as_json):
        settings, span = settings_for(environment), _read_span(since, until)
        source = _open_source(settings, files or [], environment, root, symbol or [])
        found = _score(settings, source, horizon, span)
        _write_page(found, source, out)
    if as_json:
        told = {"in_sample": found.in_sample, "root": str(source.root), "source": source.told}
        print_json({"ok": True, **told, **msgspec.to_builtins(found), "report": str(out)})
        return
    _show(found, source)
    console.print(f"Report written to {out}", soft_wrap=True)


def _read_span(since: str | None, until: str | None) -> "Span":
    from onnx_models.scoring import EVER  # noqa: PLC0415

    first_ns = EVER[0] if since is None else parse_time_ns(since)
    last_ns = EVER[1] if until is None else parse_time_ns(until)
    return first_ns, last_ns


def _open_source(
    settings: Settings,
    files: list[Path],
    environment: str | None,
    root: Path | None,
    symbols: list[str],
) -> Source:
    from dataflows.registry import SHIPPED, registry_root  # noqa: PLC0415  # onnxruntime is heavy
    from onnx_models.dataset import ProvenanceError  # noqa: PLC0415

    if bool(files) == (environment is not None):
        found = "both" if files else "neither"
        msg = (
            f"models must be scored on recorded FILEs or on --env; found {found}; give one of them"
        )
        raise ValueError(msg)
    try:
        if environment is None:
            return _open_files(files, root or SHIPPED, symbols)
        return _open_environment(settings, root or registry_root(settings), symbols)
    except ProvenanceError as error:
        raise SafetyRefusedError(str(error)) from error


def _open_files(files: list[Path], root: Path, symbols: list[str]) -> Source:
    from onnx_models.dataset import load_data_set  # noqa: PLC0415

    data, names = load_data_set(files, symbols=symbols), [path.name for path in files]
    counts = {data.manifest.provenance: data.manifest.bars}
    told = {"files": names, "timeframe": data.manifest.timeframe, "bars": counts}
    return Source(data, root, told, f"{_count(counts, '1h')} of {', '.join(names)}")


def _open_environment(settings: Settings, root: Path, symbols: list[str]) -> Source:
    from dataflows.seen_bars import load_seen_bars  # noqa: PLC0415

    seen, name = load_seen_bars(settings, symbols), settings.environment
    told = {"environment": name, "timeframe": seen.timeframe, "bars": seen.bars}
    return Source(
        seen.data, root, told, f"{_count(seen.bars, seen.timeframe)} of environment {name} (PAPER)"
    )


def _count(bars: dict[str, int], timeframe: str) -> str:
    kinds = " and ".join(f"{count:,} {provenance}" for provenance, count in sorted(bars.items()))
    return f"{kinds} bars of {timeframe}"


def _score(settings: Settings, source: Source, horizon: int, span: "Span") -> "Score":
    from onnx_models.scoring import score_models  # noqa: PLC0415

    if horizon not in source.data.targets:
        known = sorted(source.data.targets)
        msg = f"horizon must be one of {known!r} bars; found {horizon!r}; choose one"
        raise ValueError(msg)
    statuses, untold = _read_statuses(settings, source.root)
    found = score_models(source.root, source.data, horizon, statuses, span)
    return msgspec.structs.replace(found, left_out=[*found.left_out, *untold])


def _read_statuses(settings: Settings, root: Path) -> tuple["Statuses", list[str]]:
    """Return the statuses in a registry; of one that cannot be trusted none, and why."""
    from dataflows.registry import read_statuses  # noqa: PLC0415
    from infra.models.manifest import RegistryError  # noqa: PLC0415
    from infra.models.signing import SignatureRefusedError  # noqa: PLC0415

    try:
        return read_statuses(settings, root), []
    except (RegistryError, SignatureRefusedError) as error:
        return {}, [f"statuses: {error}"]


def _write_page(found: "Score", source: Source, out: Path) -> None:
    from onnx_models.report import ReportPart, draw_reliability, write_page  # noqa: PLC0415
    from onnx_models.tables import table_row  # noqa: PLC0415

    part = ReportPart(
        title=_title(found),
        notes=[source.text, *(f"left out: {one}" for one in found.left_out)],
        rows=[table_row(one.title, "scored", one.evaluation) for one in found.scored],
        figures=[draw_reliability(one.title, one.reliability) for one in found.scored],
    )
    write_page(out, "Models judged", [part], [_verdict(found)])


def _show(found: "Score", source: Source) -> None:
    from onnx_models.tables import SHORT_COLUMNS, short_row  # noqa: PLC0415

    rows = [short_row(one.title, "scored", one.evaluation) for one in found.scored]
    print_table(f"{_title(found)}, 95 % intervals", SHORT_COLUMNS, rows)
    for line in (source.text, _verdict(found), *(f"left out: {one}" for one in found.left_out)):
        console.print(line, soft_wrap=True)


def _title(found: "Score") -> str:
    times = [format_time_ns(time_ns) for time_ns in (found.first_open_ns, found.last_close_ns)]
    return f"{found.rows:,} rows, horizon {found.horizon_bars} bars, {' to '.join(times)}"


def _verdict(found: "Score") -> str:
    if not found.in_sample:
        return "out of sample: no model has seen this range"
    text = "IN-SAMPLE: models marked so have seen this range; their figures prove nothing"
    if found.unseen_from_ns >= found.last_close_ns:
        return text
    return f"{text}; --since {format_time_ns(found.unseen_from_ns)} judges what none has seen"
