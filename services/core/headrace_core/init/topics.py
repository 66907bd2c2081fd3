"""Creates the topics that are missing; never changes what would move data."""

import logging
from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from headrace_core.definitions.topics import Topic, TopicError
from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings

log = logging.getLogger(__name__)


async def apply_topics(settings: KafkaSettings, topics: Sequence[Topic], replication: int) -> list[str]:
    """Create missing topics and set retention and cleanup of those that are there; names of the created ones.

    Raises:
        TopicError: a topic exists with another number of partitions.
        aiokafka.errors.KafkaError: Kafka is away or refused.
    """
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=settings.kafka_request_timeout_ms)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        present = [t for t in topics if t.name in existing]
        if present:
            await _compare(admin, present)
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, t.name, configs=_configs(t)) for t in present]
            )
        return [t.name for t in topics if t.name not in existing and await _create(admin, t, replication)]
    finally:
        await admin.close()


async def _compare(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> None:
    wanted = {t.name: t.partitions for t in topics}
    for found in await admin.describe_topics(list(wanted)):
        name, count = found["topic"], len(found["partitions"])
        if count != wanted[name]:
            raise TopicError(
                f"{name} has {count} partitions, its definition says {wanted[name]}: a topic's count is fixed; "
                "growing it is a migration, see docs/operations/grow-a-topic.md"
            )


async def _create(admin: AIOKafkaAdminClient, topic: Topic, replication: int) -> bool:
    """Whether it was us who created it."""
    configs = _configs(topic) | {"min.insync.replicas": str(max(1, replication - 1))}
    response = await admin.create_topics([NewTopic(topic.name, topic.partitions, replication, topic_configs=configs)])
    for _, code, *message in response.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            return False  # another init job was a moment faster
        if code:
            raise error(f"{topic.name}: {message}")
    return True


def _configs(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": "2097152",
    }
