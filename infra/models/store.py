"""One registry on disk: the signed manifest, the artefacts that it names, and the lock for changes.

    <root>/registry.json                      every version, its files' SHA-256, its status
    <root>/registry.sig                       Ed25519 signatures of the manifest
    <root>/objects/<model>/<version>/         one artefact, never changed after it was added

One process changes a registry at a time (a lock on the folder itself); readers need no lock. A change
is there whole or not at all, whenever the process dies or the disk is full.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from infra.models.manifest import (
    Manifest,
    RegistryError,
    VersionEntry,
    decode_manifest,
    encode_manifest,
)
from infra.models.signing import (
    Signature,
    SignatureRefusedError,
    Signer,
    decode_signatures,
    encode_signatures,
    verify,
)
from infra.onnx_session import ModelRefusedError, read_contents
from infra.whole_files import place_folder, replace_file, sync_folder

MANIFEST_NAME = "registry.json"
SIGNATURES_NAME = "registry.sig"
OBJECTS = "objects"
_STAGING = ".staging"


class RegistryMissingError(RegistryError):
    """There is no registry in the folder."""


class Fault(Struct, frozen=True, kw_only=True):
    """Something in a registry that is not as its manifest says."""

    model: str
    version: str
    file: str
    """Empty for the artefact as a whole."""
    problem: str


class SignedStore:
    """The files of a registry, read and written under the rule of known keys."""

    def __init__(self, root: Path, public_keys: Mapping[str, str]) -> None:
        """Use the folder `root`; nothing is touched yet."""
        self.root = root
        self.public_keys = dict(public_keys)

    def folder(self, model: str, version: str) -> Path:
        """Return the folder of a version."""
        return self.root / OBJECTS / model / version

    def read(self) -> Manifest:
        """Return the verified manifest; raises as `read_signed` does."""
        return self.read_signed()[0]

    def read_signed(self) -> tuple[Manifest, str]:
        """Return the verified manifest and the name of its signer.

        Raises:
            RegistryMissingError: There is none.
            SignatureRefusedError: It is not signed by a known key.
            RegistryError: This release cannot read it.
        """
        seen = b""
        while True:
            content = self._read_manifest()
            try:
                signer = verify(content, self._read_signatures(), self.public_keys)
            except SignatureRefusedError:
                # A writer may have put down a newer pair between our two reads: then the manifest
                # has changed, and the next pair decides. An unchanged one is refused.
                if content == seen:
                    raise
                seen = content
                continue
            return decode_manifest(content), signer

    def read_unverified(self) -> Manifest:
        """Return the manifest without asking who signed it, for whoever is about to vouch for it."""
        return decode_manifest(self._read_manifest())

    def read_version(self, entry: VersionEntry) -> dict[str, bytes]:
        """Return the bytes of every file of a version, each with the hash of the manifest.

        Raises ModelRefusedError if a file is missing, added or differs.
        """
        contents = read_contents(self.folder(entry.model, entry.version))
        if faults := compare(entry, contents):
            first = faults[0]
            msg = (
                f"model {entry.model!r} {entry.version}; every file must be as the manifest says; "
                f"found {first.file!r} {first.problem}; restore the artefact or roll back"
            )
            raise ModelRefusedError(msg)
        return contents

    def find_faults(self, manifest: Manifest) -> list[Fault]:
        """Return everything that is not as `manifest` says, folders that it does not list included."""
        faults: list[Fault] = []
        for entry in manifest.entries():
            try:
                contents = read_contents(self.folder(entry.model, entry.version))
            except ModelRefusedError as error:
                faults.append(_fault(entry, "", str(error)))
            else:
                faults += compare(entry, contents)
        known = self._folders_of(manifest)
        faults += [
            Fault(model=each.parent.name, version=each.name, file="", problem="is not listed")
            for each in self._folders()
            if each not in known
        ]
        return faults

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the folder; it dies with the process."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def exists(self) -> bool:
        """Return whether the folder holds a manifest."""
        return (self.root / MANIFEST_NAME).is_file()

    def place(self, model: str, version: str, contents: Mapping[str, bytes]) -> None:
        """Make the folder of a version at once; the caller holds the lock. Raises OSError."""
        place_folder(self.folder(model, version), contents, self.root / OBJECTS / _STAGING)

    def write(self, manifest: Manifest, signer: Signer) -> None:
        """Put `manifest` in the place of the one that is there; the caller holds the lock.

        Raises OSError and leaves the old one if the disk is full.
        """
        content = encode_manifest(manifest)
        kept: list[Signature] = []
        if self.exists():
            known = sha256(self._read_manifest()).hexdigest()
            kept = [each for each in self._read_signatures() if each.manifest_sha256 == known]
        # Both signatures are there before the manifest changes: it is signed at every moment.
        signatures = [*kept, signer.sign(content)]
        replace_file(self.root / SIGNATURES_NAME, encode_signatures(signatures))
        replace_file(self.root / MANIFEST_NAME, content)

    def write_signature(self, signer: Signer) -> None:
        """Let `signer` alone vouch for the manifest as it is; the caller holds the lock."""
        signatures = [signer.sign(self._read_manifest())]
        replace_file(self.root / SIGNATURES_NAME, encode_signatures(signatures))

    def remove_unlisted(self, manifest: Manifest) -> None:
        """Remove the folders that `manifest` does not list; the caller holds the lock."""
        known = self._folders_of(manifest)
        shutil.rmtree(self.root / OBJECTS / _STAGING, ignore_errors=True)
        for folder in self._folders():
            if folder not in known:
                shutil.rmtree(folder)
                sync_folder(folder.parent)

    def _folders_of(self, manifest: Manifest) -> set[Path]:
        return {self.folder(entry.model, entry.version) for entry in manifest.entries()}

    def _folders(self) -> list[Path]:
        found = (self.root / OBJECTS).glob("[!.]*/*")
        return sorted(each for each in found if each.is_dir())

    def _read_manifest(self) -> bytes:
        try:
            return (self.root / MANIFEST_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise missing(self.root) from error

    def _read_signatures(self) -> list[Signature]:
        try:
            return decode_signatures((self.root / SIGNATURES_NAME).read_bytes())
        except FileNotFoundError:
            return []


def missing(root: Path) -> RegistryMissingError:
    """Return the error for a folder without a registry."""
    return RegistryMissingError(
        f"registry must hold {MANIFEST_NAME}; found none in {root.name!r}; "
        "add a model to make one, or correct registry.root"
    )


def compare(entry: VersionEntry, contents: Mapping[str, bytes]) -> list[Fault]:
    """Return every file of `contents` that is missing, added or differs from the manifest's hash."""
    faults = [_fault(entry, name, "is not listed") for name in contents if name not in entry.files]
    for name, expected in entry.files.items():
        if name not in contents:
            faults.append(_fault(entry, name, "is missing"))
        elif (found := sha256(contents[name]).hexdigest()) != expected.sha256:
            problem = f"hashes to {found[:12]}, not {expected.sha256[:12]}"
            faults.append(_fault(entry, name, problem))
    return faults


def _fault(entry: VersionEntry, file: str, problem: str) -> Fault:
    return Fault(model=entry.model, version=entry.version, file=file, problem=problem)
