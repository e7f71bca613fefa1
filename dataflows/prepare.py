"""Bring a stack up: processes, topics, tables, and the settings record that every header refers to."""

from collections.abc import Sequence

from dataflows.stack import (
    child_environment,
    flow_process,
    kafka_settings,
    stack_processes,
    store_settings,
    wait_for_stack,
)
from infra.clickhouse.client import connect, database_name
from infra.clickhouse.migrations import prepare_database
from infra.kafka.producer import BatchProducer
from infra.kafka.reading import read_to_end
from infra.kafka.topics import ensure_topics
from infra.settings import Settings, settings_hash, settings_json
from infra.stack.supervise import Supervisor
from schemas.codec import Origin, build_headers, encode
from schemas.operations import SettingsPublished
from schemas.topics import full_name, record_key


def start_stack(settings: Settings, flows: Sequence[str], *, foreground: bool) -> Supervisor:
    """Start the supervisor with the stack, prepare topics and tables, then start `flows`."""
    supervisor = Supervisor(settings.state_dir)
    # What runs already reads its settings again when it restarts: they must stay its own.
    supervisor.require_stopped()
    supervisor.start(
        stack_processes(settings), environment=child_environment(settings), foreground=foreground
    )
    try:
        wait_for_stack(settings)
        prepare_environment(settings)
        for flow in flows:
            supervisor.add(flow_process(flow))
    except BaseException:
        supervisor.stop()
        raise
    return supervisor


def prepare_environment(settings: Settings) -> None:
    """Create the topics and tables of the environment and publish the effective settings."""
    kafka = kafka_settings(settings)
    ensure_topics(kafka, settings.environment)
    store = store_settings(settings)
    client = connect(store)
    prepare_database(client, database_name(store, settings.environment))
    client.close()
    publish_settings(settings)


def publish_settings(settings: Settings) -> None:
    """Write the effective settings to `ops.settings`, keyed by their hash, unless they are there."""
    message = SettingsPublished(id=settings_hash(settings), settings_json=settings_json(settings))
    topic = full_name(settings.environment, message.topic)
    records, _ = read_to_end(kafka_settings(settings), topic)
    published = {record.key for record in records}
    if record_key(message).encode() in published:
        return
    origin = Origin(config_hash=message.id, epoch=0)
    producer = BatchProducer(kafka_settings(settings))
    producer.send(
        topic,
        0,
        record_key(message).encode(),
        encode(message),
        build_headers(SettingsPublished, message.id, "", "live", origin),
    )
    producer.flush()
    producer.close()
