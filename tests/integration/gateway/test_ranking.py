"""Recommendations and ranking, and the log of what served them."""

import json
from typing import Any

import httpx
import pytest
from headrace_core.definitions.features import load_features
from headrace_gateway.ranking.in_force import in_force
from headrace_gateway.uuid7 import time_of

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.world import now_ms, show, the_log, unique
from tests.unit.gateway.test_in_force import FOLDER

pytestmark = pytest.mark.stack

DEFINITIONS = in_force(load_features(FOLDER))
(LAST_MINUTES,) = DEFINITIONS.user_fields


async def put_items(client: httpx.AsyncClient, *items: dict[str, Any]) -> None:
    answer = await client.post("/v1/items:batch", json={"items": list(items)})
    assert answer.status_code == 202, answer.text


async def put_user(client: httpx.AsyncClient, **fields: str) -> str:
    user = unique("u")
    await client.put(f"/v1/users/{user}", json={"gender": "male", **fields})
    return user


async def show_list(stores: Stores, feature: str, key: str, *rows: list[Any], definition: str = "") -> None:
    field = definition or DEFINITIONS.ranked[feature]
    await show(stores, f"top:{feature}:{key}", field, {"items": list(rows), "as_of": now_ms()})


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return [item["item_id"] for item in answer.json()["items"]]


async def test_unknown_user_gets_new_items_and_hears_that_no_model_answers(client: httpx.AsyncClient) -> None:
    kind = unique("kind")
    await put_items(client, *({"item_id": f"{kind}-{n}", "item_type": kind} for n in range(5)))

    answer = await client.post(
        "/v1/recommend", json={"user_id": unique("nobody"), "page_id": "1", "item_type": kind, "count": 3}
    )

    assert ids(answer) == [f"{kind}-{n}" for n in (4, 3, 2)]
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    assert abs(time_of(body["request_id"]) - now_ms()) < 60_000
    assert (body["model"], body["model_version"], body["degraded"]) == ("", 0, ["model_unavailable"])
    assert body["feature_set_version"] == DEFINITIONS.version
    assert [i["position"] for i in body["items"]] == [0, 1, 2]
    assert all(0 < i["score"] < 1 and i["source"] == "catalog" for i in body["items"])


async def test_what_the_segment_clicks_comes_first(client: httpx.AsyncClient, stores: Stores) -> None:
    country, page = unique("country"), unique("page")
    user, other = await put_user(client, country=country), await put_user(client, country=unique("country"))
    hot, warm, cold = (unique("ad") for _ in range(3))
    await put_items(client, *({"item_id": i, "item_type": "ad", "category": page} for i in (hot, warm, cold)))
    await show_list(stores, "top_ads_by_segment", f"{country}|male|{page}", [hot, 9, 9, 0], [warm, 2, 2, 0])
    asked = {"page_id": page, "item_type": "ad", "categories": [page]}

    mine = await client.post("/v1/recommend", json={"user_id": user, **asked})
    theirs = await client.post("/v1/recommend", json={"user_id": other, **asked})

    assert ids(mine) == [hot, warm, cold]
    assert [i["source"] for i in mine.json()["items"]] == ["top_ads_by_segment"] * 2 + ["catalog"]
    scores = [i["score"] for i in mine.json()["items"]]
    assert scores == sorted(scores, reverse=True)
    assert {i["source"] for i in theirs.json()["items"]} == {"catalog"}


async def test_list_of_another_definition_is_never_served(client: httpx.AsyncClient, stores: Stores) -> None:
    country, page, ad = unique("country"), unique("page"), unique("ad")
    user = await put_user(client, country=country)
    key = f"{country}|male|{page}"
    await show_list(stores, "top_ads_by_segment", key, [ad, 9, 9, 0], definition="0ld0ld00")
    await show(stores, f"u:{user}", "user_last_5_minutes@0ld0ld00", [{"event_time": now_ms(), "item_id": "x"}])

    answer = await client.post("/v1/recommend", json={"user_id": user, "page_id": page, "categories": []})
    listed = await client.get(f"/v1/features/top/top_ads_by_segment/{country}%7Cmale%7C{page}")
    features = await client.get(f"/v1/features/users/{user}")

    assert ids(answer) == []
    assert listed.json()["items"] == []
    assert features.json()["items"] == []


