"""Ed25519 signatures of a registry's manifest, and the keys that make them.

The file of signatures holds those of the manifest before and of the manifest after a change, each by
the manifest's SHA-256. It is replaced first, the manifest second: whatever a crash leaves, the
manifest that is there has its signature.
"""

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from infra.private_folder import create_private
from schemas.checked import decoder

LOCAL_SIGNER = "local"
KEY_NAME = "registry.pem"
_CONTEXT = b"quantstream model registry\x00"
"""Signed with the manifest, so a signature made for anything else never fits."""


class SignatureRefusedError(ValueError):
    """A manifest is unsigned, altered, or signed by nobody we know; nothing of it is loaded."""


class Signature(Struct, frozen=True, kw_only=True):
    """Who signed a manifest."""

    signer: str
    manifest_sha256: str
    signature: str
    """Ed25519 over the context and the manifest's bytes, base64."""


class Signer(Struct, frozen=True, kw_only=True):
    """A key with the name under which readers know its public half."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public_text(self) -> str:
        """Return the base64 public key, as `registry.public_keys` wants it."""
        raw = self.key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return base64.b64encode(raw).decode()

    def sign(self, manifest: bytes) -> Signature:
        """Return the signature of `manifest`."""
        return Signature(
            signer=self.name,
            manifest_sha256=sha256(manifest).hexdigest(),
            signature=base64.b64encode(self.key.sign(_CONTEXT + manifest)).decode(),
        )


def load_signer(path: Path, name: str = LOCAL_SIGNER) -> Signer:
    """Return the signer whose private key `path` holds (PEM, PKCS 8, not encrypted).

    Raises:
        ValueError: The file holds no Ed25519 key.
        OSError: The file cannot be read.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        msg = f"key file {path.name!r} must hold an unencrypted PEM key; {error}; make a new one"
        raise ValueError(msg) from error
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"key file {path.name!r} must hold an Ed25519 key; found {type(key).__name__!r}"
        raise TypeError(msg)
    return Signer(name=name, key=key)


def load_or_create_signer(state_dir: Path) -> Signer:
    """Return the local operator's signer; its key is created with mode 0600 at first use."""
    path = state_dir / "keys" / KEY_NAME
    if not path.exists():
        create_key(path)
    return load_signer(path)


def create_key(path: Path) -> None:
    """Write a new private key that only its owner can read; an existing file is kept."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    create_private(path, pem)


def trusted_keys(public_keys: Mapping[str, str], state_dir: Path) -> dict[str, str]:
    """Return `public_keys` and, if the state folder has a key, the local one beside them."""
    path = state_dir / "keys" / KEY_NAME
    local = {LOCAL_SIGNER: load_signer(path).public_text} if path.exists() else {}
    return dict(public_keys) | local


def encode_signatures(signatures: list[Signature]) -> bytes:
    """Return the content of the file of signatures."""
    return msgspec.json.format(msgspec.json.encode(signatures), indent=1) + b"\n"


def decode_signatures(content: bytes) -> list[Signature]:
    """Return the signatures in `content`; raises SignatureRefusedError if it is no such file."""
    try:
        signatures: list[Signature] = decoder(list[Signature]).decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"file of signatures must be a list of them; {error}; sign the registry again"
        raise SignatureRefusedError(msg) from error
    return signatures


def verify(manifest: bytes, signatures: list[Signature], public_keys: Mapping[str, str]) -> str:
    """Return the name of the known signer of exactly these bytes.

    Raises:
        SignatureRefusedError: There is no signature of these bytes, or by nobody known, or it does
            not fit.
    """
    digest = sha256(manifest).hexdigest()
    ours = [each for each in signatures if each.manifest_sha256 == digest]
    if not ours:
        msg = (
            f"manifest {digest[:12]!r} must be signed; found {len(signatures)} signatures of other "
            "bytes; restore the registry or sign it with quantstream models sign"
        )
        raise SignatureRefusedError(msg)
    for each in ours:
        text = public_keys.get(each.signer)
        if text is not None and _fits(manifest, each, text):
            return each.signer
    signers = sorted({each.signer for each in ours})
    msg = (
        f"manifest {digest[:12]!r} must be signed by one of {sorted(public_keys)!r}; found "
        f"{signers!r} without a fitting signature; put the signer's key into registry.public_keys"
    )
    raise SignatureRefusedError(msg)


def _fits(manifest: bytes, found: Signature, public_text: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_text, validate=True))
        key.verify(base64.b64decode(found.signature, validate=True), _CONTEXT + manifest)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True
