"""Stores and the gateway itself stopped under traffic."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from load_tests.gateway.process import GatewayProcess
from load_tests.gateway.traffic import Traffic
from tests.conftest import Stores
from tests.integration.gateway.conftest import PATIENT
from tests.integration.gateway.world import (
    LOGS,
    an_event,
    assert_problem,
    events_by_id,
    eventually,
    send,
    the_log,
    unique,
    written,
)
from tests.unit.gateway.test_in_force import FOLDER

pytestmark = pytest.mark.stack

OUTAGES_S = [pytest.param(4, id="4 s"), pytest.param(20, id="20 s", marks=pytest.mark.long)]


@pytest.fixture
def own_gateway(stores: Stores, tmp_path: Path) -> Iterator[GatewayProcess]:
    # Logs that wait long for company, so that a stop which does not send them is noticed.
    settings = {"HEADRACE_FEATURE_LOG_FLUSH_MS": "1000"}
    process = GatewayProcess(stores.environment() | PATIENT | settings, tmp_path)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@asynccontextmanager
async def without(stores: Stores, part: str, seconds: float) -> AsyncIterator[None]:
    """The part is stopped for as long as the body takes, and for so long at least."""
    await asyncio.to_thread(stores.stack.stop, part)
    least = asyncio.create_task(asyncio.sleep(seconds))  # the outage itself, nothing waits for its end but this
    try:
        yield
        await least
    finally:
        least.cancel()
        await asyncio.to_thread(stores.stack.start, part)
        await asyncio.to_thread(stores.stack.wait_ready, part)


@contextmanager
def paused(stores: Stores, part: str) -> Iterator[None]:
    """The part neither answers nor hangs up."""
    pid = stores.stack.pid(part)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def readiness(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.get("/readyz")
        return {**answer.json(), "code": answer.status_code}


async def works(traffic: Traffic) -> None:
    """Everything is answered well again, from now on."""
    before = {path: traffic.count(path, code) for path, code in ROUTES}

    async def more() -> bool:
        return all(traffic.count(path, code) > before[path] + 5 for path, code in ROUTES)

    await eventually(more, "traffic as before", 60)


ROUTES = [("/v1/events", 202), ("/v1/recommend", 200), ("/v1/rank", 200)]


@pytest.mark.parametrize("outage_s", OUTAGES_S)
async def test_no_accepted_event_is_lost_while_kafka_is_away_and_recommendations_go_on(
    stores: Stores, own_gateway: GatewayProcess, outage_s: float
) -> None:
    async with Traffic(own_gateway.url, unique("t")) as traffic:
        await works(traffic)
        async with without(stores, "kafka", outage_s):

            async def told() -> bool:
                return (await readiness(own_gateway.url))["dependencies"]["kafka"] != "up" and bool(traffic.refused)

            await eventually(told, "Kafka called away and events refused")
            ready = await readiness(own_gateway.url)
            answered = traffic.count("/v1/recommend", 200), traffic.count("/v1/rank", 200)
        await works(traffic)
        served = traffic.answers[-1]["request_id"]
    healed = await eventually(lambda: up(own_gateway), "Kafka called up")

    assert ready["code"] == 200
    assert healed
    assert traffic.count("/v1/recommend", 200) > answered[0]
    assert traffic.count("/v1/rank", 200) > answered[1]
    assert {status for path, status in traffic.statuses if path != "/v1/events"} == {200}
    assert {status for path, status in traffic.statuses if path == "/v1/events"} == {202, 503}
    problem = assert_problem(traffic.refused[-1], 503, "Kafka did not take every event")
    assert problem["acknowledged"] == []
    assert all(int(a.headers["retry-after"]) >= 1 for a in traffic.refused)
    stored = await events_by_id(stores)
    assert traffic.accepted <= stored.keys()
    await the_log(stores, served)


async def up(gateway: GatewayProcess) -> bool:
    return set((await readiness(gateway.url))["dependencies"].values()) == {"up"}


async def test_kafka_is_called_away_and_up_also_while_nobody_writes(
    stores: Stores, own_gateway: GatewayProcess
) -> None:
    async with without(stores, "kafka", 0):
        away = await eventually(lambda: kafka_is(own_gateway, up=False), "Kafka called away")

    assert away
    assert await eventually(lambda: kafka_is(own_gateway, up=True), "Kafka called up")


async def kafka_is(gateway: GatewayProcess, *, up: bool) -> bool:
    return bool(((await readiness(gateway.url))["dependencies"]["kafka"] == "up") == up)


@pytest.mark.parametrize("outage_s", [pytest.param(1, id="1 s"), *OUTAGES_S[1:]])
async def test_recommendations_are_degraded_and_events_go_on_while_redis_is_away(
    stores: Stores, own_gateway: GatewayProcess, outage_s: float
) -> None:
    async with Traffic(own_gateway.url, unique("t")) as traffic:
        await works(traffic)
        async with httpx.AsyncClient(base_url=own_gateway.url, timeout=30) as client:
            assert (await client.put("/v1/users/u", json={})).status_code == 202
        calm = len(traffic.answers)
        async with without(stores, "valkey", outage_s):
            await works(traffic)
            ready = await readiness(own_gateway.url)
            outage = len(traffic.answers)
            async with httpx.AsyncClient(base_url=own_gateway.url, timeout=30) as client:
                features = await client.get("/v1/features/users/u")
        await eventually(lambda: up(own_gateway), "Redis called up")
        async with httpx.AsyncClient(base_url=own_gateway.url, timeout=30) as client:
            put = await client.put("/v1/users/u", json={})
        back = len(traffic.answers)
        await works(traffic)

    assert ready["code"] == 200
    assert ready["dependencies"]["redis"] != "up"
    assert {status for _, status in traffic.statuses} == {200, 202}
    assert {tuple(a["degraded"]) for a in traffic.answers[:calm]} == {("model_unavailable",)}
    assert traffic.answers[outage - 1]["degraded"] == ["model_unavailable", "redis_unavailable"]
    assert {tuple(a["degraded"]) for a in traffic.answers[back + 2 :]} == {("model_unavailable",)}
    assert_problem(features, 503, "Redis is away")
    assert put.status_code == 202, put.text
    assert traffic.accepted == traffic.sent <= (await events_by_id(stores)).keys()


async def test_silent_redis_costs_a_deadline_once_and_events_go_on(stores: Stores, own_gateway: GatewayProcess) -> None:
    async with Traffic(own_gateway.url, unique("t")) as traffic:
        await works(traffic)
        with paused(stores, "valkey"):
            await works(traffic)
            ready = await readiness(own_gateway.url)
            degraded = traffic.answers[-1]["degraded"]
        await eventually(lambda: up(own_gateway), "Redis called up")
        back = len(traffic.answers)
        await works(traffic)

    assert ready["dependencies"]["redis"] != "up"
    assert degraded == ["model_unavailable", "redis_unavailable"]
    assert {tuple(a["degraded"]) for a in traffic.answers[back + 2 :]} == {("model_unavailable",)}
    assert {status for _, status in traffic.statuses} == {200, 202}


async def test_more_events_than_may_wait_for_a_silent_kafka_are_429(stores: Stores, tmp_path: Path) -> None:
    few = {"HEADRACE_MAX_EVENTS_IN_FLIGHT": "1000", "HEADRACE_PRODUCE_DEADLINE_MS": "1500"}
    gateway = GatewayProcess(stores.environment() | few, tmp_path)
    gateway.start()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            first = [an_event() for _ in range(1_000)]
            with paused(stores, "kafka"):
                answers = await asyncio.gather(send(client, *first), send(client, an_event()), send(client, *first))
                recommended = await client.post("/v1/recommend", json={"user_id": "u", "page_id": "1"})

            async def taken() -> bool:
                return (await send(client, *first)).status_code == 202

            assert await eventually(taken, "events taken again")
    finally:
        gateway.stop()

    statuses = sorted(a.status_code for a in answers)
    assert statuses in ([429, 429, 503], [429, 503, 503])
    for answer in answers:
        assert int(answer.headers["retry-after"]) >= 1
    assert_problem(next(a for a in answers if a.status_code == 429), 429, "wait for Kafka already; nothing was sent")
    assert recommended.status_code == 200
    stored = await events_by_id(stores)
    assert {e["event_id"] for e in first} <= stored.keys()


async def test_killed_gateway_has_lost_no_accepted_event(stores: Stores, own_gateway: GatewayProcess) -> None:
    async with Traffic(own_gateway.url, unique("t"), events_per_call=200) as traffic:
        for _ in range(3):
            await works(traffic)
            own_gateway.signal(signal.SIGKILL)
            own_gateway.wait(10)
            await asyncio.to_thread(own_gateway.start)
        await works(traffic)

    assert traffic.unknown
    assert traffic.accepted
    stored = (await events_by_id(stores)).keys()
    assert traffic.accepted <= stored


async def test_terminated_gateway_answers_what_it_has_begun_and_sends_its_logs(
    stores: Stores, own_gateway: GatewayProcess
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    event = an_event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b'{"events": ['
        begun.set()
        await go_on.wait()
        yield httpx.Request("POST", "http://x", json=event).content + b"]}"

    async with httpx.AsyncClient(base_url=own_gateway.url, timeout=30) as client:
        slow = asyncio.create_task(client.post("/v1/events", content=slow_body()))
        await begun.wait()
        asked = [client.post("/v1/recommend", json={"user_id": unique("u"), "page_id": "1"}) for _ in range(50)]
        answers = await asyncio.gather(*asked)
        own_gateway.signal(signal.SIGTERM)
        await eventually(lambda: refuses(own_gateway), "a closed port")
        go_on.set()
        taken = await slow
    code = await asyncio.to_thread(own_gateway.wait, 20)

    assert taken.status_code == 202
    assert code == 0
    assert event["event_id"] in await events_by_id(stores)
    logs = b"".join(r.value for r in await written(stores, LOGS))
    assert all(a.json()["request_id"].encode() in logs for a in answers)


async def refuses(gateway: GatewayProcess) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_gateway_without_any_store_says_so(stores: Stores, tmp_path: Path) -> None:
    nowhere = {"HEADRACE_KAFKA": "127.0.0.1:1", "HEADRACE_REDIS": "redis://127.0.0.1:1/0"}
    gateway = GatewayProcess(
        stores.environment()
        | nowhere
        | {"HEADRACE_GATEWAY_STARTUP_WAIT_MS": "300", "HEADRACE_GATEWAY_DRAIN_MS": "300"},
        tmp_path,
    )
    gateway.spawn()
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:

            async def waiting() -> bool:
                try:
                    return bool((await client.get("/readyz")).json()["waiting_for"] != "starting")
                except httpx.TransportError:
                    return False

            await eventually(waiting, "an end of the start")
            ready = await client.get("/readyz")
            alive = await client.get("/healthz")
            recommended = await client.post("/v1/recommend", json={"user_id": "u", "page_id": "1"})
            events = await send(client, an_event())
            user = await client.put("/v1/users/u", json={})
    finally:
        gateway.stop()

    assert ready.status_code == 503
    assert ready.json()["waiting_for"] == "neither Kafka nor Redis nor an item in memory"
    assert alive.status_code == 200
    assert recommended.status_code == 200
    assert recommended.json()["degraded"] == ["model_unavailable", "redis_unavailable"]
    assert_problem(events, 503)
    assert_problem(user, 503)


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"HEADRACE_MAX_EVENT_AGE": "a week"}, 2, "headrace-gateway: HEADRACE_MAX_EVENT_AGE: "),
        ({"HEADRACE_GATEWAY_HOST": "0.0.0.0"}, 2, "without API keys the gateway listens on loopback only"),
        ({"HEADRACE_DEFINITIONS": "/nowhere"}, 2, "headrace-gateway: "),
    ],
)
def test_settings_that_can_not_be_end_the_start_with_one_line(
    tmp_path: Path, settings: dict[str, str], code: int, says: str
) -> None:
    gateway = GatewayProcess(settings, tmp_path)

    gateway.spawn()

    assert gateway.wait(20) == code
    assert says in gateway.log()
    assert len(gateway.log().splitlines()) == 1


def test_wrong_definition_ends_the_start_with_file_line_and_fault(tmp_path: Path) -> None:
    folder = tmp_path / "definitions" / "features"
    shutil.copytree(FOLDER, folder)
    wrong = folder / "top_ads_by_segment.yaml"
    wrong.write_text(wrong.read_text(encoding="utf-8").replace("action = 'click'", "no_column = 'x'"), encoding="utf-8")
    gateway = GatewayProcess({"HEADRACE_DEFINITIONS": str(tmp_path / "definitions")}, tmp_path)

    gateway.spawn()

    assert gateway.wait(20) == 2
    (line,) = gateway.log().splitlines()
    assert "top_ads_by_segment.yaml:5: where: " in line
    assert "no_column" in line


def test_taken_port_ends_the_start_with_one_line(tmp_path: Path) -> None:
    gateway = GatewayProcess({"HEADRACE_DEFINITIONS": str(FOLDER.parent)}, tmp_path)

    with socket.create_server(("127.0.0.1", gateway.port)):
        gateway.spawn()
        code = gateway.wait(20)

    assert code == 1
    (line,) = gateway.log().splitlines()
    assert f"127.0.0.1:{gateway.port} can't be listened on" in line
