"""Create, check, measure and delete the topics of an environment."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from infra.kafka.errors import BrokerAwayError, TopicMismatchError, TopicMissingError
from infra.kafka.security import bootstrap_servers, kafka_python_options
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic, full_name

DEADLINE_SECONDS = 30.0


@contextmanager
def _admin(settings: KafkaSettings, deadline_seconds: float) -> Iterator[Any]:
    deadline_ms = int(deadline_seconds * 1000)
    try:
        client = KafkaAdminClient(
            **kafka_python_options(settings),
            client_id="quantstream-admin",
            request_timeout_ms=deadline_ms,
            bootstrap_timeout_ms=deadline_ms,
        )
        try:
            yield client
        finally:
            client.close()
    except UnknownTopicOrPartitionError as e:
        msg = (
            f"topic at {bootstrap_servers(settings)!r} must exist; found {str(e)!r}; "
            "start the stack to create the topics"
        )
        raise TopicMissingError(msg) from e
    except KafkaError as e:
        msg = (
            f"broker at {bootstrap_servers(settings)!r} must answer within {deadline_seconds:g} s; "
            f"found {str(e)!r}; start it or correct kafka.bootstrap"
        )
        raise BrokerAwayError(msg) from e


def topic_partitions(topic: Topic, settings: KafkaSettings) -> int:
    """Return how many partitions `topic` has."""
    return settings.partitions if topic.partitioned else 1


def ensure_topics(
    settings: KafkaSettings, environment: str, deadline_seconds: float = DEADLINE_SECONDS
) -> list[str]:
    """Create the topics of `environment` that do not exist; return the full names of those created.

    Raises:
        TopicMismatchError: a topic exists with another number of partitions; nothing was created.
        BrokerAwayError: the broker did not answer within `deadline_seconds` per call.
    """
    wanted = {full_name(environment, name): topic for name, topic in TOPICS.items()}
    with _admin(settings, deadline_seconds) as admin:
        found = {name: len(parts) for name, parts in _described(admin, wanted).items()}
        _refuse_mismatch(wanted, found, settings)
        missing = {
            name: _creation(topic, settings) for name, topic in wanted.items() if name not in found
        }
        if not missing:
            return []
        deadline_ms = int(deadline_seconds * 1000)
        # Another process of the stack may have created one first; the check below judges it.
        with suppress(TopicAlreadyExistsError):
            admin.create_topics(missing, timeout_ms=deadline_ms)
        admin.wait_for_topics(list(missing), timeout_ms=deadline_ms)
        found = {name: len(parts) for name, parts in _described(admin, wanted).items()}
        _refuse_mismatch(wanted, found, settings)
        return list(missing)


def _described(admin: Any, names: Iterable[str]) -> dict[str, list[Any]]:
    present = set(admin.list_topics()) & set(names)
    if not present:
        return {}
    return {topic["name"]: topic["partitions"] for topic in admin.describe_topics(sorted(present))}


def _refuse_mismatch(
    wanted: dict[str, Topic], found: dict[str, int], settings: KafkaSettings
) -> None:
    for name, topic in wanted.items():
        count = topic_partitions(topic, settings)
        if name in found and found[name] != count:
            msg = (
                f"topic {name!r} must have {count} partitions, as kafka.partitions says; "
                f"found {found[name]}; set kafka.partitions to the topic's count or use a new "
                "environment"
            )
            raise TopicMismatchError(msg)


def _creation(topic: Topic, settings: KafkaSettings) -> dict[str, Any]:
    return {
        "num_partitions": topic_partitions(topic, settings),
        "replication_factor": settings.replication_factor,
        "configs": {
            "cleanup.policy": "compact" if topic.compacted else "delete",
            "retention.ms": str(topic.retention_ms),
            "max.message.bytes": str(topic.max_message_bytes),
        },
    }


def topic_ends(
    settings: KafkaSettings,
    environment: str,
    topics: Iterable[str],
    deadline_seconds: float = DEADLINE_SECONDS,
) -> dict[str, dict[int, int]]:
    """Return the end offset of each partition of `topics`, by topic name without the environment.

    Raises:
        TopicMissingError: one of them does not exist in `environment`.
        BrokerAwayError: the broker did not answer within `deadline_seconds` per call.
    """
    return _edges(settings, environment, topics, OffsetSpec.LATEST, deadline_seconds)


def topic_begins(
    settings: KafkaSettings,
    environment: str,
    topics: Iterable[str],
    deadline_seconds: float = DEADLINE_SECONDS,
) -> dict[str, dict[int, int]]:
    """Return the first offset that each partition of `topics` still holds; raises as `topic_ends`."""
    return _edges(settings, environment, topics, OffsetSpec.EARLIEST, deadline_seconds)


def _edges(
    settings: KafkaSettings,
    environment: str,
    topics: Iterable[str],
    edge: OffsetSpec,
    deadline_seconds: float,
) -> dict[str, dict[int, int]]:
    names = {full_name(environment, topic): topic for topic in topics}
    with _admin(settings, deadline_seconds) as admin:
        described = _described(admin, names)
        for name in names:
            if name not in described:
                msg = f"topic {name!r} must exist; found none; start the stack to create the topics"
                raise TopicMissingError(msg)
        specs = {
            TopicPartition(name, part["partition_index"]): edge
            for name, parts in described.items()
            for part in parts
        }
        found = admin.list_partition_offsets(specs, timeout_ms=int(deadline_seconds * 1000))
    edges: dict[str, dict[int, int]] = {topic: {} for topic in names.values()}
    for where, at in sorted(found.items()):
        edges[names[where.topic]][where.partition] = at.offset
    return edges


def newest_record_ms(
    settings: KafkaSettings, environment: str, deadline_seconds: float = DEADLINE_SECONDS
) -> int | None:
    """Return the newest timestamp of any record of `environment`, None if it holds no record.

    Raises:
        BrokerAwayError: the broker did not answer within `deadline_seconds` per call.
    """
    with _admin(settings, deadline_seconds) as admin:
        described = _described(admin, (full_name(environment, topic) for topic in TOPICS))
        specs = {
            TopicPartition(name, part["partition_index"]): OffsetSpec.MAX_TIMESTAMP
            for name, parts in described.items()
            for part in parts
        }
        if not specs:
            return None
        found = admin.list_partition_offsets(specs, timeout_ms=int(deadline_seconds * 1000))
    newest_ms = max(int(at.timestamp) for at in found.values())
    return newest_ms if newest_ms >= 0 else None


def list_environments(
    settings: KafkaSettings, deadline_seconds: float = DEADLINE_SECONDS
) -> list[str]:
    """Return the environments that have at least one of our topics, sorted.

    Raises:
        BrokerAwayError: the broker did not answer within `deadline_seconds` per call.
    """
    with _admin(settings, deadline_seconds) as admin:
        names = admin.list_topics()
    parted = (name.partition(".") for name in names)
    return sorted({environment for environment, _, topic in parted if topic in TOPICS})


def delete_environment(
    settings: KafkaSettings, environment: str, deadline_seconds: float = DEADLINE_SECONDS
) -> list[str]:
    """Delete every topic of `environment`; return the full names once none of them is left.

    Raises:
        BrokerAwayError: the broker did not answer within `deadline_seconds` per call, or still
            lists a topic that it deleted.
    """
    ours = {full_name(environment, topic) for topic in TOPICS}
    with _admin(settings, deadline_seconds) as admin:
        present = sorted(ours & set(admin.list_topics()))
        if present:
            admin.delete_topics(present, timeout_ms=int(deadline_seconds * 1000))
        deadline = time.monotonic() + deadline_seconds
        # The broker answers before its own list is up to date.
        while left := ours & set(admin.list_topics()):
            if time.monotonic() > deadline:
                msg = f"topics {sorted(left)!r} must be gone; found them listed; delete them again"
                raise BrokerAwayError(msg)
            time.sleep(0.02)
    return present
