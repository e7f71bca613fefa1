"""Verbs that move data: run, replay, backtest, features."""

import logging
import os
import signal
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dataflows.cli.context import EnvironmentOption, FilesArgument, settings_for
from dataflows.cli.output import (
    JsonFlag,
    SafetyRefusedError,
    console,
    print_json,
    print_table,
    reporting,
)
from infra.lease import LeaseHeldError, LeaseLostError
from infra.settings import Settings
from schemas.settings import TIMEFRAME_NS


class Flow(StrEnum):
    """Dataflows that can be run."""

    FEATURES = "features"
    SIGNALS = "signals"
    PORTFOLIO = "portfolio"
    TRADING = "trading"
    ARCHIVE = "archive"


class RecordEncoding(StrEnum):
    """How ticks are written into records."""

    NDJSON = "ndjson"
    ARROW = "arrow"


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command()(run)
    app.command()(replay)
    app.command()(backtest)
    app.command()(features)


def run(
    flow: Annotated[Flow, typer.Argument(help="Which dataflow.")],
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, each owning whole partitions.")
    ] = 1,
    worker: Annotated[
        int | None, typer.Option(hidden=True, help="Number of this process among the workers.")
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a dataflow until Ctrl-C or SIGTERM, with recovery on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    with reporting(as_json=as_json):
        settings = settings_for(environment)
        if workers > 1 and flow not in {Flow.FEATURES, Flow.SIGNALS}:
            msg = f"flow {flow.value!r} must run in one process; found --workers {workers}; leave it out"
            raise ValueError(msg)
        try:
            if worker is None and workers > 1:
                raise typer.Exit(_run_workers(flow.value, workers, settings))
            from dataflows.runner import run_flow, shards  # noqa: PLC0415  # loads the whole engine

            owned = shards(settings.kafka.partitions, workers)[worker or 0]
            run_flow(settings, flow.value, owned, worker=worker or 0)
        except (LeaseHeldError, LeaseLostError) as error:
            raise SafetyRefusedError(str(error)) from error
    if as_json:
        print_json({"ok": True, "flow": flow.value})


def _run_workers(flow: str, workers: int, settings: Settings) -> int:
    """Run one process per worker; if one ends, end the others and return its exit code."""
    environment = os.environ | {"QUANTSTREAM_ENVIRONMENT": settings.environment}
    command = [sys.executable, "-m", "dataflows.cli.main", "run", flow, "--workers", str(workers)]
    children = [
        subprocess.Popen([*command, "--worker", str(number)], env=environment)
        for number in range(workers)
    ]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping and all(child.poll() is None for child in children):
        time.sleep(0.1)
    codes = [child.poll() for child in children]
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        child.wait(timeout=30)
    failed = [code for code in codes if code]
    return failed[0] if failed else 0


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=False,
    )


def _time_text(event_time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(event_time_ns / 1e9))


def _span(start_ns: int, end_ns: int, now_ns: int) -> float:
    return (now_ns - start_ns) / max(1, end_ns - start_ns) * 100


def replay(
    files: FilesArgument,
    environment: EnvironmentOption = None,
    speed: Annotated[
        str, typer.Option(help="`max`, or how many event seconds pass in one second.")
    ] = "max",
    encoding: Annotated[RecordEncoding, typer.Option(help="Format of the records.")] = (
        RecordEncoding.NDJSON
    ),
    batch: Annotated[int, typer.Option(min=1, help="Most ticks in one record.")] = 700,
    start: Annotated[str | None, typer.Option(help="First event time (ISO).")] = None,
    end: Annotated[str | None, typer.Option(help="End of event time (ISO, exclusive).")] = None,
    time_column: Annotated[str, typer.Option(help="Column that counts as event time.")] = "ts_ns",
    as_json: JsonFlag = False,
) -> None:
    """Publish recorded trades, quotes or bars to market.ticks of a running stack."""
    with reporting(as_json=as_json):
        from dataflows.replay import OlderTimesError  # noqa: PLC0415
        from dataflows.replay import replay as publish  # noqa: PLC0415

        settings = settings_for(environment)
        pace = None if speed == "max" else _positive(speed)
        session = _session(files, start, end, time_column)
        started = time.monotonic()
        with _progress() as progress:
            task = progress.add_task("replay (PAPER)", total=100, note="", visible=not as_json)
            try:
                done = publish(
                    settings,
                    session,
                    speed=pace,
                    encoding=encoding.value,
                    batch=batch,
                    on_progress=lambda step: progress.update(
                        task,
                        completed=_span(session.start_ns, session.end_ns, step.event_time_ns),
                        note=f"{step.ticks:,} ticks  {_time_text(step.event_time_ns)}",
                    ),
                )
            except OlderTimesError as error:
                raise SafetyRefusedError(str(error)) from error
        seconds = time.monotonic() - started
        document = {
            "ok": True,
            "environment": settings.environment,
            "ticks": done.ticks,
            "records": done.records,
            "seconds": round(seconds, 3),
            "skipped": session.skipped(),
        }
        if as_json:
            print_json(document)
        else:
            console.print(
                f"published {done.ticks:,} ticks in {done.records:,} records to "
                f"{settings.environment}.market.ticks in {seconds:.1f} s"
            )
            for reason, count in session.skipped().items():
                console.print(f"not published: {count:,} rows ({reason})")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"--speed must be `max` or a number above 0; found {text!r}"
        raise ValueError(msg)
    return value


