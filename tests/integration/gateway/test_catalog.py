"""Users and items: in Kafka first, then in Redis under their offsets."""

import httpx
import pytest
from headrace_core.contracts import Item, User
from headrace_core.stores.redis_views import View, unpack
from redis.asyncio import Redis

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.world import Written, assert_problem, unique, written

pytestmark = pytest.mark.stack


async def in_redis(stores: Stores, key: str) -> View:
    async with Redis.from_url(stores.redis_url) as redis:
        raw = await redis.hget(key, "entry")
    assert isinstance(raw, bytes)
    return unpack(raw)


async def in_kafka(stores: Stores, topic: str, key: str) -> list[Written]:
    return [r for r in await written(stores, topic) if r.key == key.encode()]


async def test_user_shows_in_kafka_and_redis_under_his_offset(client: httpx.AsyncClient, stores: Stores) -> None:
    user = unique("u")
    body = {"country": "China", "gender": "male", "city": "杭州", "attributes": {"vip": True, "age": 31, "rate": 0.5}}

    answer = await client.put(f"/v1/users/{user}", json=body)

    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    (record,) = await in_kafka(stores, "users.v1", user)
    assert answer.json() == {"accepted": 1, "versions": [record.offset]}
    view = await in_redis(stores, f"cat:u:{user}")
    assert (view.version, view.payload) == (record.offset, record.value)
    entry = User.FromString(view.payload)
    assert (entry.user_id, entry.country, entry.gender, entry.city) == (user, "China", "male", "杭州")
    assert dict(entry.attributes) == {"vip": "true", "age": "31", "rate": "0.5"}
    assert entry.update_time == view.event_time > 0


async def test_batch_of_items_shows_each_under_its_own_offset(client: httpx.AsyncClient, stores: Stores) -> None:
    items = [unique("i") for _ in range(50)]

    answer = await client.post(
        "/v1/items:batch", json={"items": [{"item_id": i, "category": f"c{n}"} for n, i in enumerate(items)]}
    )

    assert answer.status_code == 202
    versions = answer.json()["versions"]
    records = {r.key.decode(): r for r in await written(stores, "items.v1")}
    assert versions == [records[i].offset for i in items]
    for n, (item, version) in enumerate(zip(items, versions, strict=True)):
        view = await in_redis(stores, f"cat:i:{item}")
        assert view.version == version
        assert Item.FromString(view.payload).category == f"c{n}"


async def test_later_entry_replaces_the_former_whole_also_within_a_batch(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    item = unique("i")
    await client.put(f"/v1/items/{item}", json={"title": "old", "category": "a"})

    answer = await client.post(
        "/v1/items:batch", json={"items": [{"item_id": item, "title": "newer"}, {"item_id": item, "category": "b"}]}
    )

    view = await in_redis(stores, f"cat:i:{item}")
    entry = Item.FromString(view.payload)
    assert (entry.title, entry.category) == ("", "b")
    assert view.version == answer.json()["versions"][1] == max(answer.json()["versions"])


async def test_id_may_hold_a_slash_and_what_urls_escape(client: httpx.AsyncClient, stores: Stores) -> None:
    item = unique("campaign/7?ü%|")

    answer = await client.put("/v1/items/" + httpx.QueryParams({"": item}).__str__()[1:], json={"item_id": item})

    assert answer.status_code == 202
    assert Item.FromString((await in_redis(stores, f"cat:i:{item}")).payload).item_id == item


async def test_entry_is_seen_by_the_next_request(client: httpx.AsyncClient) -> None:
    item, kind = unique("i"), unique("kind")
    asked = {"user_id": "u", "page_id": "p", "item_type": kind}

    before = await client.post("/v1/recommend", json=asked)
    await client.put(f"/v1/items/{item}", json={"item_type": kind})
    after = await client.post("/v1/recommend", json=asked)
    await client.put(f"/v1/items/{item}", json={"item_type": kind, "available": False})
    gone = await client.post("/v1/recommend", json=asked)

    assert [len(a.json()["items"]) for a in (before, after, gone)] == [0, 1, 0]


async def test_entry_that_redis_can_not_show_is_503_and_shown_when_sent_again(stores: Stores, tmp_path: object) -> None:
    user = unique("u")
    nowhere = stores.environment() | {
        "HEADRACE_REDIS": "redis://127.0.0.1:1/0",
        "HEADRACE_GATEWAY_STARTUP_WAIT_MS": "500",
    }
    gateway = GatewayProcess(nowhere, tmp_path)  # type: ignore[arg-type]  # pytest's own path
    gateway.start()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            answer = await client.put(f"/v1/users/{user}", json={"country": "China"})
    finally:
        gateway.stop()

    assert_problem(answer, 503, "Kafka has the entries", "sending again is harmless")
    assert int(answer.headers["retry-after"]) >= 1
    assert len(await in_kafka(stores, "users.v1", user)) == 1