async def test_click_rate_orders_a_category(client: httpx.AsyncClient, stores: Stores) -> None:
    category = unique("category")
    good, bad, new = (unique("i") for _ in range(3))
    await put_items(client, *({"item_id": i, "item_type": "goods", "category": category} for i in (bad, good, new)))
    rows = [[good, 0.3, 40, 100], [bad, 0.01, 0, 100]]
    await show_list(stores, "item_click_rate_by_category", category, *rows)
    asked = {"user_id": "u", "page_id": "1"}

    recommended = await client.post("/v1/recommend", json={**asked, "categories": [category]})
    ranked = await client.post("/v1/rank", json={**asked, "candidates": [bad, "nobody", new, good]})

    assert ids(recommended) == [good, new, bad]
    assert ids(ranked) == [good, "nobody", new, bad]
    assert {i["source"] for i in ranked.json()["items"]} == {"candidates"}


async def test_recent_categories_of_the_user_are_looked_at(client: httpx.AsyncClient, stores: Stores) -> None:
    user, category, item = unique("u"), unique("category"), unique("i")
    await put_items(client, {"item_id": item, "item_type": unique("kind"), "category": category})
    await show_list(stores, "item_click_rate_by_category", category, [item, 0.9, 90, 100])
    entry = {"event_time": now_ms(), "item_id": "x", "category": category, "action": "view"}
    await show(stores, f"u:{user}", LAST_MINUTES.redis, [entry])

    answer = await client.post("/v1/recommend", json={"user_id": user, "page_id": "1", "count": 1})

    assert ids(answer) == [item]
    assert answer.json()["items"][0]["source"] == "item_click_rate_by_category"


async def test_unavailable_and_excluded_items_are_not_recommended(client: httpx.AsyncClient, stores: Stores) -> None:
    category = unique("category")
    items = [unique("i") for _ in range(4)]
    await put_items(client, *({"item_id": i, "category": category, "available": i != items[0]} for i in items))
    await show_list(stores, "item_click_rate_by_category", category, *([i, 0.5, 50, 100] for i in items[:2]))

    answer = await client.post(
        "/v1/recommend",
        json={"user_id": "u", "page_id": "1", "categories": [category], "exclude": [items[1], items[2]]},
    )

    assert ids(answer) == [items[3]]


async def test_only_items_of_the_wanted_type_and_categories_come(client: httpx.AsyncClient) -> None:
    kind, shoes, hats = unique("kind"), unique("shoes"), unique("hats")
    await put_items(
        client,
        {"item_id": f"{kind}-1", "item_type": kind, "category": shoes},
        {"item_id": f"{kind}-2", "item_type": kind, "category": hats},
        {"item_id": f"{kind}-3", "item_type": "goods", "category": shoes},
    )
    asked = {"user_id": "u", "page_id": "1", "item_type": kind, "categories": [shoes]}

    recommended = await client.post("/v1/recommend", json=asked)
    candidates = [f"{kind}-{n}" for n in (1, 2, 3)] + ["nobody"]
    ranked = await client.post("/v1/rank", json={**asked, "candidates": candidates})

    assert ids(recommended) == [f"{kind}-1"]
    assert ids(ranked) == [f"{kind}-1", "nobody"]


@pytest.mark.parametrize("count", [1, 100, None])
async def test_count_bounds_the_answer(client: httpx.AsyncClient, count: int | None) -> None:
    kind = unique("kind")
    made = [f"{kind}-{n}" for n in range(120)]
    await put_items(client, *({"item_id": i, "item_type": kind, "category": f"c{n}"} for n, i in enumerate(made)))
    asked = {"user_id": "u", "page_id": "1", "item_type": kind} | ({"count": count} if count else {})

    recommended = await client.post("/v1/recommend", json=asked)
    ranked = await client.post("/v1/rank", json={**asked, "candidates": made})

    assert len(set(ids(recommended))) == (count or 10)
    assert ids(ranked) == made[:count]


async def test_all_500_candidates_come_back_once(client: httpx.AsyncClient) -> None:
    candidates = [unique("i") for _ in range(500)]

    answer = await client.post("/v1/rank", json={"user_id": "u", "page_id": "1", "candidates": candidates})
    repeated = await client.post("/v1/rank", json={"user_id": "u", "page_id": "1", "candidates": ["a", "b", "a"]})
    none = await client.post("/v1/rank", json={"user_id": "u", "page_id": "1", "candidates": []})

    assert sorted(ids(answer)) == sorted(candidates)
    assert ids(repeated) == ["a", "b"]
    assert ids(none) == []


