"""`quantstream verify`: derive an environment again and name the first row that is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dataflows.cli.output import (
    ExitCode,
    JsonFlag,
    SafetyRefusedError,
    console,
    errors,
    print_json,
    print_table,
    reporting,
)
from dataflows.stack import kafka_settings, store_settings
from infra.audit.audit import Audit, EnvironmentRunningError
from infra.audit.log import AuditedLog, FolderLog, KafkaLog, read_folder_settings
from infra.audit.recording import RecordedBars
from infra.audit.report import AuditReport, CheckResult
from infra.audit.tables import AuditedStore
from infra.settings import Settings, load_settings

EnvOption = Annotated[
    str, typer.Option("--env", help="Environment to audit; default: the one of the settings.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Audit the folder of a backtest instead.")
]
InputOption = Annotated[
    list[Path] | None,
    typer.Option("--input", help="Recorded bars that the backtest of --folder ran over."),
]
RunningFlag = Annotated[
    bool, typer.Option("--allow-running", help="Audit an environment that is still being written.")
]


def verify(
    env: EnvOption = "",
    folder: FolderOption = None,
    inputs: InputOption = None,
    allow_running: RunningFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Audit an environment (PAPER) with code that shares nothing with the dataflows.

    Recomputes bars from ticks, features from bars, votes, the price and fee of fills, ids, the causal
    chain, the ledger and the limits, and holds ClickHouse against the topics. The folder of a backtest
    holds no ticks: give its recorded bars with --input. Exit code 0: clean, 1: violations, 2: usage, 3: still being written.
    """
    with reporting(as_json=as_json):
        if folder is not None and env:
            msg = "an audit is of one thing; found --env and --folder; drop one of them"
            raise ValueError(msg)
        if inputs and folder is None:
            msg = "--input belongs to the folder of a backtest; found no --folder; name it"
            raise ValueError(msg)
        settings = load_settings().settings
        report = audit(settings, env, folder, allow_running, quiet=as_json, inputs=inputs or ())
    if as_json:
        print_json({"ok": report.clean, **msgspec.to_builtins(report)})
    else:
        _show(report)
    if not report.clean:
        raise typer.Exit(int(ExitCode.FAILED))


def audit(
    settings: Settings,
    env: str,
    folder: Path | None,
    allow_running: bool,
    *,
    quiet: bool,
    inputs: Sequence[Path] = (),
) -> AuditReport:
    """Return the audit of an environment or of a folder, the latter against its `inputs`.

    Raises:
        SafetyRefusedError: The environment is still being written.
        EnvironmentMissingError: There is nothing to audit.
        LogUnreadableError, StoreUnreadableError: Broker or store does not answer.
        ValueError: An input holds no recorded bars.
    """
    environment = env or settings.environment
    log: AuditedLog
    store: AuditedStore | None = None
    if folder is not None:
        log, environment = FolderLog(folder), folder.name
        settings = read_folder_settings(folder) or settings
    else:
        log = KafkaLog(kafka_settings(settings), environment)
    try:
        recording = RecordedBars(inputs, folder) if folder is not None and inputs else None
        if folder is None:
            store = AuditedStore(store_settings(settings), environment)
        with _bar(quiet=quiet) as bar:
            task = bar.add_task("reading", total=log.total())

            def follow(topic: str, records: int) -> None:
                bar.update(task, advance=records, description=topic)

            engine = Audit(environment, log, store, settings, follow, recording)
            return engine.run(allow_running=allow_running)
    except EnvironmentRunningError as error:
        raise SafetyRefusedError(str(error)) from error
    finally:
        log.close()
        if store is not None:
            store.close()


def _bar(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=quiet,
    )


def _show(report: AuditReport) -> None:
    rows = [
        (check.name, check.invariants, f"{check.rows:,}", _verdict(check), check.skipped)
        for check in report.checks
    ]
    columns = ("check", "invariants", "rows", "result", "not checked")
    print_table(f"PAPER audit of {report.environment}", columns, rows)
    for note in report.notes:
        console.print(f"note: {note}")
    for check in report.checks:
        for found in check.first[:1]:
            print_table(f"first wrong row of {check.name}", ("what", "value"), _describe(found))
    word = "[green]clean[/]" if report.clean else "[bold red]violations found[/]"
    console.print(f"{word} in {report.seconds:.1f} s")


def _verdict(check: CheckResult) -> str:
    if check.violations:
        return f"[bold red]{check.violations:,} wrong[/]"
    if check.skipped and not check.rows:
        return "skipped"
    return "[green]clean[/]"


def _describe(found: Any) -> list[tuple[str, object]]:
    return [(name, _plain(getattr(found, name))) for name in found.__struct_fields__]


def _plain(value: object) -> str:
    return str(value).replace("[", r"\[")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify")(verify)
