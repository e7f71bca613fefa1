"""What a registry knows about its versions: the content of `registry.json`."""

import re
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from infra.onnx_session import ModelCard
from schemas.checked import decoder

FORMAT = 1
CHANGES_KEPT = 200
MODEL_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,47}")
VERSION_PATTERN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


class RegistryError(ValueError):
    """A registry cannot do what it was asked for; nothing was changed."""


class GateRefusedError(RegistryError):
    """A safety rule forbids to let this version serve."""


class Status(StrEnum):
    """Standing of a version."""

    CANDIDATE = "candidate"
    """Known, has not served."""
    SHADOW = "shadow"
    """On trial: kept and scored beside what serves (`quantstream models score`); lanes load none."""
    ACTIVE = "active"
    """Serves."""
    RETIRED = "retired"
    """Serves no more, or was given up before it did."""


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file of an artefact."""

    sha256: str
    size_bytes: int


class VersionEntry(Struct, frozen=True, kw_only=True):
    """One version of a model; all but status, its time and its reason never change."""

    model: str
    version: str
    content_hash: str
    """SHA-256 of the bytes that score; decision records carry the same."""
    files: dict[str, FileEntry]
    status: Status
    status_since_ns: int
    """Wall clock of the operator."""
    reason: str
    """Why it has this status."""
    added_at_ns: int
    """Wall clock of the operator."""
    parent: str
    """Version that was active when this one was added; empty if none was."""
    family: str
    timeframe: str
    horizon_bars: int
    feature_schema: str
    feature_schema_hash: str
    data: dict[str, Any]
    """Data that it was trained on, from its card: hash, range, rows, provenance."""
    gate: dict[str, Any]
    """What was measured before it may serve, from its card."""
    beats_prior: bool

    @property
    def gate_passed(self) -> bool:
        """Return whether its card says, in so many words, that the gate was passed."""
        return self.gate.get("passed") is True


class ModelEntry(Struct, frozen=True, kw_only=True):
    """Every version of one model."""

    active: str = ""
    """Version that serves; empty if none does."""
    earlier: tuple[str, ...] = ()
    """Versions that served before, oldest first; the last is what a rollback returns to."""
    versions: dict[str, VersionEntry] = {}
    """In the order in which they were added."""

    @property
    def previous(self) -> str:
        """Return the version that a rollback returns to; empty if there is none."""
        return self.earlier[-1] if self.earlier else ""

    @property
    def pinned(self) -> frozenset[str]:
        """Return the versions that are never pruned."""
        shadows = {each.version for each in self.versions.values() if each.status is Status.SHADOW}
        return frozenset({self.active, self.previous, *shadows} - {""})


class Change(Struct, frozen=True, kw_only=True):
    """One change of the registry."""

    at_ns: int
    """Wall clock of the operator."""
    action: str
    model: str
    version: str
    previous_version: str
    signer: str
    reason: str
    despite_gate: bool = False


class Manifest(Struct, frozen=True, kw_only=True):
    """A registry as a whole."""

    format: int = FORMAT
    sequence: int = 0
    """Number of changes so far."""
    models: dict[str, ModelEntry] = {}
    changes: tuple[Change, ...] = ()
    """The newest changes, oldest first."""

    def model(self, name: str) -> ModelEntry:
        """Return the model `name`; raises RegistryError if there is none."""
        if name not in self.models:
            msg = f"model must be one of {sorted(self.models)!r}; found {name!r}; add it first"
            raise RegistryError(msg)
        return self.models[name]

    def version(self, model: str, version: str) -> VersionEntry:
        """Return a version of a model; raises RegistryError if there is none."""
        entry = self.model(model)
        if version not in entry.versions:
            msg = (
                f"version of model {model!r} must be one of {list(entry.versions)!r}; "
                f"found {version!r}; add it first"
            )
            raise RegistryError(msg)
        return entry.versions[version]

    def entries(self) -> list[VersionEntry]:
        """Return every version, by model and then in the order in which they were added."""
        return [
            each for _, model in sorted(self.models.items()) for each in model.versions.values()
        ]

    def changed(self, name: str, entry: ModelEntry, change: Change) -> "Manifest":
        """Return the manifest with `entry` in the place of model `name`, and `change` noted."""
        return replace(
            self,
            sequence=self.sequence + 1,
            models={**self.models, name: entry},
            changes=(*self.changes, change)[-CHANGES_KEPT:],
        )


def describe_version(
    card: ModelCard, content_hash: str, files: dict[str, FileEntry], parent: str, now_ns: int
) -> VersionEntry:
    """Return the entry of a candidate; raises RegistryError if its name is not usable as a folder."""
    named = MODEL_PATTERN.fullmatch(card.name) and VERSION_PATTERN.fullmatch(card.version)
    if not named or content_hash[:8] not in card.version:
        msg = (
            f"artefact must be named in lower case and its version hold {content_hash[:8]!r}, the "
            f"start of the hash of its model; found {card.name!r} {card.version!r}; export it again"
        )
        raise RegistryError(msg)
    return VersionEntry(
        model=card.name,
        version=card.version,
        content_hash=content_hash,
        files=files,
        status=Status.CANDIDATE,
        status_since_ns=now_ns,
        reason="added",
        added_at_ns=now_ns,
        parent=parent,
        family=card.family,
        timeframe=card.timeframe,
        horizon_bars=card.horizon_bars,
        feature_schema=card.feature_schema,
        feature_schema_hash=card.feature_schema_hash,
        data=dict(card.training.get("data", {})),
        gate=card.gate,
        beats_prior=card.beats_prior,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes that are signed."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(content: bytes) -> Manifest:
    """Return the manifest in verified bytes; raises RegistryError if this release cannot read it."""
    try:
        manifest: Manifest = decoder(Manifest).decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"registry must have a readable manifest; {error}; restore it or use a newer release"
        raise RegistryError(msg) from error
    if manifest.format != FORMAT:
        msg = f"registry must have format {FORMAT}; found {manifest.format!r}; use a newer release"
        raise RegistryError(msg)
    return manifest


def with_status(
    entry: ModelEntry, version: str, status: Status, now_ns: int, reason: str
) -> ModelEntry:
    """Return `entry` with the status of one version changed; an unknown version changes nothing."""
    if version not in entry.versions:
        return entry
    changed = replace(entry.versions[version], status=status, status_since_ns=now_ns, reason=reason)
    return replace(entry, versions={**entry.versions, version: changed})
