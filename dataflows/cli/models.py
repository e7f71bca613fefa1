"""`quantstream models`: which models there are, which of them serve, and how that changes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataflows.cli.context import EnvironmentOption, settings_for
from dataflows.cli.output import (
    ExitCode,
    JsonFlag,
    SafetyRefusedError,
    console,
    fail,
    print_json,
    print_table,
    reporting,
)
from infra.settings import Settings
from schemas.operations import Command

if TYPE_CHECKING:
    from dataflows.model_commands import Adoption
    from infra.models.manifest import Change, Manifest, VersionEntry
    from infra.models.registry import Registry, Stamp

WAIT_SECONDS = 300.0
"""A rollback that takes longer has failed (acceptance row S-016)."""

VERSION_COLUMNS = ("model", "version", "status", "role", "family", "gate", "content_hash")
VOTER_COLUMNS = ("voter", "kind", "model", "version", "content_hash", "reason")
LIVE_COLUMNS = ("model", "partition", "version", "kind", "effective_from", "content_hash")

models_app = typer.Typer(help="List, check and change the models that vote.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(help="Name of the model in the registry.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", file_okay=False, help="Folder of the registry.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", exists=True, dir_okay=False, help="Private key (PEM) that signs."),
]
SignerOption = Annotated[str, typer.Option("--signer", help="Name of that key's public half.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is kept in the manifest and the log.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0.0, help="Seconds to wait for every lane to adopt it.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.add_typer(models_app, name="models")


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what a safety rule forbids into the exit code for it."""
    from infra.models.manifest import GateRefusedError  # noqa: PLC0415  # onnxruntime is heavy
    from infra.models.signing import SignatureRefusedError  # noqa: PLC0415
    from infra.onnx_session import ModelRefusedError  # noqa: PLC0415

    try:
        yield
    except (GateRefusedError, SignatureRefusedError, ModelRefusedError) as error:
        raise SafetyRefusedError(str(error)) from error


@models_app.command("list")
def list_models(
    root: RootOption = None, environment: EnvironmentOption = None, as_json: JsonFlag = False
) -> None:
    """List every version with its status and hash, the voters, and (with --env) what is live."""
    with reporting(as_json=as_json), refusing():
        from dataflows.registry import open_registry  # noqa: PLC0415

        settings = settings_for(environment)
        registry = open_registry(settings, root)
        manifest, signer = registry.store.read_signed()
        roles = _roles(settings, manifest)
        rows = [_describe(entry, roles) for entry in manifest.entries()]
        voters = _voters(settings, registry)
        live = _live(settings) if environment is not None else []
        if as_json:
            place = {"root": str(registry.store.root), "signer": signer}
            place |= {"sequence": str(manifest.sequence)}
            print_json(
                {"ok": True, "registry": place, "models": rows, "voters": voters, "live": live}
            )
            return
        _print_rows(f"models signed by {signer}", VERSION_COLUMNS, rows)
        _print_rows("voters", VOTER_COLUMNS, voters)
        if environment is not None:
            _print_rows(f"live in {environment}", LIVE_COLUMNS, live)


@models_app.command()
def show(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="Empty: the one that serves.")] = "",
    root: RootOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a version: its entry in the manifest and its card, after checking its bytes."""
    with reporting(as_json=as_json), refusing():
        import msgspec  # noqa: PLC0415

        from dataflows.registry import open_registry  # noqa: PLC0415
        from infra.onnx_session import CARD_NAME  # noqa: PLC0415

        registry = open_registry(settings_for(), root)
        manifest = registry.read()
        entry = manifest.version(model, version or manifest.model(model).active)
        card = msgspec.json.decode(registry.store.read_version(entry)[CARD_NAME])
        card = {name: value for name, value in card.items() if not name.startswith("self_test")}
        changes = [each for each in manifest.changes if each.model == model]
        document = {"ok": True, "entry": entry, "card": card, "changes": changes}
        document = msgspec.to_builtins(document)
        if as_json:
            print_json(document)
            return
        rows = [*document["entry"].items(), *card.items()]
        print_table(f"{model} {entry.version}", ("what", "value"), rows)


@models_app.command()
def verify(root: RootOption = None, as_json: JsonFlag = False) -> None:
    """Check signature and every byte; exit 1 names what is not as the manifest says."""
    with reporting(as_json=as_json), refusing():
        import msgspec  # noqa: PLC0415

        from dataflows.registry import open_registry  # noqa: PLC0415

        registry = open_registry(settings_for(), root)
        manifest, signer = registry.store.read_signed()
        faults = registry.verify()
        count = len(manifest.entries())
        if as_json:
            found = {"faults": msgspec.to_builtins(faults), "signer": signer, "versions": count}
            print_json({"ok": not faults} | found)
        elif faults:
            shown = [(each.model, each.version, each.file, each.problem) for each in faults]
            print_table("faults", ("model", "version", "file", "problem"), shown)
        else:
            console.print(f"{count} versions are as the manifest signed by {signer} says")
        if faults:
            raise typer.Exit(int(ExitCode.FAILED))


@models_app.command()
def add(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The artefact.")],
    reason: ReasonOption = "added by the operator",
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Take an artefact as a candidate; a model's first version serves if it passed its gate."""
    with reporting(as_json=as_json), refusing():
        registry, stamp = open_stamped(settings_for(), root, key, signer, reason)
        entry = registry.add(folder, stamp)
        if as_json:
            print_json({"ok": True} | _describe(entry, {}))
        else:
            console.print(f"{entry.model} {entry.version} is {entry.status.value}")


