"""Topics are created as declared, and a topic of another layout is refused."""

import time
from uuid import uuid4

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from infra.kafka.errors import BrokerAwayError, TopicMismatchError, TopicMissingError
from infra.kafka.topics import delete_environment, ensure_topics, list_environments, topic_ends
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, full_name


def test_every_topic_is_created_once(kafka, environment):
    ends = topic_ends(kafka, environment, TOPICS)
    assert set(ends) == set(TOPICS)
    assert {name: len(parts) for name, parts in ends.items()} == {
        name: 2 if topic.partitioned else 1 for name, topic in TOPICS.items()
    }
    assert ensure_topics(kafka, environment) == []


def test_retention_cleanup_and_size_are_as_declared(environment, admin):
    names = [full_name(environment, name) for name in TOPICS]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = admin.describe_configs(resources)["topic"]
    for name, topic in TOPICS.items():
        configs = {
            key: value["value"] for key, value in found[full_name(environment, name)].items()
        }
        assert int(configs["retention.ms"]) == topic.retention_ms
        assert int(configs["max.message.bytes"]) == topic.max_message_bytes
        assert configs.get("cleanup.policy", "delete") == (
            "compact" if topic.compacted else "delete"
        )


def test_another_partition_count_is_refused(kafka, environment):
    other = kafka.model_copy(update={"partitions": 3})
    with pytest.raises(TopicMismatchError, match=r"must have 3 partitions.*found 2"):
        ensure_topics(other, environment)


def test_ends_follow_what_was_written(kafka, environment, write):
    write(full_name(environment, "market.ticks"), [b"a", b"b"], partition=1)
    ends = topic_ends(kafka, environment, ["market.ticks", "ops.control"])
    assert ends == {"market.ticks": {0: 0, 1: 2}, "ops.control": {0: 0}}


def test_ends_of_a_missing_topic_are_refused(kafka):
    with pytest.raises(TopicMissingError, match=r"'none\.ops\.control' must exist"):
        topic_ends(kafka, "none", ["ops.control"])


def test_an_environment_is_listed_until_it_is_deleted(kafka):
    name = f"e{uuid4().hex[:12]}"
    ensure_topics(kafka, name)
    assert name in list_environments(kafka)
    assert len(delete_environment(kafka, name)) == len(TOPICS)
    assert name not in list_environments(kafka)
    assert delete_environment(kafka, name) == []


def test_a_broker_that_is_away_is_named_before_the_deadline():
    started = time.monotonic()
    with pytest.raises(BrokerAwayError, match=r"'127\.0\.0\.1:1' must answer within 0\.5 s"):
        list_environments(KafkaSettings(bootstrap="127.0.0.1:1"), deadline_seconds=0.5)
    assert time.monotonic() - started < 10
