"""Verbs of the operator: halt, resume, config, schema."""

import time
from pathlib import Path
from typing import Annotated

import typer

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import (
    ExitCode,
    JsonFlag,
    console,
    fail,
    print_json,
    print_table,
    reporting,
)
from infra.settings import SettingsError, load_settings, settings_hash
from schemas.operations import Command

config_app = typer.Typer(help="Show or validate the effective settings.", no_args_is_help=True)
schema_app = typer.Typer(help="Export what is derived from the contracts.", no_args_is_help=True)

ReasonOption = Annotated[str, typer.Option(help="Why; it is kept in the log.")]
WaitOption = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for it to take effect.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command()(halt)
    app.command()(resume)
    app.add_typer(config_app, name="config")
    app.add_typer(schema_app, name="schema")


def halt(
    reason: ReasonOption = "operator",
    wait: WaitOption = 5.0,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Forbid new entries at once; exits and protective stops go on."""
    _command(Command.HALT, reason, wait, environment, as_json=as_json)


def resume(
    reason: ReasonOption = "operator",
    wait: WaitOption = 5.0,
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Allow entries again."""
    _command(Command.RESUME, reason, wait, environment, as_json=as_json)


def _command(
    command: Command, reason: str, wait: float, environment: str | None, *, as_json: bool
) -> None:
    with reporting(as_json=as_json):
        from dataflows.control import send_command, wait_until_applied  # noqa: PLC0415

        settings = settings_for(environment)
        started = time.monotonic()
        sent = send_command(settings, command, reason)
        applied = wait_until_applied(settings, sent.id, wait) if wait else None
        seconds = time.monotonic() - started
        if wait and applied is None:
            fail(
                ExitCode.FAILED,
                f"command {command.value!r} is in the log but was not applied within {wait:g} s; "
                "start the dataflow with quantstream up; it applies the command first",
                as_json=as_json,
            )
        document = {
            "ok": True,
            "command": command.value,
            "id": sent.id,
            "applied": applied is not None,
            "effective_time_ns": None if applied is None else applied.event_time_ns,
            "seconds": round(seconds, 3),
        }
        if as_json:
            print_json(document)
        else:
            done = f"took effect in {seconds:.2f} s" if applied else "was sent; not confirmed"
            console.print(f"{command.value} of account {sent.account} {done} (PAPER)")


@config_app.command("show")
def config_show(as_json: JsonFlag = False) -> None:
    """Show every effective setting and where it comes from; secrets are masked."""
    with reporting(as_json=as_json):
        loaded = load_settings()
        rows = list(loaded.rows())
        if as_json:
            print_json(
                {
                    "hash": settings_hash(loaded.settings),
                    "settings": [{"key": k, "value": v, "origin": o} for k, v, o in rows],
                }
            )
        else:
            print_table(
                f"settings {settings_hash(loaded.settings)}", ("key", "value", "origin"), rows
            )


@config_app.command("validate")
def config_validate(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a settings file (or the effective settings), strategies and models included."""
    with reporting(as_json=as_json):
        from dataflows.parts import build_lane  # noqa: PLC0415
        from dataflows.registry import find_refused  # noqa: PLC0415
        from schemas.instruments import InstrumentBook  # noqa: PLC0415

        loaded = load_settings(file)
        refused = find_refused(loaded.settings)
        if refused:
            msg = f"models must load; {'; '.join(refused)}"
            raise SettingsError(msg)
        lane = build_lane(loaded.settings, InstrumentBook(), lambda _kind, _count: None)
        lane.build_signals(0, None)
        if as_json:
            print_json({"ok": True, "hash": settings_hash(loaded.settings)})
        else:
            console.print(f"valid; hash {settings_hash(loaded.settings)}")


@schema_app.command("export")
def schema_export(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")] = Path("schema"),
    as_json: JsonFlag = False,
) -> None:
    """Write JSON Schema, ClickHouse DDL and data dictionary, derived from the contracts."""
    with reporting(as_json=as_json):
        from schemas.exports import write_all  # noqa: PLC0415

        written = [str(path) for path in write_all(out)]
        if as_json:
            print_json({"ok": True, "files": written})
        else:
            console.print(f"wrote {len(written)} files to {out}")
