"""A dataflow from the log to the log, killed in the middle, loses and doubles nothing."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from infra.kafka.consumers import open_consumer
from infra.kafka.topics import topic_ends
from schemas.topics import full_name

ROOT = Path(__file__).parents[3]
RECORDS_PER_PARTITION = 1000
KILLS = 5
WAIT_SECONDS = 60.0


@pytest.fixture
def run(kafka, environment, tmp_path):
    """Start the copying dataflow; whatever still runs at the end is killed."""
    started = []

    def start(bound=RECORDS_PER_PARTITION, client="confluent"):
        command = [sys.executable, "-m", "tests.infra.kafka.copy_flow"]
        arguments = [kafka.bootstrap, environment, str(tmp_path), client, str(bound), "30"]
        started.append(subprocess.Popen([*command, *arguments], cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def written(kafka, environment):
    def count():
        ends = topic_ends(kafka, environment, ["market.late", "ops.alerts"])
        return sum(ends["market.late"].values()) + ends["ops.alerts"][0]

    return count


@pytest.fixture
def fill(environment, write):
    def records(count, start=0):
        for partition in (0, 1):
            values = [b"%d" % number for number in range(start, start + count)]
            write(full_name(environment, "market.ticks"), values, partition)

    return records


@pytest.fixture
def outcome(kafka, environment):
    """Return the ids of each output partition in log order."""

    def read():
        found = {}
        for topic, partition in [("market.late", 0), ("market.late", 1), ("ops.alerts", 0)]:
            consumer = open_consumer(kafka, full_name(environment, topic), partition, None)
            ids = found.setdefault((topic, partition), [])
            while consumer.position < consumer.end_offset():
                for record in consumer.fetch(10_000, 0.1):
                    ids += [value.decode() for name, value in record.headers if name == "id"]
            consumer.close()
        return found

    return read


def wait_for_progress(process, written, before):
    deadline = time.monotonic() + WAIT_SECONDS
    while written() <= before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check(found, count):
    for partition in (0, 1):
        expected = [f"late/{partition}-{number}" for number in range(count)]
        assert found["market.late", partition] == expected
    alerts = Counter(found["ops.alerts", 0])
    assert alerts == Counter(
        f"alert/{partition}-{number}" for partition in (0, 1) for number in range(count)
    )
    for partition in (0, 1):
        mine = [name for name in found["ops.alerts", 0] if name.startswith(f"alert/{partition}-")]
        assert mine == [f"alert/{partition}-{number}" for number in range(count)]


@pytest.mark.acceptance("I13", criterion="killed at random: no record lost, none doubled")
def test_kills_at_random_lose_and_double_nothing(run, fill, written, outcome, measured):
    chance = random.Random(20261121)
    fill(RECORDS_PER_PARTITION)
    kills = 0
    for _ in range(KILLS):
        process = run()
        wait_for_progress(process, written, written())
        time.sleep(chance.uniform(0.0, 0.15))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == KILLS
    assert run().wait(WAIT_SECONDS) == 0
    check(outcome(), RECORDS_PER_PARTITION)
    measured(f"{kills} kills, {2 * RECORDS_PER_PARTITION} records, 0 lost, 0 doubled")


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_run_asked_to_end_exits_well_and_the_next_continues(run, fill, written, outcome, client):
    fill(100)
    process = run("none", client)
    wait_for_progress(process, written, 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    fill(50, start=100)
    assert run(150, client).wait(WAIT_SECONDS) == 0
    check(outcome(), 150)


def test_a_second_run_on_the_same_state_is_refused(run, fill, written):
    fill(10)
    process = run("none")
    wait_for_progress(process, written, 0)
    assert run("none").wait(WAIT_SECONDS) != 0
    assert process.poll() is None
