"""Both clients get the same identity from one set of settings."""

import pytest
from confluent_kafka import Consumer

from infra.kafka.security import bootstrap_servers, confluent_options, kafka_python_options
from schemas.settings import KafkaSettings

SASL = KafkaSettings(
    bootstrap="a:1,b:2",
    security_protocol="SASL_SSL",
    sasl_mechanism="SCRAM-SHA-512",
    username="trader",
    password="pass-phrase",
    ca_file="ca.pem",
)


def test_without_an_address_the_embedded_broker_is_meant():
    assert bootstrap_servers(KafkaSettings(embedded_port=19999)) == "127.0.0.1:19999"
    assert bootstrap_servers(SASL) == "a:1,b:2"


def test_plain_text_needs_no_more_than_the_address():
    plain = KafkaSettings(bootstrap="a:1")
    assert kafka_python_options(plain) == {
        "bootstrap_servers": ["a:1"],
        "security_protocol": "PLAINTEXT",
    }
    assert confluent_options(plain) == {
        "bootstrap.servers": "a:1",
        "security.protocol": "PLAINTEXT",
    }


def test_kafka_python_gets_user_mechanism_and_authority():
    assert kafka_python_options(SASL) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "trader",
        "sasl_plain_password": "pass-phrase",
        "ssl_cafile": "ca.pem",
    }


def test_confluent_gets_user_mechanism_authority_and_checks_the_host_name():
    assert confluent_options(SASL) == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "trader",
        "sasl.password": "pass-phrase",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": "ca.pem",
    }


def test_tls_without_sasl_sends_no_user():
    tls = KafkaSettings(bootstrap="a:1", security_protocol="SSL", username="trader")
    assert "sasl_plain_username" not in kafka_python_options(tls)
    assert "sasl.username" not in confluent_options(tls)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_librdkafka_knows_every_option(protocol):
    settings = SASL.model_copy(update={"security_protocol": protocol, "ca_file": ""})
    Consumer(confluent_options(settings) | {"group.id": "g", "log_level": 0}).close()


@pytest.mark.parametrize("options", [kafka_python_options, confluent_options])
def test_sasl_without_a_password_is_refused_without_showing_one(options):
    settings = KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", username="trader"
    )
    with pytest.raises(ValueError, match=r"found none for \['password'\]"):
        options(settings)
