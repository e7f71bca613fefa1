"""Verbs of the stack's life: up, down, status, doctor."""

from typing import Annotated

import typer

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import (
    ExitCode,
    JsonFlag,
    SafetyRefusedError,
    console,
    print_json,
    print_table,
    reporting,
)
from dataflows.doctor import Finding, examine
from dataflows.fencing import refuse_overlap
from dataflows.prepare import start_stack
from dataflows.stack import DEFAULT_FLOWS, FLOWS
from dataflows.status import StackStatus, read_status
from infra.lease import LeaseHeldError
from infra.stack.supervise import Supervisor


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)


def up(
    flows: Annotated[
        str, typer.Option(help=f"Dataflows to supervise, of {', '.join(FLOWS)}; empty for none.")
    ] = ",".join(DEFAULT_FLOWS),
    environment: EnvironmentOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start the embedded stack and the dataflows; what dies restarts from its recovery state."""
    with reporting(as_json=as_json):
        wanted = [name for name in flows.split(",") if name]
        for name in wanted:
            if name not in FLOWS:
                msg = f"--flows must name {', '.join(FLOWS)}; found {name!r}"
                raise ValueError(msg)
        try:
            refuse_overlap(wanted)
        except LeaseHeldError as error:
            raise SafetyRefusedError(str(error)) from error
        settings = settings_for(environment)
        start_stack(settings, wanted, foreground=False)
        show_status(read_status(settings), as_json=as_json)
        if not as_json:
            console.print("next: quantstream replay FILE… ; quantstream status ; quantstream down")


def down(as_json: JsonFlag = False) -> None:
    """Stop the dataflows, the store and the broker; state stays in the state folder."""
    with reporting(as_json=as_json):
        supervisor = Supervisor(settings_for().state_dir)
        was_running = supervisor.is_running()
        supervisor.stop()
        if as_json:
            print_json({"ok": True, "was_running": was_running})
        else:
            console.print("stopped" if was_running else "nothing was running")


def status(environment: EnvironmentOption = None, as_json: JsonFlag = False) -> None:
    """Show broker, store and each dataflow: state, lag, last useful work."""
    with reporting(as_json=as_json):
        found = read_status(settings_for(environment))
        show_status(found, as_json=as_json)
        if not found.ok:
            raise typer.Exit(int(ExitCode.FAILED))


def show_status(found: StackStatus, *, as_json: bool) -> None:
    """Print the status."""
    if as_json:
        print_json(found.to_plain())
        return
    console.print(
        f"environment [bold]{found.environment}[/] (PAPER)  settings {found.config_hash}  "
        f"broker {found.broker}  store {found.store}"
    )
    print_table(
        "processes",
        ("process", "state", "pid", "restarts", "lag (records)", "event time", "useful work"),
        [
            (
                row.name, row.state, row.pid or "", row.restarts,
                "" if row.lag_records is None else f"{row.lag_records:,}",
                row.event_time, row.last_useful_work,
            )
            for row in found.processes
        ],
    )  # fmt: skip


def doctor(as_json: JsonFlag = False) -> None:
    """Check versions, ports, disk, clock and settings, and name the remedy for what is wrong."""
    with reporting(as_json=as_json):
        findings = examine(settings_for())
        if as_json:
            print_json(
                {"ok": all(one.ok for one in findings), "checks": [_plain(one) for one in findings]}
            )
        else:
            print_table(
                "doctor",
                ("check", "ok", "found", "remedy"),
                [(one.check, "yes" if one.ok else "NO", one.found, one.remedy) for one in findings],
            )
        if not all(one.ok for one in findings):
            raise typer.Exit(int(ExitCode.FAILED))


def _plain(finding: Finding) -> dict[str, object]:
    return {name: getattr(finding, name) for name in finding.__struct_fields__}
