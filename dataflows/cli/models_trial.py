"""`quantstream models shadow` and `retire`: put a version on trial beside what serves, or give it up."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.cli.context import settings_for
from dataflows.cli.models import (
    KeyOption,
    ModelArgument,
    RootOption,
    SignerOption,
    open_stamped,
    refusing,
)
from dataflows.cli.output import JsonFlag, console, print_json, reporting

if TYPE_CHECKING:
    from infra.models.manifest import Change
    from infra.settings import Settings

VersionArgument = Annotated[str, typer.Argument(help="Version in the registry.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is kept in the manifest.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the verbs of `models`."""
    app.command()(shadow)
    app.command()(retire)


def shadow(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption = "on trial",
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Put a version on trial: kept and scored by `models score`, without a vote in any lane."""
    with reporting(as_json=as_json), refusing():
        settings = settings_for()
        registry, stamp = open_stamped(settings, root, key, signer, reason)
        change = registry.shadow(model, version, stamp)
        trial = f"is in the shadow; judge it: {_judge_line(settings, registry.store.root)}"
        _report(change, registry.store.root, trial, as_json=as_json)


def retire(
    model: ModelArgument,
    version: VersionArgument,
    reason: ReasonOption = "retired by the operator",
    root: RootOption = None,
    key: KeyOption = None,
    signer: SignerOption = "local",
    as_json: JsonFlag = False,
) -> None:
    """Give a version up; of one that serves, running lanes let go at their next start."""
    with reporting(as_json=as_json), refusing():
        registry, stamp = open_stamped(settings_for(), root, key, signer, reason)
        change = registry.retire(model, version, stamp)
        served = change.previous_version == version
        text = "no version serves from the next start on" if served else "what serves stays"
        _report(change, registry.store.root, f"is retired; {text}", as_json=as_json)


def _judge_line(settings: "Settings", root: Path) -> str:
    """Return the command that judges the registry in `root` on the bars of the environment."""
    from dataflows.registry import registry_root  # noqa: PLC0415  # onnxruntime is heavy

    elsewhere = "" if root == registry_root(settings) else f" --root {root}"
    return f"quantstream models score --env {settings.environment}{elsewhere}"


def _report(change: "Change", root: Path, text: str, *, as_json: bool) -> None:
    if as_json:
        named = {"action": change.action, "model": change.model, "version": change.version}
        print_json({"ok": True, **named, "root": str(root)})
    else:
        console.print(f"{change.model} {change.version} {text}", soft_wrap=True)