@models_app.command()
def activate(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="Version that is to serve.")],
    reason: ReasonOption = "activated by the operator",
    despite_gate: Annotated[
        str, typer.Option(help="Why a version that failed its gate may serve; it is recorded.")
    ] = "",
    environment: EnvironmentOption = None,
    wait: WaitOption = WAIT_SECONDS,
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Let a version serve, here and in the running lanes, without a restart."""
    with reporting(as_json=as_json), refusing():
        settings = settings_for(environment)
        sends = _sends(settings, environment, root)
        registry, stamp = open_stamped(settings, root, key, signer, despite_gate or reason)
        change = None
        # What serves already may be sent again: lanes that were down did not answer the first time.
        if not (sends and registry.read().model(model).active == version):
            change = registry.activate(model, version, stamp, despite_gate=bool(despite_gate))
        adoption = (
            _command(settings, Command.ACTIVATE, model, version, stamp.reason, wait)
            if sends
            else None
        )
        _report("activate", model, version, change, adoption, as_json=as_json)


@models_app.command()
def rollback(
    model: ModelArgument,
    to: Annotated[str, typer.Option(help="Version that served before; empty: the last.")] = "",
    reason: ReasonOption = "rolled back by the operator",
    environment: EnvironmentOption = None,
    wait: WaitOption = WAIT_SECONDS,
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Let the version before serve again, here and in the running lanes; prints the seconds it took."""
    with reporting(as_json=as_json), refusing():
        settings = settings_for(environment)
        sends = _sends(settings, environment, root)
        registry, stamp = open_stamped(settings, root, key, signer, reason)
        change = registry.rollback(model, stamp, to)
        adoption = (
            _command(settings, Command.ROLLBACK, model, change.version, reason, wait)
            if sends
            else None
        )
        _report("rollback", model, change.version, change, adoption, as_json=as_json)


@models_app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=2, help="Versions per model [registry.versions_kept].")
    ] = None,
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Remove the oldest versions; what serves and what served before it always stays."""
    with reporting(as_json=as_json), refusing():
        settings = settings_for()
        registry, stamp = open_stamped(settings, root, key, signer, "pruned by the operator")
        removed = registry.prune(stamp, keep or settings.registry.versions_kept)
        if as_json:
            print_json({"ok": True, "removed": removed})
        else:
            console.print(f"removed {len(removed)} versions")


@models_app.command()
def sign(
    root: Annotated[Path, typer.Option("--root", exists=True, file_okay=False, help="Registry.")],
    key: KeyOption = None,
    signer: SignerOption = "local",
    unverified: Annotated[
        bool, typer.Option(help="Also if nobody known signed it: you have looked at it yourself.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Vouch for a registry with your own key, after checking every byte against its manifest."""
    with reporting(as_json=as_json), refusing():
        from dataflows.registry import open_registry  # noqa: PLC0415

        settings = settings_for()
        who = _signer(settings, key, signer)
        open_registry(settings, root).sign(who, unverified=unverified)
        if as_json:
            print_json({"ok": True, "signer": who.name, "public_key": who.public_text})
        else:
            console.print(f"signed by {who.name}; its public key is {who.public_text}")


def _signer(settings: Settings, key: Path | None, name: str) -> Any:
    from infra.models.signing import load_or_create_signer, load_signer  # noqa: PLC0415

    return load_or_create_signer(settings.state_dir) if key is None else load_signer(key, name)


def open_stamped(
    settings: Settings, root: Path | None, key: Path | None, name: str, reason: str
) -> tuple["Registry", "Stamp"]:
    """Return a registry that may be changed, and the stamp of who changes it now and why."""
    from dataflows.registry import open_to_change  # noqa: PLC0415
    from infra.models.registry import Stamp  # noqa: PLC0415

    registry, signer = open_to_change(settings, root, _signer(settings, key, name))
    return registry, Stamp(signer=signer, now_ns=time.time_ns(), reason=reason)


def _sends(settings: Settings, environment: str | None, root: Path | None) -> bool:
    from dataflows.model_commands import find_lanes  # noqa: PLC0415

    return find_lanes(settings, environment, root)


