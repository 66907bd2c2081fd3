"""Events on their way into Kafka."""

import asyncio

import httpx
import pytest
from aiokafka.partitioner import murmur2
from headrace_core.contracts import ACTION_BY_NAME, Enrichment

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.world import EVENTS, an_event, events_by_id, now_ms, send, unique, written

pytestmark = pytest.mark.stack


async def test_accepted_event_is_in_kafka_as_it_was_sent(client: httpx.AsyncClient, stores: Stores) -> None:
    sent = an_event(
        item_type="video", category="news", page_id="100", request_id="r", position=3, view_id="v", dwell_ms=1_234,
        query="q", corrects="c", segment={"country": "France"}, attributes={"a": "b"},
    )  # fmt: skip
    before = now_ms()

    answer = await send(client, sent)

    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "rejected": []}
    event = (await events_by_id(stores))[sent["event_id"]]
    for name, value in sent.items():
        if name not in {"action", "segment", "attributes"}:
            assert getattr(event, name) == value, name
    assert event.action == ACTION_BY_NAME["click"]
    assert (dict(event.segment), dict(event.attributes)) == ({"country": "France"}, {"a": "b"})
    assert before <= event.ingest_time <= now_ms()


async def test_events_of_a_user_share_javas_partition_in_order(client: httpx.AsyncClient, stores: Stores) -> None:
    users = [unique("u") for _ in range(20)]
    events = [an_event(user_id=user, position=n) for n in range(10) for user in users]

    await send(client, *events[:100])
    await send(client, *events[100:])

    places: dict[str, list[tuple[int, int]]] = {}
    for record in await written(stores, EVENTS):
        places.setdefault(record.key.decode(), []).append((record.partition, record.offset))
    stored = await events_by_id(stores)
    for user in users:
        assert {p for p, _ in places[user]} == {(murmur2(user.encode()) & 0x7FFFFFFF) % 4}
        assert places[user] == sorted(places[user])
    assert [stored[e["event_id"]].position for e in events] == [n for n in range(10) for _ in users]


async def test_segment_and_category_come_from_the_catalog(client: httpx.AsyncClient, stores: Stores) -> None:
    user, item = unique("u"), unique("i")
    await client.put(f"/v1/users/{user}", json={"country": "China", "gender": "female", "attributes": {"tier": 1}})
    await client.put(f"/v1/items/{item}", json={"item_type": "ad", "category": "shoes"})
    known, told, unknown = (
        an_event(user_id=user, item_id=item),
        an_event(user_id=user, item_id=item, category="boots", segment={"country": "France"}),
        an_event(item_id=unique("i")),
    )

    await send(client, known, told, unknown)

    stored = await events_by_id(stores)
    first, second, third = (stored[e["event_id"]] for e in (known, told, unknown))
    assert dict(first.segment) == {"country": "China", "gender": "female", "tier": "1"}
    assert (first.item_type, first.category) == ("ad", "shoes")
    assert dict(second.segment) == {"country": "France", "gender": "female", "tier": "1"}
    assert (second.item_type, second.category) == ("ad", "boots")
    assert (dict(third.segment), third.category) == ({}, "")
    assert {e.enrichment for e in (first, second, third)} == {Enrichment.ENRICHMENT_COMPLETE}


async def test_enrichment_is_called_missing_when_redis_is_away(stores: Stores, tmp_path: object) -> None:
    event = an_event(category="told")
    nowhere = stores.environment() | {
        "HEADRACE_REDIS": "redis://127.0.0.1:1/0",
        "HEADRACE_GATEWAY_STARTUP_WAIT_MS": "500",
    }
    gateway = GatewayProcess(nowhere, tmp_path)  # type: ignore[arg-type]  # pytest's own path
    gateway.start()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            answer = await send(client, event)
            ready = (await client.get("/readyz")).json()
            metrics = (await client.get("/metrics")).text
    finally:
        gateway.stop()

    assert answer.json() == {"accepted": 1, "rejected": []}
    stored = (await events_by_id(stores))[event["event_id"]]
    assert stored.enrichment == Enrichment.ENRICHMENT_MISSING
    assert stored.category == "told"
    assert ready["status"] == "ready"
    assert ready["dependencies"]["kafka"] == "up"
    assert ready["dependencies"]["redis"] != "up"
    assert 'headrace_degraded_total{reason="enrichment_missing"} 1.0' in metrics


async def test_calls_at_once_all_arrive_once(client: httpx.AsyncClient, stores: Stores) -> None:
    calls = [[an_event() for _ in range(25)] for _ in range(40)]

    answers = await asyncio.gather(*(send(client, *events) for events in calls))

    assert {a.status_code for a in answers} == {202}
    ids = [e["event_id"] for events in calls for e in events]
    keys = {e["user_id"].encode() for events in calls for e in events}
    assert set(ids) <= (await events_by_id(stores)).keys()
    assert len([r for r in await written(stores, EVENTS) if r.key in keys]) == len(ids)


async def test_wrong_clock_of_a_client_is_corrected(client: httpx.AsyncClient, stores: Stores) -> None:
    ahead = now_ms() + 7_200_000
    event = an_event(event_time=ahead - 60_000, sent_at=ahead)

    answer = await send(client, event)

    assert answer.json()["accepted"] == 1
    stored = (await events_by_id(stores))[event["event_id"]]
    assert abs(stored.event_time - (stored.ingest_time - 60_000)) < 5_000
