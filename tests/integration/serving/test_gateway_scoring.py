"""The gateway scores by the deployed model: follows it, logs what it asked with, and answers without it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from headrace_core.contracts import FeatureLog
from headrace_core.definitions.features import load_features
from headrace_core.learning.inputs import InputColumns
from headrace_core.serving.client import Aspired
from headrace_core.stores.redis_views import top_key
from headrace_gateway.ranking.in_force import in_force
from headrace_gateway.ranking.lists import CATEGORY_LIST, SEGMENT_LIST

from load_tests.gateway.process import GatewayProcess
from load_tests.serving.process import ModelServerProcess, ServiceProcess
from load_tests.serving.saved_models import Weights, expected
from tests.conftest import Stores
from tests.integration.gateway.world import show, the_log
from tests.integration.serving.conftest import a_world
from tests.integration.serving.world import ROOT, World, eventually, item, unique

pytestmark = pytest.mark.stack


class Shop:
    """A gateway with items of its own type.

    Attributes:
        items: in the catalog, i1 to i<count> with this test's prefix.
    """

    def __init__(self, world: World, gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
        self.world, self.gateway, self.client = world, gateway, client
        self.kind = unique("t")

    async def stock(self, *numbers: int) -> None:
        items = [{"item_id": f"i{n}", "item_type": self.kind, "category": self.kind} for n in numbers]
        answer = await self.client.post("/v1/items:batch", json={"items": items})
        assert answer.status_code == 202, answer.text

    async def knows(self, number: int) -> None:
        """Wait until the gateway's snapshot has all that was stocked; it comes partition by partition."""

        async def all_there() -> bool:
            return len((await self.recommend(count=number))["items"]) == number

        await eventually(all_there, f"{number} items")

    async def recommend(self, **asked: Any) -> dict[str, Any]:
        body = {"user_id": "u1", "page_id": "100", "item_type": self.kind, **asked}
        answer = await self.client.post("/v1/recommend", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def served_by(self, version: int, **asked: Any) -> dict[str, Any]:
        async def answer() -> dict[str, Any] | None:
            found = await self.recommend(**asked)
            return found if found["model_version"] == version else None

        found = await eventually(answer, f"an answer by version {version}")
        assert found is not None
        return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [i["item_id"] for i in answer["items"]]


@asynccontextmanager
async def a_shop(world: World, folder: Path, **settings: str) -> AsyncIterator[Shop]:
    # A machine that is busy makes no test fail: the deadline has a test of its own.
    told = world.environment() | {"HEADRACE_PREDICT_DEADLINE_MS": "20000"} | settings
    gateway = GatewayProcess(told, folder)
    await asyncio.to_thread(gateway.start)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            yield Shop(world, gateway, client)
    finally:
        await asyncio.to_thread(gateway.stop)


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with a_shop(world, tmp_path) as made:
        yield made


def scores_by(weights: Weights, log: FeatureLog, columns: InputColumns) -> Sequence[float]:
    """What a version says of the features that were logged."""
    made = columns.from_request(
        json.loads(log.user_features), json.loads(log.context_features), log.user_id, log.page_id,
        [(i.item_id, json.loads(i.features)) for i in log.items],
    )  # fmt: skip
    return [float(s) for s in expected(weights, made)]


async def test_without_model_popular_items_are_served_and_said_so(shop: Shop) -> None:
    await shop.stock(1, 2)

    async def heard() -> dict[str, Any] | None:
        found = await shop.recommend()
        return found if found["degraded"] != ["model_unavailable"] else None  # until the control plane was heard

    answer = await eventually(heard, "that no version is deployed")

    assert answer is not None
    assert (answer["model"], answer["model_version"], answer["degraded"]) == ("", 0, ["no_model"])
    assert sorted(ids(answer)) == ["i1", "i2"]


async def test_deployed_version_ranks_and_the_next_one_takes_over(shop: Shop) -> None:
    await shop.stock(1, 2, 3)
    up = Weights(rows={item(1): 1.0, item(2): 2.0, item(3): 3.0})
    down = Weights(rows={item(1): 0.3, item(2): 0.2, item(3): 0.1})

    first = await shop.served_by(await shop.world.serve(up))
    second = await shop.served_by(await shop.world.serve(down))

    assert (ids(first), first["model"], first["degraded"]) == (["i3", "i2", "i1"], shop.world.model.name, [])
    assert (ids(second), second["degraded"]) == (["i1", "i2", "i3"], [])
    assert [i["score"] for i in first["items"]] == pytest.approx([1 / (1 + np.exp(-x)) for x in (3.0, 2.0, 1.0)])


async def test_ranking_of_the_callers_candidates_is_the_models(shop: Shop) -> None:
    version = await shop.world.serve(Weights(rows={item(1): -1.0, item(2): 1.0}))
    await shop.served_by(version)

    answer = await shop.client.post(
        "/v1/rank", json={"user_id": "u1", "page_id": "100", "candidates": ["i1", "i77", "i2"]}
    )

    assert ids(answer.json()) == ["i2", "i77", "i1"]
    assert answer.json()["model_version"] == version


async def test_log_holds_the_version_that_scored_and_the_features_it_was_asked_with(shop: Shop) -> None:
    stores, page = shop.world.stores, unique("p")
    await shop.stock(1, 2, 3)
    features = in_force(load_features(ROOT / "definitions" / "features"))
    # Where the click rate counts, and the lists tell it of one item.
    weights = Weights(rows={item(1): 0.5}, rate=10.0)
    user = unique("u")
    await shop.client.put(f"/v1/users/{user}", json={"city": "Shanghai"})
    rates = {"items": [["i2", 0.25, 30.0, 120.0]], "as_of": 1}
    await show(stores, top_key(CATEGORY_LIST, [shop.kind]), features.ranked[CATEGORY_LIST], rates)
    version = await shop.world.serve(weights)

    answer = await shop.served_by(version, user_id=user, page_id=page, context={"device": "tv"})
    log = await the_log(stores, answer["request_id"])

    assert (log.model, log.model_version) == (shop.world.model.name, version)
    assert [f.what for f in log.fallbacks] == []
    told = {i.item_id: json.loads(i.features) for i in log.items}
    assert told["i2"] == {
        "item_type": shop.kind, "category": shop.kind, "click_rate": {"rate": 0.25, "clicks": 30.0, "impressions": 120.0},
    }  # fmt: skip
    assert told["i1"] == {"item_type": shop.kind, "category": shop.kind}
    scores = scores_by(weights, log, InputColumns(shop.world.model.inputs))
    assert [i.score for i in log.items] == pytest.approx(scores, rel=1e-6)
    assert [i.item_id for i in log.items] == ids(answer) == ["i2", "i1", "i3"]
    assert [i.propensity for i in log.items] == [1.0, 1.0, 1.0]


async def test_rank_in_the_segments_list_is_logged(shop: Shop) -> None:
    stores, page, country, user = shop.world.stores, unique("p"), unique("c"), unique("u")
    features = in_force(load_features(ROOT / "definitions" / "features"))
    await shop.client.put(f"/v1/users/{user}", json={"country": country, "gender": "male"})
    listed = {"items": [["i8", 9.0, 9.0, 0.0], ["i9", 4.0, 4.0, 0.0]], "as_of": 1}
    await show(stores, top_key(SEGMENT_LIST, [country, "male", page]), features.ranked[SEGMENT_LIST], listed)
    version = await shop.world.serve(Weights(rows={item(9): 1.0}))

    answer = await shop.served_by(version, user_id=user, page_id=page, item_type="ad")
    log = await the_log(stores, answer["request_id"])

    told = {i.item_id: json.loads(i.features) for i in log.items}
    assert (told["i8"]["segment_rank"], told["i9"]["segment_rank"]) == (1, 2)
    assert ids(answer)[0] == "i9"


async def test_version_that_the_server_does_not_have_is_replaced_by_the_one_before(shop: Shop) -> None:
    await shop.stock(1)
    world = shop.world
    first = await world.serve(Weights(bias=-1.0))
    await shop.served_by(first)
    second = await world.serve(Weights(bias=1.0))
    await shop.served_by(second)
    await world.workers.finish()

    # A server that lags behind has the old one alone.
    await world.client.reload({world.model.name: Aspired(str(world.models / world.model.name), (first,))})
    answer = await shop.served_by(first)

    assert (answer["degraded"], answer["items"][0]["score"]) == ([], pytest.approx(1 / (1 + np.e)))


@pytest.fixture
def own_model_server(tmp_path: Path) -> Iterator[ModelServerProcess]:
    process = ModelServerProcess(tmp_path)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def own_control(stores: Stores, tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess("headrace_control_plane", stores.environment(), tmp_path, "HEADRACE_CONTROL_PORT")
    process.start()
    try:
        yield process
    finally:
        process.stop()


async def test_killed_model_server_and_control_plane_cost_no_request_and_come_back(
    stores: Stores, own_control: ServiceProcess, own_model_server: ModelServerProcess, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{own_control.metrics_port}"
    async with a_world(stores, url, own_model_server.address, tmp_path) as world, a_shop(world, tmp_path) as shop:
        await shop.stock(1, 2)
        first = await world.serve(Weights(rows={item(2): 1.0}))
        await shop.served_by(first)

        await asyncio.to_thread(own_control.kill)
        answer = await shop.recommend()
        assert (answer["model_version"], answer["degraded"]) == (first, [])

        await asyncio.to_thread(own_model_server.kill)
        answer = await shop.recommend()
        assert (answer["model"], answer["model_version"]) == ("", 0)
        assert answer["degraded"] == ["model_unavailable"]
        assert sorted(ids(answer)) == ["i1", "i2"]
        log = await the_log(stores, answer["request_id"])
        assert [(f.what, f.reason) for f in log.fallbacks] == [("model", "model_unavailable")]

        own_model_server.spawn()
        own_control.spawn()
        assert ids(await shop.served_by(first)) == ["i2", "i1"]
        await asyncio.to_thread(own_control.wait_ready)

        second = await world.serve(Weights(rows={item(1): 1.0}))
        assert ids(await shop.served_by(second)) == ["i1", "i2"]


async def test_model_that_misses_its_deadline_is_done_without(world: World, tmp_path: Path) -> None:
    version = await world.serve(Weights())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        address = "{}:{}".format(*silent.getsockname())
        slow = {"HEADRACE_MODEL_SERVER": address, "HEADRACE_PREDICT_DEADLINE_MS": "50"}
        async with a_shop(world, tmp_path, **slow) as shop:
            await shop.stock(1)

            async def knows() -> bool:
                metrics = (await shop.client.get("/metrics")).text
                return f'headrace_model_version{{model="{world.model.name}",track="stable"}} {version}.0' in metrics

            await eventually(knows, f"that {version} is known")
            answer = await shop.recommend()

    assert (answer["degraded"], ids(answer)) == (["model_unavailable"], ["i1"])


async def test_gateway_that_has_not_heard_what_is_deployed_does_not_say_that_nothing_is(
    world: World, tmp_path: Path
) -> None:
    await world.serve(Weights())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a control plane that never says a word
        address = "http://{}:{}".format(*silent.getsockname())
        async with a_shop(world, tmp_path, HEADRACE_CONTROL=address) as shop:
            await shop.stock(1)
            answer = await shop.recommend()

    assert (answer["model_version"], answer["degraded"]) == (0, ["model_unavailable"])


async def test_exploration_shows_what_is_not_ranked_with_its_propensity(world: World, tmp_path: Path) -> None:
    weights = Weights(rows={item(n): float(n) for n in range(1, 11)})
    version = await world.serve(weights)
    async with a_shop(world, tmp_path, HEADRACE_EXPLORE="0.4") as shop:
        await shop.stock(*range(1, 11))
        await shop.served_by(version, count=3)
        await shop.knows(10)
        answers = [await shop.recommend(count=3) for _ in range(60)]
        logs = [await the_log(world.stores, a["request_id"]) for a in (answers[0], answers[-1])]
        drawn = [a for a in answers if a["items"][2]["source"] == "exploration"]
        logs += [await the_log(world.stores, a["request_id"]) for a in drawn[:1]]

    assert all(ids(a)[:2] == ["i10", "i9"] for a in answers)
    assert 0 < len(drawn) < 60
    assert {ids(a)[2] for a in drawn} <= {f"i{n}" for n in range(1, 8)}
    assert {ids(a)[2] for a in answers if a not in drawn} == {"i8"}
    for log in logs:
        last = log.items[2]
        # Ten items may be drawn, three of them are in the answer already.
        wanted = 0.4 / 10 if last.source == "exploration" else 1 - 0.4 * 7 / 10
        assert [i.propensity for i in log.items] == pytest.approx([1.0, 1.0, wanted])
