"""Send a signed command and see when the account applied it."""

import time

from dataflows.stack import kafka_settings
from infra.control import load_or_create_key, sign_command
from infra.kafka.consumers import open_consumer
from infra.kafka.producer import BatchProducer
from infra.kafka.reading import READ_AT_ONCE
from infra.settings import Settings, settings_hash
from schemas.codec import Origin, build_headers, decode, encode
from schemas.operations import Command, ControlApplied, ControlCommanded
from schemas.topics import full_name, record_key

POLL_SECONDS = 0.05


def send_command(
    settings: Settings, command: Command, reason: str, model: str = "", version: str = ""
) -> ControlCommanded:
    """Sign `command` with the local operator's key and write it to `ops.control`.

    `model` and `version` say what `activate` and `rollback` are about.
    """
    message = sign_command(
        load_or_create_key(settings.state_dir),
        environment=settings.environment,
        account=settings.account,
        command=command,
        reason=reason,
        issued_at_ns=time.time_ns(),
        model=model,
        version=version,
    )
    producer = BatchProducer(kafka_settings(settings), linger_ms=0)
    producer.send(
        full_name(settings.environment, message.topic),
        0,
        record_key(message).encode(),
        encode(message),
        build_headers(
            ControlCommanded,
            message.id,
            message.cause,
            "live",
            Origin(config_hash=settings_hash(settings), epoch=0),
        ),
    )
    producer.flush()
    producer.close()
    return message


def wait_until_applied(
    settings: Settings, command_id: str, seconds: float
) -> ControlApplied | None:
    """Return the record that says from when the command counts, None if it does not come in time."""
    topic = full_name(settings.environment, ControlApplied.topic)
    consumer = open_consumer(kafka_settings(settings), topic, 0, None)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            for record in consumer.fetch(READ_AT_ONCE, POLL_SECONDS):
                applied = decode(ControlApplied, record.value or b"")
                if applied.cause == command_id:
                    return applied
    finally:
        consumer.close()
    return None
