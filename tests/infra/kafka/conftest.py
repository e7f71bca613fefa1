"""Fixtures of the log's tests; `broker` comes from `tests.stack_fixtures`."""

from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from infra.kafka.topics import ensure_topics
from schemas.settings import KafkaSettings


@pytest.fixture
def kafka(broker):
    """Settings of the shared broker with two partitions."""
    return KafkaSettings(bootstrap=broker, partitions=2)


@pytest.fixture(params=["confluent", "kafka-python"])
def either(kafka, request):
    """The same settings, once with each client."""
    return kafka.model_copy(update={"client": request.param})


@pytest.fixture(scope="session")
def admin(broker):
    client = KafkaAdminClient(bootstrap_servers=broker)
    yield client
    client.close()


@pytest.fixture(scope="session")
def writer(broker):
    client = KafkaProducer(bootstrap_servers=broker, linger_ms=2, max_request_size=8 * 1024 * 1024)
    yield client
    client.close()


@pytest.fixture
def topic(admin):
    """A fresh topic with two partitions; it goes with the session's broker."""
    name = f"t-{uuid4().hex[:12]}"
    configs = {"max.message.bytes": str(8 * 1024 * 1024)}
    admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1, "configs": configs}})
    admin.wait_for_topics([name])
    return name


@pytest.fixture
def environment(kafka):
    """A fresh environment with every topic."""
    name = f"e{uuid4().hex[:12]}"
    ensure_topics(kafka, name)
    return name


@pytest.fixture
def write(writer):
    """Write values to one partition and wait until they are durable."""

    def send(topic, values, partition=0, **record):
        for value in values:
            writer.send(topic, value, partition=partition, **record)
        writer.flush(30)

    return send


@pytest.fixture
def delete_before(admin):
    """Delete the records of a partition before an offset, as retention does."""

    def delete(topic, partition, offset):
        admin.delete_records({TopicPartition(topic, partition): offset})

    return delete
