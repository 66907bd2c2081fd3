"""Kafka clients as the runtime wants them."""

import ssl
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from headrace_core.settings import KafkaSettings

#: Below the topics' max.message.bytes (2 MiB), so that a batch is taken even if nothing of it can be compressed.
_BATCH_BYTES: Final = 1_920 * 1024
#: Of what we produce: names and features repeat in every message (docs/adr/0003).
COMPRESSION: Final = "zstd"


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of aiokafka is told: where Kafka is, and how its listener is spoken to.

    Raises:
        OSError: a file of the settings can't be used.
    """
    told: dict[str, Any] = {
        "bootstrap_servers": settings.kafka,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls_context(settings),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        told |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return told


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Whom to trust and what to show, read anew from the files; None where the protocol has no TLS.

    Raises:
        OSError: a file can't be used; the message names it.
    """
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    authorities, certificate, key = settings.kafka_ca_file, settings.kafka_certificate_file, settings.kafka_key_file
    # The library's own errors name no file.
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise OSError(f"HEADRACE_KAFKA_CA_FILE {authorities}: {error}") from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise OSError(f"HEADRACE_KAFKA_CERTIFICATE_FILE {certificate}, …_KEY_FILE {key}: {error}") from error
    return context


def idempotent_producer(settings: KafkaSettings) -> AIOKafkaProducer:
    """Acknowledged by all in-sync replicas, no duplicates by its own retries; not started."""
    return AIOKafkaProducer(
        **connection(settings),
        enable_idempotence=True,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        linger_ms=0,
        compression_type=COMPRESSION,
        request_timeout_ms=settings.kafka_request_timeout_ms,
    )


def partition_of(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key: murmur2, sign bit dropped, modulo."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
