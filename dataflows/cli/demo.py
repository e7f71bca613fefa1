"""The verb `demo`: a recorded market session through the whole stack, and what a trader wants to know."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dataflows.cli.explain import print_explanation
from dataflows.cli.output import JsonFlag, console, print_json, reporting
from schemas.times import format_time_ns


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(demo)


def demo(
    state_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of the demo's stack; emptied first.")
    ] = Path(".quantstream/demo"),
    report: Annotated[Path, typer.Option(dir_okay=False, help="HTML report to write.")] = Path(
        "quantstream-demo.html"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Replay recorded crypto data through broker, dataflows and store; everything is PAPER."""
    signal.signal(signal.SIGTERM, _interrupt)
    with reporting(as_json=as_json):
        from dataflows.demo import Demo  # noqa: PLC0415  # loads the whole engine

        started = time.monotonic()
        try:
            stage = Demo(state_dir)
            _say("starting Apache Kafka, the ClickHouse store and the dataflows (PAPER) …", as_json)
            with stage:
                timing = _play(stage, as_json=as_json)
                closing = _close(stage, timing, report)
        except KeyboardInterrupt:
            _say("interrupted; everything was stopped", as_json)
            raise typer.Exit(130) from None
        closing["summary"]["seconds_in_all"] = round(time.monotonic() - started, 1)
        if as_json:
            print_json(closing["summary"])
            return
        _print_closing(stage, closing, report, time.monotonic() - started)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        console.print(text)


def _play(stage: Any, *, as_json: bool) -> dict[str, Any]:
    columns = (
        SpinnerColumn(),
        TextColumn("session (PAPER)"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    start_ns, end_ns = stage.session.start_ns, stage.session.end_ns
    with Progress(*columns, console=console, disable=as_json) as progress:
        task = progress.add_task("session", total=100, note="")

        def show(step: Any) -> None:
            reached = max(step.event_time_ns, start_ns)
            progress.update(
                task,
                completed=(reached - start_ns) / (end_ns - start_ns) * 100,
                note=f"{step.ticks_per_second:,.0f} ticks/s  {format_time_ns(reached)[:16]}  "
                f"{step.signals:,} signals  {step.fills:,} fills  {step.archived:,} rows stored",
            )

        timing: dict[str, Any] = stage.play(show)
    return timing


def _close(stage: Any, timing: dict[str, Any], report: Path) -> dict[str, Any]:
    """Read the summary, two worked explanations and the report from the tables."""
    from dataflows.archive_client import open_archive  # noqa: PLC0415
    from dataflows.summarise import summarise_environment  # noqa: PLC0415
    from infra.clickhouse.why import explain  # noqa: PLC0415

    client = open_archive(stage.settings)
    summary = summarise_environment(stage.settings, client, report, timing)
    return {
        "summary": summary,
        "fill": explain(client, _last(client, "trade_fills", "1")),
        "non_trade": explain(client, _last(client, "trade_decisions", _UNTRADED)),
    }


_UNTRADED = (
    "verdict = 'denied' AND action = 'enter' AND denial NOT IN ('WARMING_UP', 'POSITION_OPEN')"
)


def _last(client: Any, table: str, where: str) -> str:
    found = client.query(
        f"SELECT id FROM {table} FINAL WHERE {where} ORDER BY event_time_ns DESC, id LIMIT 1"  # noqa: S608
    )
    return str(found.result_rows[0][0])


def _print_closing(stage: Any, closing: dict[str, Any], report: Path, seconds: float) -> None:
    from infra.report.terminal import print_summary  # noqa: PLC0415

    console.rule("the last fill, explained (PAPER)")
    print_explanation(closing["fill"])
    console.rule("a signal that was not traded, explained (PAPER)")
    print_explanation(closing["non_trade"])
    print_summary(console, closing["summary"])
    file = stage.settings.state_dir / "effective.toml"
    command = "quantstream" if shutil.which("quantstream") else os.path.relpath(sys.argv[0])
    console.print(f"\nreport: {report}   whole demo: {seconds:.0f} s   nothing is left running")
    console.print("next (the demo's log and tables are kept):", style="bold")
    for line in (
        f"export QUANTSTREAM_FILE={file}",
        f"{command} up",
        f"{command} verify",
        f"{command} why {closing['fill'].record_id}",
        f"{command} why --symbol BTCUSDT --at 2024-08-05T06:00",
        f"{command} down",
    ):
        console.print(f"  {line}", soft_wrap=True)
