"""Where the broker is and how each client proves who it is, from one set of settings."""

from typing import Any

from schemas.settings import KafkaSettings


def bootstrap_servers(settings: KafkaSettings) -> str:
    """Return `host:port[,host:port]` of the broker: the external cluster or the embedded one."""
    return settings.bootstrap or f"127.0.0.1:{settings.embedded_port}"


def kafka_python_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the connection options of every kafka-python client.

    Raises:
        ValueError: the protocol needs a mechanism, a user or a password that is not set.
    """
    _require_credentials(settings)
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(settings).split(","),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL_"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = settings.password.get_secret_value()
    if settings.security_protocol.endswith("SSL") and settings.ca_file:
        options["ssl_cafile"] = settings.ca_file
    return options


def confluent_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the connection options of every confluent-kafka client.

    Raises:
        ValueError: the protocol needs a mechanism, a user or a password that is not set.
    """
    _require_credentials(settings)
    options: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers(settings),
        "security.protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL_"):
        options["sasl.mechanism"] = settings.sasl_mechanism
        options["sasl.username"] = settings.username
        options["sasl.password"] = settings.password.get_secret_value()
    if settings.security_protocol.endswith("SSL"):
        options["ssl.endpoint.identification.algorithm"] = "https"
        if settings.ca_file:
            options["ssl.ca.location"] = settings.ca_file
    return options


def _require_credentials(settings: KafkaSettings) -> None:
    if not settings.security_protocol.startswith("SASL_"):
        return
    given = {
        "sasl_mechanism": settings.sasl_mechanism,
        "username": settings.username,
        "password": settings.password.get_secret_value(),
    }
    missing = [name for name, value in given.items() if not value]
    if missing:
        msg = (
            f"kafka settings with security_protocol {settings.security_protocol!r} must name a "
            f"mechanism, a user and a password; found none for {missing!r}; set them"
        )
        raise ValueError(msg)