def _command(
    settings: Settings, command: Command, model: str, version: str, reason: str, seconds: float
) -> "Adoption":
    from dataflows.model_commands import command_lanes  # noqa: PLC0415

    return command_lanes(settings, command, model, version, reason, seconds)


def _report(
    action: str,
    model: str,
    version: str,
    change: "Change | None",
    adoption: "Adoption | None",
    *,
    as_json: bool,
) -> None:
    document: dict[str, Any] = {"ok": adoption is None or adoption.ok, "action": action}
    document |= {"model": model, "version": version}
    document["previous_version"] = "" if change is None else change.previous_version
    if adoption is not None:
        document["seconds"] = round(adoption.seconds, 3)
        document["effective_from_ns"] = {
            number: answer.effective_from_ns for number, answer in adoption.answers.items()
        }
        document["refused"], document["missing"] = adoption.refusals, adoption.missing
    if not document["ok"]:
        assert adoption is not None
        if as_json:
            print_json(document)
            raise typer.Exit(int(ExitCode.FAILED))
        reasons = "; ".join(sorted(set(adoption.refusals.values())))
        text = (
            f"version {version} of model {model!r} is active in the registry but was refused in "
            f"{sorted(adoption.refusals)} ({reasons}) and not answered in {list(adoption.missing)} "
            f"within {adoption.seconds:.0f} s; roll back, or look at quantstream status"
        )
        fail(ExitCode.FAILED, text)
    if as_json:
        print_json(document)
        return
    lanes = (
        "no dataflow was told; it counts from the next start"
        if adoption is None
        else f"{len(adoption.answers)} lanes adopted it in {adoption.seconds:.2f} s"
    )
    console.print(f"{model} {version} serves; {lanes} (PAPER)")


def _roles(settings: Settings, manifest: "Manifest") -> dict[tuple[str, str], str]:
    """Return which voters each version serves."""
    from operators.voters import model_name  # noqa: PLC0415

    roles: dict[tuple[str, str], list[str]] = {}
    for voter, chosen in settings.models.items():
        model = manifest.models.get(model_name(voter, chosen))
        if chosen.enabled and chosen.kind == "onnx" and model is not None and model.active:
            roles.setdefault((model_name(voter, chosen), model.active), []).append(voter)
    return {key: ", ".join(voters) for key, voters in roles.items()}


def _describe(entry: "VersionEntry", roles: dict[tuple[str, str], str]) -> dict[str, Any]:
    from schemas.times import format_time_ns  # noqa: PLC0415

    first, last = entry.data.get("first_open_ns"), entry.data.get("last_close_ns")
    return {
        "model": entry.model,
        "version": entry.version,
        "status": entry.status.value,
        "role": roles.get((entry.model, entry.version), ""),
        "content_hash": entry.content_hash,
        "family": entry.family,
        "timeframe": entry.timeframe,
        "horizon_bars": entry.horizon_bars,
        "gate": "passed" if entry.gate_passed else "not passed",
        "beats_prior": entry.beats_prior,
        "parent": entry.parent,
        "trained_from": format_time_ns(first) if first is not None else "",
        "trained_to": format_time_ns(last) if last is not None else "",
        "added_at": format_time_ns(entry.added_at_ns),
        "reason": entry.reason,
        "size_bytes": sum(file.size_bytes for file in entry.files.values()),
    }


def _voters(settings: Settings, registry: "Registry") -> list[dict[str, Any]]:
    """Return every voter that is not a rule, with the bytes that a lane would load now."""
    from infra.models.loading import load_active  # noqa: PLC0415
    from operators.voters import model_name  # noqa: PLC0415

    rows = []
    for voter, chosen in sorted(settings.models.items()):
        row = {"voter": voter, "kind": chosen.kind, "model": "", "version": "", "content_hash": ""}
        if not chosen.enabled:
            row["reason"] = "switched off"
        elif chosen.kind == "onnx":
            loaded = load_active(registry, model_name(voter, chosen))
            row |= {"model": loaded.model, "version": loaded.version, "reason": loaded.reason}
            row["content_hash"] = loaded.session.content_hash if loaded.session else ""
        else:
            row["reason"] = "learns online; each vote names the hash of its state"
        rows.append(row)
    return rows


def _live(settings: Settings) -> list[dict[str, Any]]:
    from dataflows.model_commands import read_live  # noqa: PLC0415
    from schemas.times import format_time_ns  # noqa: PLC0415

    return [
        {
            "model": event.model,
            "partition": event.partition,
            "version": event.version,
            "content_hash": event.content_hash,
            "kind": event.kind.value,
            "effective_from": format_time_ns(event.effective_from_ns),
            "effective_from_ns": event.effective_from_ns,
        }
        for event in read_live(settings)
    ]


def _print_rows(title: str, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    # A hash is told apart by its start; the whole of it is in the JSON.
    cells = ([row[n][:12] if n == "content_hash" else row[n] for n in names] for row in rows)
    print_table(title, names, cells)
