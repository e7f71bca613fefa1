"""`quantstream report`: what a session came to, as a page, on screen or as JSON."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from dataflows.cli.output import JsonFlag, console, print_json, reporting
from infra.report.session import SessionTables, load_folder
from infra.settings import Settings, load_settings

EnvironmentOption = Annotated[
    str,
    typer.Option("--environment", "--env", "-e", help="Environment to report on (from settings)."),
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of a backtest instead of an environment.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Where to write the page [report.html in the folder].")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(report)


def report(
    environment: EnvironmentOption = "",
    folder: FolderOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the HTML report of a session and print its summary; all of it PAPER."""
    from dataflows.registry import artefact_folders  # noqa: PLC0415  # onnxruntime is heavy
    from infra.report.live_scores import read_bands  # noqa: PLC0415
    from infra.report.render import write_report  # noqa: PLC0415  # Plotly is heavy
    from infra.report.summary import summarise  # noqa: PLC0415
    from infra.report.terminal import print_summary  # noqa: PLC0415
    from infra.report.voters import read_training_periods  # noqa: PLC0415

    with reporting(as_json=as_json):
        if folder is not None and environment:
            msg = "report must have one source; found --folder and --environment; give only one of them"
            raise ValueError(msg)
        settings = load_settings().settings
        session = load_folder(folder) if folder else _load_archived(settings, environment)
        folders = artefact_folders(settings)
        summary = summarise(
            session,
            starting_cash(session, settings),
            training_periods=read_training_periods(folders),
            score_bands=read_bands(folders),
        )
        page = out or (folder or Path()) / "report.html"
        size_bytes = write_report(session, summary, page)
        if as_json:
            print_json(summary | {"report": str(page), "report_bytes": size_bytes})
            return
        print_summary(console, summary)
        console.print(f"Report written to {page} ({size_bytes / 1e6:.1f} MB)", soft_wrap=True)


def starting_cash(session: SessionTables, settings: Settings) -> Decimal:
    """Return what the session started with: as it published it, else as it is set now."""
    published = session.settings.get("portfolio", {}).get("starting_cash_usd")
    return settings.portfolio.starting_cash_usd if published is None else Decimal(str(published))


def _load_archived(settings: Settings, environment: str) -> SessionTables:
    from dataflows.stack import store_settings  # noqa: PLC0415  # a folder needs no store
    from infra.clickhouse.client import connect, database_name  # noqa: PLC0415
    from infra.report.environment import load_environment  # noqa: PLC0415

    store, name = store_settings(settings), environment or settings.environment
    database = database_name(store, name)
    client = connect(store)
    try:
        return load_environment(client, database, name, settings.account)
    finally:
        client.close()