async def test_feature_log_holds_what_served(client: httpx.AsyncClient, stores: Stores) -> None:
    user = await put_user(client, country="China")
    known, unknown = unique("i"), unique("i")
    await put_items(
        client, {"item_id": known, "item_type": "ad", "category": "shoes", "attributes": {"price": 12.5, "new": True}}
    )
    now = now_ms()
    young = {"event_time": now, "item_id": "a", "item_type": "ad", "category": "c", "action": "click", "dwell_ms": 7}
    old = {**young, "event_time": now - 301_000}
    await show(stores, f"u:{user}", LAST_MINUTES.redis, [old, young], version=12)

    answer = await client.post(
        "/v1/rank",
        json={
            "user_id": user,
            "page_id": "100",
            "candidates": [known, unknown],
            "context": {"device": "phone", "n": 3},
        },
    )
    features = await client.get(f"/v1/features/users/{user}")
    log = await the_log(stores, answer.json()["request_id"])

    body = answer.json()
    assert (log.user_id, log.page_id, log.model, log.model_version) == (user, "100", "", 0)
    assert log.feature_set_version == body["feature_set_version"] == DEFINITIONS.version
    assert abs(log.event_time - time_of(log.request_id)) < 5_000
    assert json.loads(log.user_features) == {"country": "China", "gender": "male", "user_last_5_minutes": [young]}
    (current,) = features.json()["items"]
    assert (current["feature"], current["value"], current["version"]) == ("user_last_5_minutes", [young], 12)
    assert current["definition"] == LAST_MINUTES.definition
    context = json.loads(log.context_features)
    assert context == {"device": "phone", "n": 3, "page_id": "100", "hour": log.event_time // 3_600_000 % 24}
    assert [(i.item_id, i.position, i.score, i.source) for i in log.items] == [
        (i["item_id"], i["position"], i["score"], i["source"]) for i in body["items"]
    ]
    assert {i.propensity for i in log.items} == {1.0}
    logged = {i.item_id: json.loads(i.features) for i in log.items}
    assert logged[known] == {"price": "12.5", "new": "true", "item_type": "ad", "category": "shoes"}
    assert logged[unknown] == {}
    assert [(f.what, f.reason) for f in log.fallbacks] == [("model", "model_unavailable")]


async def test_foreign_bytes_in_redis_are_as_good_as_nothing(client: httpx.AsyncClient, stores: Stores) -> None:
    user, category = await put_user(client, country="China"), unique("category")
    await show(stores, f"u:{user}", LAST_MINUTES.redis, {"nested": [[{"too": "deep"}]]})
    await show_list(stores, "item_click_rate_by_category", category, ["no", "numbers"])

    answer = await client.post("/v1/recommend", json={"user_id": user, "page_id": "1", "categories": [category]})
    log = await the_log(stores, answer.json()["request_id"])

    assert ids(answer) == []
    assert json.loads(log.user_features) == {"country": "China", "gender": "male"}


async def test_items_are_recommended_again_after_a_restart_without_redis(
    stores: Stores, tmp_path: Any, client: httpx.AsyncClient
) -> None:
    kind = unique("kind")
    await put_items(
        client,
        {"item_id": f"{kind}-1", "item_type": kind, "category": "c"},
        {"item_id": f"{kind}-2", "item_type": kind, "available": False},
    )
    gateway = GatewayProcess(
        stores.environment() | {"HEADRACE_REDIS": "redis://127.0.0.1:1/0", "HEADRACE_GATEWAY_STARTUP_WAIT_MS": "2000"},
        tmp_path,
    )
    gateway.start()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as other:
            asked = {"user_id": "u", "page_id": "1", "item_type": kind}
            recommended = await other.post("/v1/recommend", json=asked)
            features = await other.get("/v1/features/users/u")
    finally:
        gateway.stop()
    log = await the_log(stores, recommended.json()["request_id"])

    assert ids(recommended) == [f"{kind}-1"]
    assert recommended.json()["degraded"] == ["model_unavailable", "redis_unavailable"]
    assert {f.what for f in log.fallbacks} == {"model", "user features", "ranked lists", "item features"}
    assert features.status_code == 503
    assert int(features.headers["retry-after"]) >= 1
