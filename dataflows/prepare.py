"""Make an environment ready: topics, tables, and the settings record that every header refers to."""

from dataflows.stack import kafka_settings, store_settings
from infra.clickhouse.client import connect, database_name
from infra.clickhouse.migrations import prepare_database
from infra.kafka.producer import BatchProducer
from infra.kafka.topics import ensure_topics
from infra.settings import Settings, settings_hash, settings_json
from schemas.codec import Origin, build_headers, encode
from schemas.operations import SettingsPublished
from schemas.topics import full_name, record_key


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
    """Write the effective settings to `ops.settings`, keyed by their hash."""
    message = SettingsPublished(id=settings_hash(settings), settings_json=settings_json(settings))
    origin = Origin(config_hash=message.id, epoch=0)
    producer = BatchProducer(kafka_settings(settings))
    producer.send(
        full_name(settings.environment, message.topic),
        0,
        record_key(message).encode(),
        encode(message),
        build_headers(SettingsPublished, message.id, "", "live", origin),
    )
    producer.flush()
    producer.close()
