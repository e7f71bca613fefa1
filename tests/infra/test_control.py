import base64
import stat

import msgspec
import pytest

from infra.control import (
    CommandRefusedError,
    load_or_create_key,
    public_text,
    sign_command,
    verify_command,
)
from schemas.operations import Command


@pytest.fixture
def key(tmp_path):
    return load_or_create_key(tmp_path)


@pytest.fixture
def command(key):
    return sign_command(
        key,
        environment="paper",
        account="PAPER-1",
        command=Command.HALT,
        reason="test",
        issued_at_ns=1_700_000_000,
    )


def test_a_signed_command_is_accepted(key, command):
    verify_command(command, "paper", {"local": public_text(key)})


@pytest.mark.parametrize(
    "change",
    [
        {"command": Command.RESUME},
        {"account": "OTHER"},
        {"reason": "another"},
        {"issued_at_ns": 1},
        {"signature": ""},
        {"signature": "AAAA"},
        {"signature": "not base64!"},
        {"id": "0"},
        {"model": "lightgbm"},
        {"version": "2"},
        {"signer": "other"},
    ],
)
def test_a_changed_command_is_refused(key, command, change):
    forged = msgspec.structs.replace(command, **change)
    keys = dict.fromkeys(("local", "other"), public_text(key))
    with pytest.raises(CommandRefusedError):
        verify_command(forged, "paper", keys)


@pytest.mark.parametrize("environment", ["live", "paper2", "", "Paper"])
def test_a_command_of_one_environment_is_refused_in_another(key, command, environment):
    with pytest.raises(CommandRefusedError, match="does not fit"):
        verify_command(command, environment, {"local": public_text(key)})


def test_a_field_that_the_contract_gains_later_leaves_signatures_good(key, command):
    bare = {name: getattr(command, name) for name in ("id", "account", "command", "reason")}
    bare |= {"issued_at_ns": command.issued_at_ns, "signer": command.signer, "environment": "paper"}
    signed = b"quantstream command 1\n" + msgspec.json.encode(bare, order="sorted")
    key.public_key().verify(base64.b64decode(command.signature), signed)


def test_a_command_of_a_stranger_is_refused(command, tmp_path):
    stranger = load_or_create_key(tmp_path / "stranger")
    with pytest.raises(CommandRefusedError):
        verify_command(command, "paper", {"local": public_text(stranger)})
    with pytest.raises(CommandRefusedError, match="known signer"):
        verify_command(command, "paper", {})


def test_the_key_is_kept_and_only_its_owner_reads_it(tmp_path):
    first = public_text(load_or_create_key(tmp_path))
    assert public_text(load_or_create_key(tmp_path)) == first
    mode = (tmp_path / "keys" / "control.pem").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
