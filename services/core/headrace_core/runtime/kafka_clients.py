"""Kafka clients as the runtime wants them."""

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from headrace_core.settings import KafkaSettings


def idempotent_producer(settings: KafkaSettings) -> AIOKafkaProducer:
    """Acknowledged by all in-sync replicas, no duplicates by its own retries; not started."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        enable_idempotence=True,
        acks="all",
        max_batch_size=512 * 1024,
        linger_ms=0,
        request_timeout_ms=settings.kafka_request_timeout_ms,
    )


def partition_of(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key: murmur2, sign bit dropped, modulo."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
