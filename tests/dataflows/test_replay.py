"""A replay goes only into a log that is not past its start, whatever the log ends with."""

import msgspec
import pytest
from kafka import KafkaAdminClient, TopicPartition

from dataflows import replay as replay_module
from dataflows.known_commands import newest_written_ns, read_known_commands
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.replay import (
    OlderTimesError,
    newest_event_time_ns,
    publish_instruments,
    refuse_older_times,
)
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics, topic_ends
from infra.settings import Settings
from infra.tick_encoder import encode_heartbeats, encode_records
from schemas.codec import encode
from schemas.settings import KafkaSettings
from schemas.topics import full_name
from schemas.trading import DecisionMade
from tests.conftest import EXCERPTS
from tests.contracts.samples import closed_leg

pytestmark = [pytest.mark.stack]

JUNK = [("content-type", b"application/x-ndjson"), ("provenance", b"recorded")]


@pytest.fixture
def settings(broker, tmp_path, request):
    name = "r-" + request.node.name.removeprefix("test_").replace("_", "-")[:28]
    found = Settings(
        environment="".join(c for c in name if c.isalnum() or c == "-").rstrip("-"),
        state_dir=tmp_path,
        kafka=KafkaSettings(bootstrap=broker, partitions=2),
    )
    ensure_topics(kafka_settings(found), found.environment)
    return found


@pytest.fixture
def producer(settings):
    opened = BatchProducer(kafka_settings(settings))
    yield opened
    opened.close()


@pytest.fixture
def session():
    return RecordedSession([RecordedFile(path=EXCERPTS / "trades_binance_spot_20240808.parquet")])


@pytest.fixture
def publish(settings, producer, session):
    """Publish the listing and the first ticks of the session; return their newest event time."""

    def send(encoding):
        publish_instruments(settings, producer, session.instruments())
        ticks = next(iter(session.chunks()))[:500]
        for record in encode_records(ticks, 2, encoding, 100):
            put(settings, producer, record.partition, record.value, record.headers)
        producer.flush()
        return int(ticks["event_time_ns"].max())

    return send


def put(settings, producer, partition, value, headers, topic="market.ticks", key=None):
    producer.send(full_name(settings.environment, topic), partition, key, value, headers)


def put_decision(settings, producer):
    """Write a decision of the account; return its event time."""
    sample = next(message for message in closed_leg() if isinstance(message, DecisionMade))
    decision = msgspec.structs.replace(sample, account=settings.account)
    put(settings, producer, 0, encode(decision), [("id", b"x")], "trade.decisions")
    producer.flush()
    return decision.event_time_ns


def delete_everything(settings, topic):
    ends = topic_ends(kafka_settings(settings), settings.environment, [topic])[topic]
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
    name = full_name(settings.environment, topic)
    admin.delete_records({TopicPartition(name, number): end for number, end in ends.items()})
    admin.close()


@pytest.mark.parametrize("encoding", ["ndjson", "arrow"])
def test_the_newest_tick_counts_in_every_encoding(settings, publish, encoding):
    newest_ns = publish(encoding)
    assert newest_event_time_ns(settings) == newest_ns
    with pytest.raises(OlderTimesError, match="must not be past the replay's start"):
        refuse_older_times(settings, newest_ns - 1)
    refuse_older_times(settings, newest_ns)


def test_a_heartbeat_counts(settings, producer):
    for beat in encode_heartbeats(1_700_000_000_000_000_000, 2, "recorded"):
        put(settings, producer, beat.partition, beat.value, beat.headers)
    producer.flush()
    assert newest_event_time_ns(settings) == 1_700_000_000_000_000_000


@pytest.mark.parametrize("junk", [b"\xff\x00", b"", b"{}", b'{"event_time_ns": 1}', b"[" * 5000])
def test_what_is_no_tick_does_not_hide_the_ticks_before_it(settings, producer, publish, junk):
    newest_ns = publish("arrow")
    for partition in (0, 1):
        for _ in range(100):
            put(settings, producer, partition, junk, JUNK)
    producer.flush()
    assert newest_event_time_ns(settings) == newest_ns


def test_a_log_whose_time_cannot_be_told_is_refused(settings, producer, publish, monkeypatch):
    publish("ndjson")
    for _ in range(300):
        put(settings, producer, 0, b"junk", JUNK)
        put(settings, producer, 1, b"junk", JUNK)
    producer.flush()
    monkeypatch.setattr(replay_module, "UNREADABLE_RECORDS_MAX", 50)
    with pytest.raises(OlderTimesError, match="say how far it is; found none in its last"):
        refuse_older_times(settings, 2**62)


def test_an_empty_log_and_one_of_junk_alone_have_no_time(settings, producer):
    assert newest_event_time_ns(settings) is None
    put(settings, producer, 0, b"junk", JUNK)
    producer.flush()
    assert newest_event_time_ns(settings) is None


def test_a_log_that_retention_emptied_is_as_far_as_its_account(settings, producer, publish):
    publish("ndjson")
    delete_everything(settings, "market.ticks")
    assert newest_event_time_ns(settings) is None
    decided_ns = put_decision(settings, producer)
    assert newest_event_time_ns(settings) == decided_ns


def test_an_account_whose_records_were_deleted_starts_as_a_new_one(settings, producer):
    decided_ns = put_decision(settings, producer)
    assert newest_written_ns(settings) == decided_ns
    delete_everything(settings, "trade.decisions")
    assert newest_written_ns(settings) == -1
    assert read_known_commands(settings).not_before_ns == 0
