"""A record is durable after a flush, or an error says that it is not."""

import random
import time

import pytest

from infra.kafka.consumers import open_consumer
from infra.kafka.errors import BrokerAwayError, DeliveryError
from infra.kafka.producer import BatchProducer
from schemas.settings import KafkaSettings


@pytest.fixture
def producer(either):
    opened = BatchProducer(either, deadline_seconds=20)
    yield opened
    opened.close()


def read(settings, topic, partition, count):
    consumer = open_consumer(settings, topic, partition, None)
    try:
        records = []
        while len(records) < count:
            records += consumer.fetch(10_000, 0.1)
        return records
    finally:
        consumer.close()


def write_durably(producer, topic, value):
    producer.send(topic, 0, b"k", value, [])
    producer.flush()


def test_flushed_records_are_in_the_log_in_order(producer, kafka, topic):
    for i in range(3000):
        producer.send(topic, i % 2, b"k", b"%d" % i, [("id", b"%d" % i)], timestamp_ms=1_000 + i)
    producer.flush()
    assert producer.positions == {(topic, 0): 1500, (topic, 1): 1500}
    records = read(kafka, topic, 1, 1500)
    assert [int(record.value) for record in records] == list(range(1, 3000, 2))
    assert records[0].key == b"k"
    assert records[0].headers == [("id", b"1")]
    assert records[0].timestamp_ms == 1001


def test_a_record_over_the_topics_limit_fails_and_stays_failed(producer, environment):
    topic = f"{environment}.ops.alerts"
    producer.send(topic, 0, b"k", random.Random(1).randbytes(3 * 1024 * 1024), [])
    with pytest.raises(
        DeliveryError, match=rf"found 1 failures, first '{topic}/0: .*(TooLarge|TOO_LARGE)"
    ):
        producer.flush()
    with pytest.raises(DeliveryError):
        producer.send(topic, 0, b"k", b"small", [])
    with pytest.raises(DeliveryError):
        producer.flush()


def test_a_record_over_every_limit_fails_at_once(producer, topic):
    with pytest.raises(DeliveryError, match=r"TooLarge|TOO_LARGE"):
        producer.send(topic, 0, b"k", bytes(9 * 1024 * 1024), [])


def test_a_missing_topic_fails_before_the_deadline(either):
    producer = BatchProducer(either, deadline_seconds=1)
    started = time.monotonic()
    with pytest.raises(DeliveryError):
        write_durably(producer, "no-such-topic", b"v")
    assert time.monotonic() - started < 10
    producer.close()


def test_more_than_may_wait_is_flushed_on_the_way(producer, topic):
    value = bytes(4 * 1024 * 1024)
    for _ in range(20):
        producer.send(topic, 0, None, value, [])
    assert producer.positions[topic, 0] >= 15
    producer.flush()
    assert producer.positions[topic, 0] == 20


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_broker_that_is_away_is_named_before_the_deadline(client):
    started = time.monotonic()
    with pytest.raises(BrokerAwayError, match=r"must answer within 0\.5 s"):
        BatchProducer(KafkaSettings(bootstrap="127.0.0.1:1", client=client), deadline_seconds=0.5)
    assert time.monotonic() - started < 10
