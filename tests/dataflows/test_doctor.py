"""The doctor names the process behind a taken port and sees a clock that is wrong."""

import os
import socket
import time
from uuid import uuid4

import pytest

from dataflows import doctor, machine_checks
from dataflows.machine_checks import clock_offsets, descends_from, find_holder
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics
from infra.settings import Settings
from infra.stack.process import find_free_port
from schemas.settings import KafkaSettings, ServeSettings, StoreSettings
from schemas.topics import full_name


@pytest.fixture
def settings(tmp_path):
    return Settings(
        environment="doctor",
        state_dir=tmp_path,
        kafka=KafkaSettings(embedded_port=find_free_port()),
        store=StoreSettings(embedded_port=find_free_port()),
        serve=ServeSettings(base_port=find_free_port()),
    )


@pytest.fixture
def running(settings, broker, store):
    """The same settings on a broker and a store that run."""
    kafka = KafkaSettings(bootstrap=broker, partitions=1)
    away = StoreSettings(url=store.url, user=store.user, password=store.password)
    name = f"d{uuid4().hex[:12]}"
    found = settings.model_copy(update={"kafka": kafka, "store": away, "environment": name})
    ensure_topics(kafka_settings(found), found.environment)
    return found


def test_free_ports_are_ok_and_the_ports_of_all_flows_are_looked_at(settings):
    found = doctor._ports(settings)
    assert found.ok
    assert found.found.count("free") == 7


@pytest.mark.parametrize(
    ("setting", "port_of"),
    [
        ("kafka.embedded_port", lambda settings: settings.kafka.embedded_port),
        ("store.embedded_port", lambda settings: settings.store.embedded_port),
        ("serve.base_port", lambda settings: settings.serve.base_port + 30),
    ],
)
def test_a_taken_port_names_its_holder_and_the_setting(settings, setting, port_of):
    with socket.create_server(("127.0.0.1", port_of(settings))):
        found = doctor._ports(settings)
    assert not found.ok
    assert f"{port_of(settings)} held by" in found.found
    assert f"(pid {os.getpid()})" in found.found
    assert found.remedy == f"stop that program or change {setting}"


def test_a_port_that_the_stack_holds_is_ours(settings, monkeypatch):
    monkeypatch.setattr(doctor, "_pids_of_stack", lambda _settings: {os.getppid()})
    with socket.create_server(("127.0.0.1", settings.kafka.embedded_port)):
        found = doctor._ports(settings)
    assert found.ok
    assert f"{settings.kafka.embedded_port} ours" in found.found


def test_nobody_holds_a_free_port_and_no_stranger_descends_from_us():
    assert find_holder(find_free_port()) is None
    assert descends_from(os.getpid(), {os.getppid()})
    assert not descends_from(os.getpid(), {2**22 + 1})
    assert not descends_from(2**22 + 1, {os.getpid()})


def test_without_a_stack_the_clock_has_nothing_to_be_compared_with(settings):
    found = doctor._clock(settings)
    assert found.ok
    assert "nothing runs to compare with" in found.found
    assert not (settings.state_dir / "store.key").exists()


@pytest.mark.stack
def test_a_clock_that_agrees_with_the_store_is_ok(running):
    assert abs(clock_offsets(running)["store"]) < 1
    assert doctor._clock(running).ok


@pytest.mark.stack
@pytest.mark.parametrize("seconds", [-10, 10])
def test_a_clock_that_the_store_contradicts_is_not_ok(running, monkeypatch, seconds):
    right_ns = time.time_ns
    monkeypatch.setattr(machine_checks.time, "time_ns", lambda: right_ns() + seconds * 10**9)
    found = doctor._clock(running)
    assert not found.ok
    assert f"store is 10.0 s {'behind' if seconds > 0 else 'ahead'}" in found.found
    assert "NTP" in found.remedy


@pytest.mark.stack
def test_a_record_of_the_future_shows_that_the_clock_is_behind(running):
    producer = BatchProducer(kafka_settings(running))
    topic = full_name(running.environment, "ops.alerts")
    ahead_ms = int(time.time() * 1000) + 30_000
    producer.send(topic, 0, None, b"{}", [], timestamp_ms=ahead_ms)
    producer.flush()
    producer.close()
    found = doctor._clock(running)
    assert not found.ok
    assert "log is" in found.found
    assert "ahead" in found.found
