"""What clients of Kafka are told by the settings."""

import ssl

import pytest
from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings
from pydantic import SecretStr, ValidationError


def test_plain_listener_is_spoken_to_without_more() -> None:
    told = connection(KafkaSettings(kafka="a:9092,b:9092"))

    assert told == {"bootstrap_servers": "a:9092,b:9092", "security_protocol": "PLAINTEXT", "ssl_context": None}


def test_password_is_shown_by_the_mechanism() -> None:
    settings = KafkaSettings(
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_user="us",
        kafka_password=SecretStr("word"),
    )

    shown = {name: value for name, value in connection(settings).items() if name.startswith("sasl")}
    assert shown == {"sasl_mechanism": "PLAIN", "sasl_plain_username": "us", "sasl_plain_password": "word"}


def test_tls_asks_for_the_brokers_own_name() -> None:
    context = connection(KafkaSettings(kafka_security_protocol="SSL"))["ssl_context"]

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kafka_ca_file": "/none/ca.crt"}, "HEADRACE_KAFKA_CA_FILE /none/ca.crt"),
        ({"kafka_certificate_file": "/none/u.crt", "kafka_key_file": "/none/u.key"}, "CERTIFICATE_FILE /none/u.crt"),
    ],
)
def test_file_that_is_not_there_is_named(settings: dict[str, str], named: str) -> None:
    told = KafkaSettings.model_validate({"kafka_security_protocol": "SSL", **settings})

    with pytest.raises(OSError, match=named):
        connection(told)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kafka_security_protocol": "SASL_SSL", "kafka_user": "us"}, "HEADRACE_KAFKA_PASSWORD"),
        ({"kafka_security_protocol": "TLS"}, "kafka_security_protocol"),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "kafka_sasl_mechanism"),
        ({"kafka_key_file": "u.key"}, "HEADRACE_KAFKA_CERTIFICATE_FILE"),
    ],
)
def test_settings_that_could_not_work_are_refused(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        KafkaSettings.model_validate(settings)
