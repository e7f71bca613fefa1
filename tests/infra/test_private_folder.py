"""State lies in folders that only its owner may open, from the first missing one down."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from infra.control import load_or_create_key
from infra.lease import RunLease, holder_identity
from infra.private_folder import create_private, make_private
from infra.settings import Settings, write_settings
from infra.stack.supervise import Supervisor


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_every_missing_folder_is_for_its_owner_alone(tmp_path):
    found = make_private(tmp_path / "one" / "two" / "three")
    assert found.is_dir()
    assert {mode_of(found), mode_of(found.parent), mode_of(found.parent.parent)} == {0o700}


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    make_private(shared / "own")
    assert (mode_of(shared), mode_of(shared / "own")) == (0o755, 0o700)
    make_private(shared)
    assert mode_of(shared) == 0o755


@pytest.mark.parametrize(
    "first_use",
    [
        lambda state: RunLease(state / "recovery" / "paper" / "lease").acquire(),
        lambda state: holder_identity(state / "leases"),
        load_or_create_key,
        lambda state: write_settings(Settings(), state / "effective.toml"),
        lambda state: Supervisor(state).start([], environment=os.environ, foreground=True),
    ],
    ids=["lease", "identity", "key", "settings", "supervisor"],
)
def test_whoever_comes_first_the_state_folder_is_private(tmp_path, first_use):
    state = tmp_path / "above" / "state"
    first_use(state)
    Supervisor(state).stop()
    folders = [path for path in (tmp_path / "above").rglob("*") if path.is_dir()]
    assert {mode_of(path) for path in [tmp_path / "above", *folders]} == {0o700}


def test_of_many_who_create_a_file_at_once_one_wins_and_all_read_its_content(tmp_path):
    path, together = tmp_path / "keys" / "one.pem", Barrier(8)

    def create(number):
        together.wait()
        create_private(path, bytes([number]) * 10_000)
        return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(create, range(8)))
    assert len(found) == 1
    assert mode_of(path) == 0o600
    assert list(path.parent.iterdir()) == [path]
