"""One holder at a time, refused at once, and an epoch that never comes twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.lease import LeaseBrokenError, LeaseHeldError, RunLease

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from infra.lease import RunLease
print(RunLease(Path(sys.argv[1])).acquire(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "PAPER-1.lease"


@pytest.fixture
def hold(path):
    """Start a process that holds the lease; return it and its epoch."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_each_run_gets_a_greater_epoch(path):
    epochs = []
    for _ in range(3):
        lease = RunLease(path)
        epochs.append(lease.acquire())
        lease.release()
    assert epochs == [1, 2, 3]


def test_a_second_run_is_refused_at_once_and_told_by_whom(path, hold):
    process, epoch = hold()
    started = time.monotonic()
    with pytest.raises(
        LeaseHeldError, match=rf"found process {process.pid} since \d{{4}}-.*Z with epoch {epoch};"
    ):
        RunLease(path).acquire()
    assert time.monotonic() - started < 1


def test_a_refused_run_uses_up_no_epoch(path, hold):
    process, epoch = hold()
    with pytest.raises(LeaseHeldError):
        RunLease(path).acquire()
    process.kill()
    process.wait()
    assert RunLease(path).acquire() == epoch + 1


def test_a_killed_holder_frees_the_lease(path, hold):
    for expected in (1, 2, 3):
        process, epoch = hold()
        assert epoch == expected
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_paused_holder_keeps_the_lease(path, hold):
    process, _ = hold()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LeaseHeldError):
        RunLease(path).acquire()


def test_a_child_process_does_not_keep_the_lease(path):
    lease = RunLease(path)
    lease.acquire()
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        lease.release()
        assert RunLease(path).acquire() == 2
    finally:
        child.kill()
        child.wait()


def test_a_lease_is_refused_to_its_own_process_too(path):
    first = RunLease(path)
    with first:
        with pytest.raises(LeaseHeldError, match=f"process {os.getpid()}"):
            RunLease(path).acquire()
        with pytest.raises(LeaseHeldError, match="acquired once"):
            first.acquire()
    assert RunLease(path).acquire() == 2


def test_leases_of_two_accounts_are_apart(tmp_path):
    assert RunLease(tmp_path / "A.lease").acquire() == 1
    assert RunLease(tmp_path / "B.lease").acquire() == 1


@pytest.mark.parametrize("text", ["", "12x", "-4", "½"])
def test_an_unreadable_epoch_is_never_reused(path, text):
    with RunLease(path):
        pass
    path.with_name("PAPER-1.lease.epoch").write_text(text)
    with pytest.raises(LeaseBrokenError, match="must hold one whole number"):
        RunLease(path).acquire()
    path.with_name("PAPER-1.lease.epoch").write_text("41\n")
    assert RunLease(path).acquire() == 42
