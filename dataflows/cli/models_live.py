"""`quantstream models live`: does each model foresee as well as its card promised?"""

from pathlib import Path
from typing import Annotated

import typer

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import JsonFlag, console, print_json, print_table, reporting

COLUMNS = ("model", "version", "scored", "log-loss", "card", "band of the card", "standing")


def register(app: typer.Typer) -> None:
    """Add the verb to the verbs of `models`."""
    app.command()(live)


def live(
    folder: Annotated[
        Path | None, typer.Option(file_okay=False, help="A backtest instead of an environment.")
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold each model's live log-loss against the out-of-sample interval of its card."""
    with reporting(as_json=as_json):
        import msgspec  # noqa: PLC0415

        from dataflows.live_scores import score_environment, score_folder  # noqa: PLC0415
        from infra.report.live_scores import DEFINITION, LiveScore  # noqa: PLC0415

        settings = settings_for(environment)
        scores = score_environment(settings) if folder is None else score_folder(settings, folder)
        if as_json:
            found = {"definition": DEFINITION, "scored_min": settings.vote.scored_min}
            print_json({"ok": True, "models": msgspec.to_builtins(scores)} | found)
            return

        def row(one: LiveScore) -> tuple[object, ...]:
            band = one.band
            card = ("", "") if band is None else _band(band.log_loss, band.low, band.high)
            loss = "" if one.log_loss is None else f"{one.log_loss:.4f}"
            return (one.model, one.version, f"{one.scored:,}", loss, *card, one.standing)

        print_table("live log-loss beside the card (PAPER)", COLUMNS, map(row, scores))
        console.print(
            DEFINITION if scores else "no model has been scored yet: labels close hours later"
        )


def _band(log_loss: float, low: float, high: float) -> tuple[str, str]:
    return f"{log_loss:.4f}", f"{low:.4f} to {high:.4f}"
