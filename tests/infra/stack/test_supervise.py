import itertools
import os
import signal
import tempfile
import time

import psutil
import pytest

from infra.stack.supervise import ManagedProcess, NotRunningError, Supervisor

SLEEPER = ("-c", "import time\nwhile True: time.sleep(1)")


def eventually(check, seconds=30):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def supervisor(tmp_path):
    found = Supervisor(tmp_path)
    yield found
    found.stop()


def test_a_killed_process_comes_back_alone(supervisor):
    supervisor.start(
        [ManagedProcess(name="sleeper", arguments=SLEEPER)],
        environment=os.environ,
        foreground=True,
    )
    eventually(lambda: supervisor.pid_of("sleeper") > 0)
    first = supervisor.pid_of("sleeper")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: supervisor.pid_of("sleeper") not in {0, first})

    [status] = supervisor.statuses()
    assert status.restarts == 1


def test_stop_leaves_no_process(supervisor):
    supervisor.start(
        [ManagedProcess(name="sleeper", arguments=SLEEPER)],
        environment=os.environ,
        foreground=True,
    )
    supervisor.add(ManagedProcess(name="second", arguments=SLEEPER))
    eventually(lambda: all(row.pid for row in supervisor.statuses()))
    pids = [row.pid for row in supervisor.statuses()]
    supervisor.stop()

    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    with pytest.raises(NotRunningError):
        supervisor.statuses()


def test_a_second_start_is_refused(supervisor):
    supervisor.start([], environment=os.environ, foreground=True)
    with pytest.raises(RuntimeError, match="already runs"):
        supervisor.start([], environment=os.environ, foreground=True)


def test_arguments_reach_the_process_as_they_are(supervisor, tmp_path):
    out = tmp_path / "said"
    text = 'a "b" 100% \\ c'
    program = f"import sys, pathlib, time; pathlib.Path({str(out)!r}).write_text(sys.argv[1]); time.sleep(60)"
    supervisor.start(
        [ManagedProcess(name="speaker", arguments=("-c", program, text))],
        environment=os.environ,
        foreground=True,
    )
    eventually(out.exists)
    eventually(lambda: out.read_text() == text)


def test_a_state_folder_with_a_per_cent_sign_is_refused(tmp_path):
    with pytest.raises(ValueError, match="per cent"):
        Supervisor(tmp_path / "a%b")


def test_a_process_that_dies_every_few_seconds_waits_longer_each_time(supervisor, tmp_path):
    seconds = 2.5
    starts = tmp_path / "starts"
    dying = (
        f"import time; print(time.time(), file=open({str(starts)!r}, 'a')); time.sleep({seconds})"
    )
    supervisor.start(
        [ManagedProcess(name="dying", arguments=("-c", dying))],
        environment=os.environ,
        foreground=True,
    )
    eventually(lambda: starts.exists() and len(starts.read_text().split()) == 4)
    times = [float(text) for text in starts.read_text().split()]
    pauses = [later - earlier - seconds for earlier, later in itertools.pairwise(times)]
    for number, pause in enumerate(pauses, 1):
        assert pause > number - 0.5, pauses


def test_the_supervisor_is_found_whatever_the_temporary_folder_is_by_now(
    supervisor, tmp_path, monkeypatch
):
    supervisor.start([], environment=os.environ, foreground=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert Supervisor(tmp_path).is_running()
    with pytest.raises(RuntimeError, match="already runs"):
        Supervisor(tmp_path).start([], environment=os.environ, foreground=True)