def _session(files: list[Path], start: str | None, end: str | None, time_column: str) -> Any:
    from dataflows.recorded_session import RecordedFile, RecordedSession  # noqa: PLC0415
    from schemas.times import parse_time_ns  # noqa: PLC0415

    return RecordedSession(
        [
            RecordedFile(
                path=path,
                start_ns=parse_time_ns(start) if start else None,
                end_ns=parse_time_ns(end) if end else None,
                time_column=time_column,
            )
            for path in files
        ]
    )


def backtest(
    files: FilesArgument,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for tables and report.")],
    start: Annotated[str | None, typer.Option(help="First event time (ISO).")] = None,
    end: Annotated[str | None, typer.Option(help="End of event time (ISO, exclusive).")] = None,
    trade_from: Annotated[
        str | None, typer.Option(help="Time before which history only warms up (ISO).")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Skip the HTML report.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run the trading dataflow over recorded files, without Kafka, into Parquet files."""
    with reporting(as_json=as_json):
        from dataflows.backtest import run_backtest  # noqa: PLC0415
        from dataflows.interpreter import tune_interpreter  # noqa: PLC0415
        from dataflows.summarise import finish_folder  # noqa: PLC0415

        settings = settings_for(None)
        if trade_from is not None:
            portfolio = settings.portfolio.model_copy(update={"trade_from": trade_from})
            settings = settings.model_copy(update={"portfolio": portfolio})
        session = _session(files, start, end, "ts_ns")
        tune_interpreter()
        started = time.monotonic()
        with _progress() as progress:
            task = progress.add_task("backtest (PAPER)", total=100, note="", visible=not as_json)
            counts = run_backtest(
                settings,
                session,
                out,
                lambda ticks, event_time_ns: progress.update(
                    task,
                    completed=_span(session.start_ns, session.end_ns, event_time_ns),
                    note=f"{ticks:,} ticks  {_time_text(event_time_ns)}",
                ),
            )
            progress.update(task, completed=100)
        seconds = time.monotonic() - started
        speed = {
            "seconds": round(seconds, 3),
            "ticks": counts.get("ticks", 0),
            "bars": sum(found.usable for found in session.descriptions if found.layout == "bars"),
        }
        finish_folder(settings, out, speed, as_json=as_json, with_report=not no_report)


def features(
    files: FilesArgument,
    out: Annotated[Path, typer.Option(dir_okay=False, help="Parquet file to write.")],
    timeframe: Annotated[str, typer.Option(help="1m, 5m, 1h or 1d.")] = "5m",
    schema: Annotated[str, typer.Option(help="fs34 or fs64.")] = "fs34",
    as_json: JsonFlag = False,
) -> None:
    """Compute the features of recorded data by the very operator that runs live."""
    with reporting(as_json=as_json):
        from dataflows.batch_features import compute_features  # noqa: PLC0415

        if timeframe not in TIMEFRAME_NS:
            msg = f"--timeframe must be one of {', '.join(TIMEFRAME_NS)}; found {timeframe!r}"
            raise ValueError(msg)
        frame = compute_features(
            settings_for(None), _session(files, None, None, "ts_ns"), timeframe, schema
        )
        frame.write_parquet(out)
        document = {"ok": True, "rows": frame.height, "columns": frame.width, "file": str(out)}
        if as_json:
            print_json(document)
        else:
            print_table(
                f"features {schema} {timeframe}",
                ("venue", "symbol", "bars", "complete"),
                _coverage(frame),
            )
            console.print(f"wrote {frame.height:,} rows to {out}")


def _coverage(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    counted = frame.group_by("venue", "symbol", maintain_order=True).agg(
        pl.len().alias("bars"), (pl.col("missing_mask") == 0).sum().alias("complete")
    )
    return counted.rows()
