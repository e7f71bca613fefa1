"""A broker that asks who is there: both clients sign on with every mechanism, and not without."""

import os
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from infra.audit.log import KafkaLog
from infra.kafka.consumers import open_consumer
from infra.kafka.errors import BrokerAwayError
from infra.kafka.producer import BatchProducer
from infra.kafka.reading import read_to_end
from infra.kafka.topics import ensure_topics
from infra.stack.broker import BrokerConfig, build_java_command, wait_until_ready
from infra.stack.process import find_free_port
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, full_name
from tests.stack_fixtures import READY_SECONDS, end, start

pytestmark = pytest.mark.stack

USER, PASSWORD = "trader", os.urandom(12).hex()
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MODULES = "org.apache.kafka.common.security"


def add_listener(properties: Path, port: int) -> None:
    """Give the broker a second listener, where a client must name a user and a password."""
    text = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    text["listeners"] += f",SASL://127.0.0.1:{port}"
    text["advertised.listeners"] += f",SASL://127.0.0.1:{port}"
    text["listener.security.protocol.map"] += ",SASL:SASL_PLAINTEXT"
    text["sasl.enabled.mechanisms"] = ",".join(MECHANISMS)
    listener = "listener.name.sasl"
    plain = f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    text[f"{listener}.plain.sasl.jaas.config"] = plain
    for mechanism in ("scram-sha-256", "scram-sha-512"):
        module = f"{MODULES}.scram.ScramLoginModule required;"
        text[f"{listener}.{mechanism}.sasl.jaas.config"] = module
    properties.write_text("".join(f"{key}={value}\n" for key, value in text.items()))


def add_user(bootstrap: str) -> None:
    """Let the broker know the user's salted password; PLAIN takes it from the listener."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        credential = ScramCredentialInfo(mechanism, 4096)
        user = UserScramCredentialUpsertion(USER, credential, PASSWORD.encode())
        # A broker refuses two mechanisms of one user in one request.
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result(30)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """The address of the listener that asks for a user."""
    state_dir = tmp_path_factory.mktemp("guarded")
    config, port = BrokerConfig(state_dir=state_dir, port=find_free_port()), find_free_port()
    command = build_java_command(config)
    add_listener(state_dir / "server.properties", port)
    running = start(command, state_dir / "broker.log")
    try:
        wait_until_ready(config.bootstrap, READY_SECONDS)
        add_user(config.bootstrap)
        yield f"127.0.0.1:{port}"
    finally:
        end(running)


def settings(bootstrap, mechanism, client, password=PASSWORD):
    return KafkaSettings(
        bootstrap=bootstrap,
        client=client,
        partitions=2,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        username=USER,
        password=password,
    )


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_both_clients_sign_on(guarded, mechanism, client):
    kafka, environment = settings(guarded, mechanism, client), f"{mechanism.lower()}-{client}"
    assert len(ensure_topics(kafka, environment)) == len(TOPICS)
    topic = full_name(environment, "market.ticks")
    producer = BatchProducer(kafka)
    producer.send(topic, 1, b"key", b"value", [])
    producer.flush()
    producer.close()
    consumer = open_consumer(kafka, topic, 1, 0, f"{environment}.group")
    fetched = []
    while not fetched:
        fetched += consumer.fetch(10)
    consumer.commit(1)
    consumer.close()
    assert [bytes(record.value) for record in fetched] == [b"value"]
    records, _ = read_to_end(kafka, topic, 1)
    assert [record.value for record in records] == [b"value"]
    log = KafkaLog(kafka, environment, 0.0)
    assert [record.value for record in log.records("market.ticks", 1)] == [b"value"]
    log.close()


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_wrong_password_is_refused(guarded, client):
    wrong = settings(guarded, "SCRAM-SHA-512", client, "x" + PASSWORD)
    with pytest.raises(BrokerAwayError, match="must answer within 2 s"):
        BatchProducer(wrong, deadline_seconds=2)
