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
        key, account="PAPER-1", command=Command.HALT, reason="test", issued_at_ns=1_700_000_000
    )


def test_a_signed_command_is_accepted(key, command):
    verify_command(command, {"local": public_text(key)})


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
    ],
)
def test_a_changed_command_is_refused(key, command, change):
    forged = msgspec.structs.replace(command, **change)
    with pytest.raises(CommandRefusedError):
        verify_command(forged, {"local": public_text(key)})


def test_a_command_of_a_stranger_is_refused(command, tmp_path):
    stranger = load_or_create_key(tmp_path / "stranger")
    with pytest.raises(CommandRefusedError):
        verify_command(command, {"local": public_text(stranger)})
    with pytest.raises(CommandRefusedError, match="known signer"):
        verify_command(command, {})


def test_the_key_is_kept_and_only_its_owner_reads_it(tmp_path):
    first = public_text(load_or_create_key(tmp_path))
    assert public_text(load_or_create_key(tmp_path)) == first
    mode = (tmp_path / "keys" / "control.pem").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
