"""Events on their way to Kafka, and through an outage of PostgreSQL."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from headrace_core.contracts import ControlEvent
from headrace_core.control.client import ControlClient

from tests.conftest import Stores
from tests.integration.control.eventually import eventually
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack


async def relayed(stores: Stores, sender: str, last: int) -> list[tuple[bytes, ControlEvent]]:
    """Key and message of each record of one sender, up to an offset."""
    consumer = AIOKafkaConsumer(
        "control-events.v1", bootstrap_servers=stores.kafka_address, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[tuple[bytes, ControlEvent]] = []
    try:
        async with asyncio.timeout(90):
            async for record in consumer:
                message = ControlEvent.FromString(record.value)
                if message.sender == sender:
                    found.append((record.key, message))
                    if message.offset == last:
                        return found
    finally:
        await consumer.stop()
    return found


async def test_every_event_reaches_kafka_in_order_through_kills(
    stores: Stores, control: ControlPlane, table: Any
) -> None:
    sender = uuid.uuid4().hex
    async with ControlClient(control.url, sender, patience_seconds=120) as client:
        offsets = []
        for round_ in range(3):
            calls = [client.append(f"relay-{n % 3}", str(n), context={"text": "t", "list": [1]}) for n in range(40)]
            offsets += await asyncio.gather(*calls)
            if round_ < 2:
                control.kill()
                await asyncio.to_thread(control.start)

    found = await relayed(stores, sender, max(offsets))

    firsts = list(dict.fromkeys(message.offset for _, message in found))
    assert firsts == sorted(offsets)
    for key, message in found:
        assert key.decode() == message.key
        assert dict(message.context) == {"text": "t", "list": "[1]"}
    stored = await table.fetchrow('SELECT version, create_time FROM control.events WHERE "offset" = $1', offsets[0])
    (sent,) = {(m.version, m.create_time) for _, m in found if m.offset == offsets[0]}
    assert sent == tuple(stored)


async def test_postgres_that_goes_away_is_told_and_waited_for(
    stores: Stores, control: ControlPlane, http: httpx.AsyncClient, client: ControlClient
) -> None:
    heard: list[str] = []

    async def listen() -> None:
        async for event in client.listen(keys=["outage"], after=0):
            heard.append(event.value)  # noqa: PERF401  # it never ends

    listening = asyncio.create_task(listen())
    await client.append("outage", "before")
    await asyncio.to_thread(stores.stack.stop, "postgres")
    try:
        refused = await http.post("/events", json={"key": "outage", "value": "never"})
        ready = await http.get(f"{control.url}/readyz")
        waiting = asyncio.create_task(client.append("outage", "during"))
    finally:
        await asyncio.to_thread(stores.stack.start, "postgres")

    await asyncio.wait_for(waiting, 60)
    await client.append("outage", "after")

    async def all_heard() -> bool:
        return heard == ["before", "during", "after"]

    await eventually(all_heard, "the listener hears what came after the outage")
    listening.cancel()
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert "retry-after" in refused.headers
    assert ready.status_code == 503

    async def leads() -> bool:
        return "headrace_control_leader 1.0" in (await http.get(f"{control.url}/metrics")).text

    await eventually(leads, "it leads again")
