"""A broker that is gone is noticed, though a quiet topic looks just like it to a consumer."""

import socket
import threading

import pytest

from infra.kafka.probe import BrokerProbe
from schemas.settings import KafkaSettings


@pytest.fixture
def probe():
    """Start a probe of a broker; return the event of its answers."""
    started = []

    def start(settings, topic="no-such-topic"):
        answered = threading.Event()
        started.append(BrokerProbe(settings, topic, 0.1, answered.set))
        started[-1].start()
        return answered

    yield start
    for each in started:
        each.stop()


@pytest.mark.stack
def test_a_broker_that_is_there_answers_again_and_again(kafka, probe):
    answered = probe(kafka)
    for _ in range(3):
        assert answered.wait(10)
        answered.clear()


def test_a_port_where_nobody_answers_is_no_broker(probe):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answered = probe(KafkaSettings(bootstrap=f"127.0.0.1:{silent.getsockname()[1]}"))
        assert not answered.wait(3)


def test_a_port_that_is_closed_is_no_broker(probe):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not probe(KafkaSettings(bootstrap=f"127.0.0.1:{port}")).wait(3)
