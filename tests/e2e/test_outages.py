"""The platform under traffic while each of its stores is away: nothing accepted is lost, and it heals by itself."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from headrace_core.contracts import BehaviorEvent
from headrace_core.stores.redis_views import top_key, unpack
from headrace_stack.layout import Layout, checkout
from headrace_stack.stack import Stack
from redis.asyncio import Redis

from load_tests.streams.harness import ends, is_consumed
from load_tests.streams.naive_features import click_rates, distinct, top_ads

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

WINDOW_MS = 8_000
DEADLINE_S = 150.0
ADS = [f"ad{n}" for n in range(6)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What takes events and answers, with a short attribution window and the shipped definitions."""
    services = ("gateway", "feature-worker", "sample-joiner")
    running = Stack(Layout(tmp_path_factory.mktemp("outages") / "home"), "demo", services=services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_ATTRIBUTION_WINDOW_MS", str(WINDOW_MS))
        patch.setenv("HEADRACE_DEFINITIONS", str(checkout() / "definitions"))
        running.up()
        try:
            yield running
        finally:
            running.down()


@dataclass
class Crowd:
    """Users who ask, look and click; every event is sent again until it is accepted."""

    client: httpx.AsyncClient
    rng: random.Random = field(default_factory=lambda: random.Random(11))
    shown: dict[tuple[str, str], bool] = field(default_factory=dict)  # (request_id, item_id): clicked
    statuses: set[tuple[str, int]] = field(default_factory=set)
    degraded: set[str] = field(default_factory=set)
    rounds: int = 0
    going: bool = True

    async def visit(self) -> None:
        """Ask, see, perhaps click."""
        user = f"u{self.rng.randrange(40)}"
        body = {"user_id": user, "page_id": "100", "count": 3}
        path = self.rng.choice(["/v1/recommend", "/v1/rank"])
        answer = await self.client.post(path, json=body | ({"candidates": ADS} if path == "/v1/rank" else {}))
        self.statuses.add((path, answer.status_code))
        if answer.status_code != 200:
            return
        told = answer.json()
        self.degraded |= set(told["degraded"])
        events = []
        for item in told["items"]:
            event = {"user_id": user, "event_time": int(time.time() * 1000), "item_id": item["item_id"],
                     "item_type": "ad", "page_id": "100", "request_id": told["request_id"]}  # fmt: skip
            clicked = self.rng.random() < 0.3
            self.shown[told["request_id"], item["item_id"]] = clicked
            events.append({**event, "event_id": str(uuid.uuid4()), "action": "impression"})
            if clicked:
                events.append({**event, "event_id": str(uuid.uuid4()), "action": "click"})
        while events:
            sent = await self.client.post("/v1/events", json={"events": events})
            self.statuses.add(("/v1/events", sent.status_code))
            if sent.status_code == 202:
                break
        self.rounds += 1

    async def walk(self) -> None:
        while self.going:
            await self.visit()


@asynccontextmanager
async def crowd(stack: Stack) -> AsyncIterator[Crowd]:
    async with httpx.AsyncClient(base_url=stack.describe()["gateway"], timeout=30) as client:
        people = Crowd(client)
        walks = [asyncio.create_task(people.walk()) for _ in range(4)]
        try:
            yield people
        finally:
            people.going = False
            await asyncio.gather(*walks)


async def eventually(condition: Any, what: str, deadline_s: float = DEADLINE_S) -> Any:
    end = time.monotonic() + deadline_s
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < end, f"{what} did not come true within {deadline_s} s"
        await asyncio.sleep(0.2)


async def goes_on(people: Crowd, rounds: int = 40) -> None:
    start = people.rounds

    async def more() -> bool:
        return people.rounds >= start + rounds

    await eventually(more, "traffic that goes on")


@pytest.mark.parametrize("outage_s", [pytest.param(4, id="4 s"), pytest.param(20, id="20 s", marks=pytest.mark.long)])
async def test_nothing_is_lost_while_each_store_is_away(stack: Stack, outage_s: float) -> None:
    told = stack.describe()
    async with httpx.AsyncClient(base_url=told["gateway"], timeout=30) as client:
        users = [{"user_id": f"u{n}", "country": "China", "gender": "male"} for n in range(40)]
        items = [{"item_id": i, "item_type": "ad", "category": "shoes"} for i in ADS]
        assert (await client.post("/v1/users:batch", json={"users": users})).status_code == 202
        assert (await client.post("/v1/items:batch", json={"items": items})).status_code == 202

    async with crowd(stack) as people:
        for store in ("kafka", "postgres", "valkey"):
            await goes_on(people)
            await asyncio.to_thread(stack.stop, store)
            await asyncio.sleep(outage_s)  # the outage itself; nothing waits for its end but this
            await asyncio.to_thread(stack.start, store)
            await asyncio.to_thread(stack.wait_ready, store)
        await goes_on(people, 200)

    assert {status for path, status in people.statuses if path != "/v1/events"} == {200}
    assert {status for path, status in people.statuses if path == "/v1/events"} <= {202, 503, 429}
    assert "redis_unavailable" in people.degraded

    until = await ends(told["kafka"])
    connection = await asyncpg.connect(told["postgres"])
    try:

        async def settled() -> dict[str, int] | None:
            if not await is_consumed(told["postgres"], "sample-joiner", until):
                return None
            row = await connection.fetchrow(
                "SELECT sum(impressions)::int AS impressions, sum(duplicate)::int AS duplicate, sum(pending)::int AS pending, "
                "sum(joined)::int AS joined, sum(orphaned)::int AS orphaned FROM samples.accounting"
            )
            assert row is not None
            # A window may end before the log of an answer is in Kafka: its impressions are orphans until then.
            done = row["pending"] == 0 and row["joined"] >= len(people.shown)
            return dict(row) if done else None

        sums = await eventually(settled, "settled samples")
        rows = await connection.fetch("SELECT request_id::text, item_id, label FROM samples.current")
    finally:
        await connection.close()
    labels = {(r["request_id"], r["item_id"]): bool(r["label"]) for r in rows}
    mine = {key: clicked for key, clicked in labels.items() if key in people.shown}
    assert mine == people.shown
    assert sums["orphaned"] == 0

    events = distinct([BehaviorEvent.FromString(v) for v in await stored(told["kafka"])])

    async def lists_are_right() -> bool:
        redis = Redis.from_url(told["redis"])
        try:
            rates = await the_list(redis, top_key("item_click_rate_by_category", ["shoes"]))
            ads = await the_list(redis, top_key("top_ads_by_segment", ["China", "male", "100"]))
        finally:
            await redis.aclose()
        known = [e for e in events if e.segment]
        return (rates["items"], ads["items"]) == (
            click_rates(events, "shoes", rates["as_of"]), top_ads(known, "China", "male", "100", ads["as_of"]),
        )  # fmt: skip

    await eventually(lists_are_right, "lists as computed from all events")


async def the_list(redis: "Redis", key: str) -> dict[str, Any]:
    stored_value: dict[bytes, bytes] = await redis.hgetall(key)  # type: ignore[assignment]  # the client does not decode
    assert stored_value, f"{key} is not there"
    value: dict[str, Any] = msgspec.msgpack.decode(unpack(next(iter(stored_value.values()))).payload)
    return value | {"items": [tuple(row) for row in value["items"]]}


async def stored(kafka: str) -> list[bytes]:
    """Every behaviour event in Kafka."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition("behavior-events.v1", n) for n in range(4)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        values = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [r.value for r in records]
    finally:
        await consumer.stop()
    return values
