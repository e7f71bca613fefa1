"""Summary and report of a session, from a backtest folder or from the tables of an environment."""

import json
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from dataflows.cli.output import console, print_json
from dataflows.live_scores import score_bands
from dataflows.registry import artefact_folders
from infra.clickhouse.client import database_name
from infra.report.environment import load_environment
from infra.report.render import write_report
from infra.report.session import load_folder
from infra.report.summary import summarise
from infra.report.terminal import print_summary
from infra.report.voters import Periods, read_training_periods
from infra.settings import Settings
from schemas.times import parse_time_ns


def training_periods(settings: Settings) -> Periods:
    """Return what the models of `settings` were trained on: a score inside it is in-sample."""
    return read_training_periods(artefact_folders(settings))


def _trade_start(settings: Settings) -> int | None:
    text = settings.portfolio.trade_from
    return parse_time_ns(text) if text else None


def summarise_environment(
    settings: Settings, client: Client, report: Path, timing: dict[str, Any]
) -> dict[str, Any]:
    """Return the summary of the environment and write its report."""
    database = database_name(settings.store, settings.environment)
    session = load_environment(client, database, settings.environment)
    summary = summarise(
        session,
        settings.portfolio.starting_cash_usd,
        trade_start_ns=_trade_start(settings),
        training_periods=training_periods(settings),
        score_bands=score_bands(settings),
        ticks=timing.get("ticks"),
    )
    summary["timing"] = timing
    write_report(session, summary, report)
    return summary


def finish_folder(
    settings: Settings, folder: Path, timing: dict[str, Any], *, as_json: bool, with_report: bool
) -> None:
    """Write `summary.json` (and the report) of a backtest folder and print it."""
    session = load_folder(folder)
    summary = summarise(
        session,
        settings.portfolio.starting_cash_usd,
        trade_start_ns=_trade_start(settings),
        training_periods=training_periods(settings),
        score_bands=score_bands(settings),
        ticks=timing["ticks"],
    )
    summary["timing"] = timing
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, default=str))
    if with_report:
        write_report(session, summary, folder / "report.html")
    if as_json:
        print_json(summary)
        return
    print_summary(console, summary)
    console.print(
        f"{timing['ticks']:,} ticks in {timing['seconds']:.1f} s "
        f"({timing['ticks'] / timing['seconds']:,.0f} ticks/s); tables and report in {folder}"
    )
