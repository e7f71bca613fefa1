"""Sign and verify operator commands (Ed25519); an unsigned or altered command never takes effect.

A signature is good for one environment and one account, both of which it covers: a command that was
recorded in one cannot be played in another. Played again in its own it has the same id, and an account
acts on an id once.
"""

import base64
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.private_folder import create_private
from schemas.ids import derive_id
from schemas.operations import Command, ControlCommanded

LOCAL_SIGNER = "local"
_SIGNED_FOR = b"quantstream command 1\n"
"""What is signed says what it is: the key's signature under anything else proves no command."""


class CommandRefusedError(ValueError):
    """A command is unsigned, altered, or signed by nobody we know; it is dead-lettered."""


def load_or_create_key(state_dir: Path) -> Ed25519PrivateKey:
    """Return the local operator's key, created with mode 0600 at first use."""
    path = state_dir / "keys" / "control.pem"
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        create_private(path, pem)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"control key must be Ed25519; found {type(key).__name__}; remove the file to make a new one"
        raise TypeError(msg)
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the base64 public key, as `control.public_keys` wants it."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def sign_command(
    key: Ed25519PrivateKey,
    *,
    environment: str,
    account: str,
    command: Command,
    reason: str,
    issued_at_ns: int,
    signer: str = LOCAL_SIGNER,
    model: str = "",
    version: str = "",
) -> ControlCommanded:
    """Return a command signed for `account` of `environment`.

    `model` and `version` say what `activate` and `rollback` are about.
    """
    unsigned = ControlCommanded(
        id=derive_id("ops.control", account, issued_at_ns, 0, f"{signer}/{command}"),
        account=account,
        command=command,
        reason=reason,
        issued_at_ns=issued_at_ns,
        signer=signer,
        signature="",
        model=model,
        version=version,
    )
    signature = base64.b64encode(key.sign(_signed_bytes(unsigned, environment))).decode()
    return msgspec.structs.replace(unsigned, signature=signature)


def verify_command(
    command: ControlCommanded, environment: str, public_keys: dict[str, str]
) -> None:
    """Check that a known signer signed `command` for `environment`.

    Raises:
        CommandRefusedError: The signer is unknown or the signature does not fit: the command was
            altered, or signed for another environment.
    """
    text = public_keys.get(command.signer)
    if text is None:
        msg = f"command {command.id!r} must be signed by a known signer; found {command.signer!r}"
        raise CommandRefusedError(msg)
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text))
        key.verify(base64.b64decode(command.signature), _signed_bytes(command, environment))
    except (InvalidSignature, ValueError) as error:
        msg = (
            f"command {command.id!r} must carry the signature of {command.signer!r} for environment "
            f"{environment!r}; it does not fit"
        )
        raise CommandRefusedError(msg) from error


def _signed_bytes(command: ControlCommanded, environment: str) -> bytes:
    fields: dict[str, object] = msgspec.to_builtins(command)
    # Empty fields are left out, so that a contract which gains one keeps old signatures good.
    said = {name: value for name, value in fields.items() if value != "" and name != "signature"}
    return _SIGNED_FOR + msgspec.json.encode(said | {"environment": environment}, order="sorted")
