"""Which cluster and which topics the stored offsets belong to.

A topic that was deleted and created again has the same name and other records; only its id tells. aiokafka speaks
Metadata up to version 5, ids come with version 10, so the one request is spelled out here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar
from uuid import UUID

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids that never change while the data is the same.

    Attributes:
        cluster: id of the cluster.
        topics: id of each topic by its name.
    """

    cluster: str
    topics: dict[str, str]


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka is untyped
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _MetadataResponse12(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest12(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    FLEXIBLE_VERSION: ClassVar[bool] = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse12
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _IdentityRequest(Request[_MetadataRequest12]):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest12]) -> _MetadataRequest12:
        return request_struct_class([(UUID(int=0), t, {}) for t in self._topics], False, False, {})


async def read_identity(settings: KafkaSettings, topics: Sequence[str]) -> Identity:
    """Ask Kafka who it is.

    Raises:
        aiokafka.errors.KafkaError: it cannot be reached, or a topic is missing.
    """
    client = AIOKafkaClient(
        **connection(settings), request_timeout_ms=settings.kafka_request_timeout_ms, client_id="headrace"
    )
    await client.bootstrap()
    try:
        response = await client.send(client.get_random_node(), _IdentityRequest(topics))
    finally:
        await client.close()
    found: dict[str, str] = {}
    for error_code, name, topic_id, *_ in response.topics:
        if error_code:
            error = for_code(error_code)
            raise KafkaError(f"{name}: {error.__name__}: {error.description}; headrace-init creates the topics")
        found[name] = str(topic_id)
    return Identity(response.cluster_id, found)
