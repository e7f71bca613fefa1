"""The lease that the log keeps: one holder per claim, wherever it runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.kafka.errors import TopicMissingError
from infra.kafka.lease import Claim, LogLease, Member
from infra.lease import LeaseHeldError, LeaseLostError, holder_identity

ROOT = Path(__file__).parents[3]
SECONDS = 6
HOLD = """
import sys, time
from infra.kafka.lease import Claim, LogLease
from schemas.settings import KafkaSettings
lease = LogLease(
    KafkaSettings(bootstrap=sys.argv[1]), sys.argv[2], sys.argv[3], [Claim(name="features")], 6
)
lease.acquire()
print("held", flush=True)
while True:
    time.sleep(0.05)
    try:
        lease.check()
    except Exception as error:
        print(error, flush=True)
        break
lease.release()
"""

pytestmark = [pytest.mark.stack]


@pytest.fixture
def lease(kafka, environment):
    """Return a lease of a host; all are released at the end."""
    made = []

    def build(identity, *claims, on_lost=lambda: None):
        wanted = claims or (Claim(name="account-PAPER-1"),)
        made.append(LogLease(kafka, environment, identity, wanted, SECONDS, on_lost))
        return made[-1]

    yield build
    for each in made:
        each.release()


@pytest.fixture
def hold(kafka, environment):
    """Start a process that holds the lease `features` as the host `identity`."""
    started = []

    def start(identity):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kafka.bootstrap, environment, identity],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def features(*partitions):
    return Claim(name="features", partitions=partitions)


def test_a_second_host_is_refused_and_told_by_whom_and_the_first_goes_on(lease):
    first = lease("host-a")
    first.acquire()
    started = time.monotonic()
    with pytest.raises(LeaseHeldError, match=rf"quantstream:host-a:{os.getpid()}:all"):
        lease("host-b").acquire()
    assert time.monotonic() - started > SECONDS
    first.check()


def test_a_released_lease_is_free_at_once_for_another_host(lease):
    first = lease("host-a")
    first.acquire()
    first.release()
    started = time.monotonic()
    lease("host-b").acquire()
    assert time.monotonic() - started < SECONDS


def test_a_restart_after_a_kill_does_not_wait_but_another_host_does(hold):
    dead = hold("host-a")
    assert dead.stdout.readline() == "held\n"
    dead.kill()
    dead.wait()
    started = time.monotonic()
    again = hold("host-a")
    assert again.stdout.readline() == "held\n"
    assert time.monotonic() - started < SECONDS
    again.kill()
    again.wait()
    started = time.monotonic()
    assert hold("host-b").stdout.readline() == "held\n"
    assert time.monotonic() - started > SECONDS / 2


def test_a_holder_that_stood_still_is_stopped_and_another_took_over(hold):
    paused = hold("host-a")
    assert paused.stdout.readline() == "held\n"
    paused.send_signal(signal.SIGSTOP)
    assert hold("host-b").stdout.readline() == "held\n"
    paused.send_signal(signal.SIGCONT)
    assert "must be kept while the run writes" in paused.stdout.readline()
    assert paused.wait(20) == 0


def test_a_writer_learns_of_a_pause_before_the_broker_is_asked(lease):
    held = lease("host-a")
    held.acquire()
    held._kept_at = time.monotonic() - SECONDS - 1
    with pytest.raises(LeaseLostError, match="stood still for 7 s"):
        held.check()
    with pytest.raises(LeaseLostError):
        held.check()


def test_a_holder_whose_place_was_taken_is_stopped(lease):
    lost = threading.Event()
    first = lease("host-a", on_lost=lost.set)
    first.acquire()
    lease("host-a").acquire()
    assert lost.wait(SECONDS)
    with pytest.raises(LeaseLostError, match="found it lost"):
        first.check()


def test_of_hosts_that_find_it_free_together_exactly_one_runs(lease):
    held, refused, all_looked = [], [], threading.Barrier(3)

    def start(identity):
        contender = lease(identity)
        join = contender._join
        contender._join = lambda: (all_looked.wait(60), join())
        try:
            contender.acquire()
        except LeaseHeldError:
            refused.append(identity)
        else:
            held.append(identity)

    threads = [threading.Thread(target=start, args=(f"host-{name}",)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 2)


def test_partitions_that_do_not_overlap_are_held_by_two(lease):
    first, second = lease("host-a", features(0, 2)), lease("host-b", features(1, 3))
    first.acquire()
    second.acquire()
    with pytest.raises(LeaseHeldError, match=r"features' \(all\) must have one holder"):
        lease("host-c", features()).acquire()
    first.check()
    second.check()


def test_a_run_with_several_claims_takes_all_or_none(lease):
    lease("host-a", Claim(name="signals", partitions=(1,))).acquire()
    with pytest.raises(LeaseHeldError, match="signals"):
        lease("host-b", features(), Claim(name="signals")).acquire()
    lease("host-c", features()).acquire()


def test_an_environment_without_topics_has_no_lease(kafka):
    with pytest.raises(TopicMissingError, match=r"no-such\.ops\.control"):
        LogLease(kafka, "no-such", "host-a", [Claim(name="account")], SECONDS).acquire()


@pytest.mark.parametrize(
    ("client", "overlaps"),
    [
        ("quantstream:host:1:all", True),
        ("quantstream:host:1:0-2", True),
        ("quantstream:host:1:1-3", False),
        ("console-consumer", True),
        ("quantstream:host:1:", True),
    ],
)
def test_a_member_that_does_not_say_what_it_claims_claims_all(client, overlaps):
    member = Member(member_id="m", instance="i", client=client, host="h")
    assert member.claims(features(0, 2)) is overlaps


def test_the_identity_of_a_state_folder_stays_and_is_its_own(tmp_path):
    first = holder_identity(tmp_path / "a")
    assert holder_identity(tmp_path / "a") == first
    assert holder_identity(tmp_path / "b") != first
