"""A broker that comes back in time is not noticed; one that stays away is named in time."""

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from infra.kafka.consumers import open_consumer
from infra.kafka.errors import DeliveryError
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics, topic_ends
from infra.stack.process import find_free_port
from schemas.settings import KafkaSettings
from schemas.topics import full_name
from tests.stack_fixtures import end, start_broker

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 30.0


class Outage:
    """A broker of our own that can be killed and started again."""

    def __init__(self, folder):
        self.folder, self.port = folder, find_free_port()
        self.settings = KafkaSettings(bootstrap=f"127.0.0.1:{self.port}", partitions=2)
        self.running = None

    def start(self):
        if self.running is None:
            self.running = start_broker(self.folder, self.port)

    def kill(self):
        self.running.process.kill()
        self.running.process.wait(10)
        self.running = None


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    outage = Outage(tmp_path_factory.mktemp("outage"))
    yield outage
    if outage.running is not None:
        end(outage.running)


@pytest.fixture
def outage(machine):
    """A running broker and the full name of its alerts topic in a fresh environment."""
    machine.start()
    environment = f"e{uuid4().hex[:12]}"
    ensure_topics(machine.settings, environment)
    return machine, environment


def send_numbers(producer, topic, numbers):
    for number in numbers:
        producer.send(topic, 0, b"k", b"%d" % number, [])


def read(consumer, count):
    found, deadline = [], time.monotonic() + WAIT_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += [int(record.value) for record in consumer.fetch(10_000, 0.1)]
    return found


@pytest.mark.parametrize("writer", ["confluent", "kafka-python"])
def test_a_killed_broker_that_comes_back_loses_and_doubles_nothing(outage, writer):
    machine, environment = outage
    settings = machine.settings.model_copy(update={"client": writer})
    topic = full_name(environment, "ops.alerts")
    producer = BatchProducer(settings, deadline_seconds=WAIT_SECONDS)
    consumers = [
        open_consumer(settings.model_copy(update={"client": client}), topic, 0, None)
        for client in ("confluent", "kafka-python")
    ]
    send_numbers(producer, topic, range(100))
    producer.flush()
    for consumer in consumers:
        assert read(consumer, 100) == list(range(100))
    machine.kill()
    send_numbers(producer, topic, range(100, 300))
    for consumer in consumers:
        assert consumer.fetch(10) == []
    machine.start()
    producer.flush()
    for consumer in consumers:
        assert read(consumer, 200) == list(range(100, 300))
        assert consumer.fetch(10, 0.2) == []
        consumer.close()
    producer.close()


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_broker_that_stays_away_makes_the_flush_fail_in_time(outage, client):
    machine, environment = outage
    settings = machine.settings.model_copy(update={"client": client})
    topic = full_name(environment, "ops.alerts")
    producer = BatchProducer(settings, deadline_seconds=2)
    send_numbers(producer, topic, range(1))
    producer.flush()
    machine.kill()
    started = time.monotonic()
    send_numbers(producer, topic, range(1, 2))
    with pytest.raises(DeliveryError):
        producer.flush()
    assert time.monotonic() - started < 15
    assert producer.positions == {(topic, 0): 1}
    producer.close()


def test_a_dataflow_whose_broker_dies_ends_and_says_why(outage, tmp_path):
    machine, environment = outage
    producer = BatchProducer(machine.settings)
    send_numbers(producer, full_name(environment, "market.ticks"), range(20_000))
    producer.flush()
    producer.close()
    arguments = [machine.settings.bootstrap, environment, str(tmp_path), "confluent", "none", "2"]
    command = [sys.executable, "-m", "tests.infra.kafka.copy_flow", *arguments]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while topic_ends(machine.settings, environment, ["ops.alerts"])["ops.alerts"][0] < 50:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        machine.kill()
        assert process.wait(WAIT_SECONDS) == 1
    finally:
        process.kill()
        process.wait()
    assert "records must be acknowledged within 2 s; found" in (tmp_path / "errors").read_text()
