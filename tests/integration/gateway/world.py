"""Builders of what is sent, and readers of what arrived."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from headrace_core.contracts import BehaviorEvent, FeatureLog
from headrace_core.stores.redis_views import ViewStore, ViewWrite
from redis.asyncio import Redis

from tests.conftest import Stores

EVENTS: Final = "behavior-events.v1"
LOGS: Final = "feature-logs.v1"
DEADLINE_S: Final = 30.0
PROBLEM: Final = "application/problem+json"

T = TypeVar("T")


def unique(prefix: str) -> str:
    """A name that no other test uses; the stores are shared."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def an_event(**fields: Any) -> dict[str, Any]:
    event = {
        "event_id": unique("e"),
        "user_id": unique("u"),
        "event_time": now_ms(),
        "action": "click",
        "item_id": "2002",
    }
    return {**event, **fields}


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/events", json={"events": list(events)})


async def eventually(condition: Callable[[], Awaitable[T]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """What the condition gives once it is truthy."""
    end = time.monotonic() + deadline_s
    while not (value := await condition()):
        assert time.monotonic() < end, f"{what} did not come true within {deadline_s} s"
        await asyncio.sleep(0.05)
    return value


class Written(NamedTuple):
    """A record as it stands in Kafka."""

    partition: int
    offset: int
    key: bytes
    value: bytes


async def written(stores: Stores, topic: str) -> list[Written]:
    """Everything in a topic up to its end of now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stores.kafka_address, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        # From the metadata of a started consumer; asking for one topic's partitions fetches them.
        await consumer._client.add_topic(topic)
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Written] = []
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [Written(r.partition, r.offset, r.key, r.value) for r in records]
        return found
    finally:
        await consumer.stop()


async def events_by_id(stores: Stores) -> dict[str, BehaviorEvent]:
    return {e.event_id: e for e in (BehaviorEvent.FromString(r.value) for r in await written(stores, EVENTS))}


async def the_log(stores: Stores, request_id: str) -> FeatureLog:
    """The feature log of a request, as soon as it is there."""

    async def arrived() -> FeatureLog | None:
        logs = (FeatureLog.FromString(r.value) for r in await written(stores, LOGS))
        return next((entry for entry in logs if entry.request_id == request_id), None)

    log = await eventually(arrived, f"the feature log of {request_id}")
    assert log is not None
    return log


async def show(stores: Stores, key: str, field: str, value: Any, version: int = 1) -> None:
    """Write a view as the feature worker does."""
    async with Redis.from_url(stores.redis_url) as redis:
        write = ViewWrite(key, field, version, now_ms(), msgspec.msgpack.encode(value))
        assert await ViewStore(redis).write([write]) == 1


def assert_problem(answer: httpx.Response, status: int, *says: str) -> dict[str, Any]:
    """A problem document that says so, and repeats the request's id."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    for words in says:
        assert words in problem["detail"], problem
    return problem
