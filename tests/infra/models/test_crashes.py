"""A change that a crash, a full disk or another writer cuts short leaves a registry that reads."""

import json
import subprocess
import sys

import pytest

from tests.infra.models.artefacts import write_artefact

CHANGE = """
import json, os, resource, signal, sys
from pathlib import Path
from infra.models.registry import Registry, Stamp
from infra.models.signing import load_signer
root, key, folder = map(Path, sys.argv[1:4])
signer = load_signer(key)
registry = Registry(root, {"local": signer.public_text}, versions_kept=2)

def add():
    registry.add(folder, Stamp(signer=signer, now_ns=99, reason="change"))

"""
ONCE = CHANGE + "add()"
FULL_DISK = """
resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
add()
"""
# A child per step that changes the folder: the first dies at the first step, and so on until one gets
# through. A fork each, as an interpreter each would take a second.
DIE_AT_EVERY_STEP = """
def dying(real, at):
    def call(*args, **keywords):
        global calls
        calls += 1
        if calls == at:
            os._exit(9)
        return real(*args, **keywords)
    return call

outcomes = []
for at in range(1, 300):
    pid = os.fork()
    if not pid:
        calls = 0
        for name in ("replace", "rename", "fsync", "open", "mkdir", "rmdir", "unlink", "link"):
            setattr(os, name, dying(getattr(os, name), at))
        add()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    problems = sorted({each.problem for each in registry.verify()})
    outcomes.append((code, registry.read().sequence, problems))
    if code == 0:
        break
print(json.dumps(outcomes))
"""


def run(world, folder, script):
    key = world.path / "keys" / "registry.pem"
    command = [sys.executable, "-c", script, world.root, key, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def full(world):
    """A registry in which the next version pushes out the oldest."""
    kept = [world.add() for _ in range(3)]
    return world, kept


def test_a_process_that_dies_at_any_step_leaves_the_old_or_the_new_registry(full, tmp_path):
    world, _ = full
    folder = world.artefact()
    old = world.registry.read().sequence
    done = run(world, folder, CHANGE + DIE_AT_EVERY_STEP)
    outcomes = json.loads(done.stdout)
    assert {code for code, _, _ in outcomes[:-1]} == {9}
    assert outcomes[-1][0] == 0
    assert len(outcomes) > 10
    for _, sequence, problems in outcomes:
        # One change adds the version, a second one drops the oldest.
        assert old <= sequence <= old + 2
        assert set(problems) <= {"is not listed"}
    world.registry.add(folder, world.stamp())
    world.registry.prune(world.stamp(), 10)
    assert world.registry.verify() == []


@pytest.mark.parametrize("size_bytes", [0, 100, 500, 1500, "manifest"])
def test_a_full_disk_leaves_everything_as_it_was(full, size_bytes):
    world, _ = full
    folder = world.artefact()
    if size_bytes == "manifest":
        # The artefact still fits, what is written behind it does not.
        size_bytes = (world.root / "registry.json").stat().st_size
        assert max(path.stat().st_size for path in folder.iterdir()) < size_bytes
    before = {path: path.read_bytes() for path in world.root.rglob("*") if path.is_file()}
    done = run(world, folder, CHANGE + FULL_DISK.format(size_bytes=size_bytes))
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert world.registry.read().sequence == 3
    after = {path: path.read_bytes() for path in world.root.rglob("*") if path.is_file()}
    # The new artefact may lie there unlisted; another signature beside ours may too.
    assert {path: after.get(path) for path in before if path.suffix != ".sig"} == {
        path: content for path, content in before.items() if path.suffix != ".sig"
    }
    assert not [path for path in after if path.name.startswith(".")]
    world.registry.prune(world.stamp(), 10)
    assert world.registry.verify() == []


def test_writers_take_turns_and_none_is_lost(world, tmp_path):
    folders = [write_artefact(tmp_path / f"made-{n}", name=f"model{n}", seed=n) for n in range(4)]
    key = world.path / "keys" / "registry.pem"
    running = [
        subprocess.Popen([sys.executable, "-c", ONCE, world.root, key, folder])
        for folder in folders
    ]
    # A reader never meets half a change, and needs no lock.
    while any(process.poll() is None for process in running):
        assert world.registry.read().sequence <= 4
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    manifest = world.registry.read()
    assert sorted(manifest.models) == [f"model{n}" for n in range(4)]
    assert world.registry.verify() == []
    assert json.loads((world.root / "registry.json").read_text())["sequence"] == 4
