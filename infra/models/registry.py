"""The registry of models: which versions there are, which of them serve, and how that changes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from infra.models.manifest import (
    Change,
    FileEntry,
    GateRefusedError,
    Manifest,
    ModelEntry,
    RegistryError,
    Status,
    VersionEntry,
    describe_version,
    with_status,
)
from infra.models.signing import SignatureRefusedError, Signer
from infra.models.store import Fault, SignedStore, missing
from infra.onnx_session import MODEL_NAME, OnnxSession, read_contents

VERSIONS_KEPT = 10


class Stamp(Struct, frozen=True, kw_only=True):
    """Who changes a registry, when and why."""

    signer: Signer
    now_ns: int
    """Wall clock of the operator."""
    reason: str


class Registry:
    """One registry, changed by one process at a time under the rule of known keys.

    Every change verifies the manifest first and is refused (`SignatureRefusedError`) if the signer's
    key is not among `public_keys`: its own readers would refuse what it wrote. An `OSError` (disk
    full, read-only) leaves the registry as it was.
    """

    def __init__(
        self, root: Path, public_keys: Mapping[str, str], versions_kept: int = VERSIONS_KEPT
    ) -> None:
        """Use the folder `root`; nothing is touched yet."""
        self.store = SignedStore(root, public_keys)
        self._versions_kept = versions_kept

    def read(self) -> Manifest:
        """Return the verified manifest.

        Raises RegistryMissingError, SignatureRefusedError, RegistryError as `SignedStore` says.
        """
        return self.store.read()

    def verify(self) -> list[Fault]:
        """Return every fault of every artefact; raises as `read` does if the manifest is refused."""
        return self.store.find_faults(self.store.read())

    def create(self, signer: Signer) -> None:
        """Make an empty registry; raises RegistryError if there is one."""
        self._require_known(signer)
        self.store.root.mkdir(parents=True, exist_ok=True)
        with self.store.locked():
            if self.store.exists():
                msg = f"registry {self.store.root.name!r} must not exist yet; found one; use it"
                raise RegistryError(msg)
            self.store.write(Manifest(), signer)

    def add(self, folder: Path, stamp: Stamp) -> VersionEntry:
        """Take the artefact in `folder` as a candidate and return its entry.

        The first version of a model that passed its gate becomes active at once (bootstrap). The
        very same model, added again, changes nothing. Old versions beyond the number to keep go.

        Raises:
            ModelRefusedError: The artefact is not what its card says.
            RegistryError: Its name cannot be a folder's, or names a version of other bytes.
        """
        contents = read_contents(folder)
        session = OnnxSession(contents)
        files = {
            name: FileEntry(sha256=sha256(content).hexdigest(), size_bytes=len(content))
            for name, content in contents.items()
        }
        name = session.card.name
        with self._changing(stamp) as draft:
            before = draft.manifest.models.get(name, ModelEntry())
            entry = describe_version(
                session.card, session.content_hash, files, before.active, stamp.now_ns
            )
            if (known := before.versions.get(entry.version)) is not None:
                return _same_model(known, entry)
            self.store.remove_unlisted(draft.manifest)
            self.store.place(name, entry.version, contents)
            added = replace(before, versions={**before.versions, entry.version: entry})
            first = not before.active and not before.earlier and entry.gate_passed
            if first:
                added = replace(added, active=entry.version)
                added = with_status(added, entry.version, Status.ACTIVE, stamp.now_ns, stamp.reason)
            draft.store(name, added, entry.version, "bootstrap" if first else "add")
            self._prune(draft, self._versions_kept)
            return added.versions[entry.version]

    def activate(
        self, model: str, version: str, stamp: Stamp, *, despite_gate: bool = False
    ) -> Change:
        """Let `version` serve.

        Raises:
            GateRefusedError: Its card does not say that the gate was passed, and `despite_gate` is
                not set.
            RegistryError: It is unknown, or it serves already.
            ModelRefusedError: Its bytes are not what was added.
        """
        with self._changing(stamp) as draft:
            entry = draft.manifest.version(model, version)
            if not (entry.gate_passed or despite_gate):
                msg = (
                    f"version {version} of model {model!r} must have passed its gate; found "
                    f"{entry.gate or 'no gate on its card'!r}; train another one, or give "
                    "--despite-gate and say why"
                )
                raise GateRefusedError(msg)
            before = draft.manifest.model(model)
            earlier = tuple(each for each in before.earlier if each != version)
            if before.active:
                earlier = (*earlier, before.active)
            return self._serve(draft, entry, earlier, "activate", despite_gate=despite_gate)

    def rollback(self, model: str, stamp: Stamp, version: str = "") -> Change:
        """Let the version before serve again, or `version` if it served before.

        What was rolled back from is not what the next rollback returns to.

        Raises:
            RegistryError: There is no such version.
            ModelRefusedError: Its bytes are not what was added.
        """
        with self._changing(stamp) as draft:
            before = draft.manifest.model(model)
            target = version or before.previous
            if not target or target not in before.earlier:
                msg = (
                    f"version to return to must be one of {list(before.earlier)!r} that served "
                    f"before; found {target!r}; activate a version instead"
                )
                raise RegistryError(msg)
            entry = draft.manifest.version(model, target)
            earlier = before.earlier[: before.earlier.index(target)]
            return self._serve(draft, entry, earlier, "rollback")

    def retire(self, model: str, version: str, stamp: Stamp) -> Change:
        """Give a version up; if it serves, no version of `model` serves any more.

        Raises RegistryError if it is unknown or retired already.
        """
        with self._changing(stamp) as draft:
            before = draft.manifest.model(model)
            if draft.manifest.version(model, version).status is Status.RETIRED:
                msg = (
                    f"version {version} of model {model!r} must not be retired yet; found it "
                    "retired; nothing is to do"
                )
                raise RegistryError(msg)
            after = with_status(before, version, Status.RETIRED, stamp.now_ns, stamp.reason)
            if version == before.active:
                after = replace(after, active="", earlier=(*before.earlier, version))
            return draft.store(model, after, version, "retire")

    def shadow(self, model: str, version: str, stamp: Stamp) -> Change:
        """Put a version on trial: it stays, and casts no vote; raises RegistryError if it serves."""
        with self._changing(stamp) as draft:
            before = draft.manifest.model(model)
            draft.manifest.version(model, version)
            if version == before.active:
                msg = (
                    f"version {version} of model {model!r} must not serve; found it active; "
                    "activate another one first"
                )
                raise RegistryError(msg)
            after = with_status(before, version, Status.SHADOW, stamp.now_ns, stamp.reason)
            return draft.store(model, after, version, "shadow")

    def prune(self, stamp: Stamp, versions_kept: int) -> list[tuple[str, str]]:
        """Remove the oldest versions beyond `versions_kept` per model; return what was removed.

        What serves, what served before it and what is in the shadow stays.
        """
        with self._changing(stamp) as draft:
            return self._prune(draft, versions_kept)

    def sign(self, signer: Signer, *, unverified: bool = False) -> None:
        """Let `signer` alone vouch for the manifest as it is.

        Args:
            signer: whose key it is; readers must know it.
            unverified: also if nobody known signed it; the operator has looked at it himself.

        Raises:
            SignatureRefusedError: Nobody known signed it, and `unverified` is not set.
            RegistryError: A file is not as the manifest says; nobody may vouch for that.
        """
        with self.store.locked():
            manifest = self.store.read_unverified() if unverified else self.store.read()
            if faults := self.store.find_faults(manifest):
                first = faults[0]
                msg = (
                    f"registry must hold what its manifest names; found {first.model!r} "
                    f"{first.version} {first.file!r} {first.problem}; it was not signed"
                )
                raise RegistryError(msg)
            self.store.write_signature(signer)

    def copy_to(self, root: Path, signer: Signer) -> "Registry":
        """Make a copy of this registry in `root`, signed by `signer`, unless there is one; return it.

        Raises RegistryError, SignatureRefusedError, ModelRefusedError, OSError.
        """
        manifest = self.read()
        keys = self.store.public_keys | {signer.name: signer.public_text}
        copy = Registry(root, keys, self._versions_kept)
        root.mkdir(parents=True, exist_ok=True)
        with copy.store.locked():
            if copy.store.exists():
                return copy
            copy.store.remove_unlisted(Manifest())
            for entry in manifest.entries():
                copy.store.place(entry.model, entry.version, self.store.read_version(entry))
            copy.store.write(manifest, signer)
        return copy

    def _serve(
        self,
        draft: "_Draft",
        entry: VersionEntry,
        earlier: tuple[str, ...],
        action: str,
        *,
        despite_gate: bool = False,
    ) -> Change:
        before, stamp = draft.manifest.model(entry.model), draft.stamp
        if before.active == entry.version:
            msg = (
                f"version {entry.version} of model {entry.model!r} must not serve yet; "
                "found it active; nothing is to do"
            )
            raise RegistryError(msg)
        OnnxSession(self.store.read_version(entry))
        after = with_status(before, before.active, Status.RETIRED, stamp.now_ns, stamp.reason)
        after = with_status(after, entry.version, Status.ACTIVE, stamp.now_ns, stamp.reason)
        after = replace(after, active=entry.version, earlier=earlier)
        return draft.store(entry.model, after, entry.version, action, despite_gate=despite_gate)

    def _prune(self, draft: "_Draft", versions_kept: int) -> list[tuple[str, str]]:
        removed = []
        for name, before in draft.manifest.models.items():
            loose = [version for version in before.versions if version not in before.pinned]
            gone = loose[: max(len(before.versions) - max(versions_kept, 1), 0)]
            if gone:
                kept = {key: each for key, each in before.versions.items() if key not in gone}
                earlier = tuple(each for each in before.earlier if each not in gone)
                after = replace(before, versions=kept, earlier=earlier)
                draft.store(name, after, ", ".join(gone), "prune")
                removed += [(name, version) for version in gone]
        # The manifest goes first: a crash leaves folders that nobody lists, never the reverse.
        self.store.remove_unlisted(draft.manifest)
        return removed

    @contextmanager
    def _changing(self, stamp: Stamp) -> Iterator["_Draft"]:
        self._require_known(stamp.signer)
        if not self.store.root.is_dir():
            raise missing(self.store.root)
        with self.store.locked():
            yield _Draft(self.store, self.store.read(), stamp)

    def _require_known(self, signer: Signer) -> None:
        if signer.public_text not in self.store.public_keys.values():
            msg = (
                f"registry must be signed by one of {sorted(self.store.public_keys)!r}; found "
                f"{signer.name!r} with another key; put its public key into registry.public_keys"
            )
            raise SignatureRefusedError(msg)


class _Draft:
    """A registry while it is being changed, under its lock."""

    def __init__(self, store: SignedStore, manifest: Manifest, stamp: Stamp) -> None:
        self.manifest, self.stamp = manifest, stamp
        self._store = store

    def store(
        self,
        model: str,
        entry: ModelEntry,
        version: str,
        action: str,
        *,
        despite_gate: bool = False,
    ) -> Change:
        """Write the manifest with `entry` in the place of `model`, and return the noted change."""
        before = self.manifest.models.get(model, ModelEntry())
        change = Change(
            at_ns=self.stamp.now_ns,
            action=action,
            model=model,
            version=version,
            previous_version=before.active,
            signer=self.stamp.signer.name,
            reason=self.stamp.reason,
            despite_gate=despite_gate,
        )
        self.manifest = self.manifest.changed(model, entry, change)
        self._store.write(self.manifest, self.stamp.signer)
        return change


def _same_model(known: VersionEntry, found: VersionEntry) -> VersionEntry:
    if known.content_hash != found.content_hash:
        msg = (
            f"version {known.version} of model {known.model!r} must keep its bytes; found another "
            f"{MODEL_NAME}; give it another version"
        )
        raise RegistryError(msg)
    return known
