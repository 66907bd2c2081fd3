"""Everything that docs/contracts.md calls bad input, through HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.world import an_event, assert_problem, events_by_id, eventually, now_ms, send, unique

pytestmark = pytest.mark.stack

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in an_event().items() if name != field}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"no json", "body: is not JSON", id="not JSON"),
        pytest.param(b"", "body: is not JSON", id="empty"),
        pytest.param(b'{"events": [', "body: is not JSON", id="cut off"),
        pytest.param(b'{"events": [{"event_id": "\xff"}]}', "events[0].event: is not UTF-8", id="not UTF-8"),
        pytest.param(b"[]", "body: expected `object`, got `array`", id="no object"),
        pytest.param(b'{"event": []}', "event: is not known", id="wrong envelope"),
        pytest.param(b"{}", "events: is required", id="no events"),
        pytest.param(b'{"events": {}}', "events: expected `array`", id="events of another type"),
        pytest.param(b'{"events": []}', "events: holds no event", id="no event"),
        pytest.param(b'{"events": [], "sent": 1}', "sent: is not known", id="unknown envelope field"),
        pytest.param(b"[" * 100_000, "body: ", id="nested without end"),
    ],
)
async def test_body_that_is_no_envelope_of_events_is_answered_422(
    client: httpx.AsyncClient, body: bytes, says: str
) -> None:
    answer = await client.post("/v1/events", content=body)

    assert_problem(answer, 422, says)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(without("event_id"), "event_id: is required", id="no event_id"),
        pytest.param(without("user_id"), "user_id: is required", id="no user_id"),
        pytest.param(without("event_time"), "event_time: is required", id="no event_time"),
        pytest.param(without("action"), "action: is required", id="no action"),
        pytest.param(without("item_id"), "item_id: is required for click", id="no item_id"),
        pytest.param(an_event(user_id=""), "user_id: expected", id="empty user_id"),
        pytest.param(an_event(user_id=7), "user_id: expected `str`, got `int`", id="user_id is a number"),
        pytest.param(an_event(user_id="u" * 257), "user_id: expected", id="user_id too long"),
        pytest.param(an_event(user_id="a\nb"), "user_id: holds a control character", id="control character"),
        pytest.param(an_event(page_id="a\x00b"), "NUL", id="NUL character"),
        pytest.param(an_event(event_time="now"), "event_time: expected `int`, got `str`", id="time is a string"),
        pytest.param(an_event(event_time=-1), "event_time: expected", id="negative time"),
        pytest.param(an_event(event_time=2**63), "event_time: expected", id="time beyond int64"),
        pytest.param(an_event(event_time=now_ms() + HOUR_MS), "event_time: ", id="future"),
        pytest.param(an_event(event_time=now_ms() - 8 * DAY_MS), "event_time: ", id="too old"),
        pytest.param(an_event(event_time=0), "event_time: ", id="long ago"),
        pytest.param(an_event(action="buy"), "action: invalid enum value 'buy', one of", id="unknown action"),
        pytest.param(an_event(colour="red"), "colour: is not known", id="unknown field"),
        pytest.param(an_event(dwell_ms=1.5), "dwell_ms: expected `int`, got `float`", id="dwell is a fraction"),
        pytest.param(an_event(position=-1), "position: expected", id="negative position"),
        pytest.param(an_event(segment={"country": 1}), "segment", id="segment of another type"),
        pytest.param(an_event(attributes={"a": {"b": "c"}}), "attributes", id="attributes not flat"),
        pytest.param(an_event(sent_at=1), "event_time: ", id="clock of 1970 at sending"),
        pytest.param(an_event(attributes={f"{n}": "x" * 4096 for n in range(20)}), "event: ", id="too large"),
        pytest.param("click", "event: expected `object`", id="no object"),
    ],
)
async def test_fault_of_one_event_is_listed_and_the_others_are_taken(
    client: httpx.AsyncClient, stores: Stores, fault: Any, says: str
) -> None:
    good = an_event(), an_event()

    mixed = await send(client, good[0], fault, good[1])
    alone = await send(client, fault)

    assert mixed.status_code == 202
    assert mixed.headers["content-type"] == "application/json"
    assert mixed.json()["accepted"] == 2
    (rejected,) = mixed.json()["rejected"]
    assert rejected["index"] == 1
    assert rejected["reason"].startswith(says) or (says == "NUL" and says in rejected["reason"])
    problem = assert_problem(alone, 422)
    assert problem["accepted"] == 0
    assert [r["index"] for r in problem["rejected"]] == [0]
    arrived = await events_by_id(stores)
    assert {e["event_id"] for e in good} <= arrived.keys()
    assert not isinstance(fault, dict) or fault.get("event_id", "none") not in arrived


async def test_events_at_the_edges_are_taken(client: httpx.AsyncClient) -> None:
    search = an_event(action="search", query="shoes")
    del search["item_id"]

    answer = await send(
        client,
        search,
        an_event(event_time=now_ms() + 4 * 60_000),
        an_event(event_time=now_ms() - 7 * DAY_MS + 60_000),
        an_event(user_id="u" * 256, item_id="ü" * 256),
    )

    assert answer.status_code == 202
    assert answer.json() == {"accepted": 4, "rejected": []}


async def test_thousand_events_are_taken_and_one_more_is_413(client: httpx.AsyncClient) -> None:
    events = [an_event() for _ in range(1_001)]

    taken = await send(client, *events[:1_000])
    refused = await send(client, *events)

    assert taken.json() == {"accepted": 1_000, "rejected": []}
    assert_problem(refused, 413, "events: 1001 in one call, at most 1000")


async def test_faults_do_not_hide_that_there_are_too_many_events(client: httpx.AsyncClient) -> None:
    answer = await send(client, *[{} for _ in range(1_001)])

    assert_problem(answer, 413, "events: 1001")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/recommend", "/v1/rank", "/v1/users:batch", "/v1/items:batch"])
async def test_body_beyond_the_limit_is_413(client: httpx.AsyncClient, path: str) -> None:
    async def without_length() -> Any:
        for _ in range(9):
            yield b" " * 1_048_576

    told = await client.post(path, content=b" " * 9_437_184)
    untold = await client.post(path, content=without_length())

    assert_problem(told, 413, "body: at most 8388608 bytes")
    assert_problem(untold, 413, "body: at most 8388608 bytes")


RECOMMEND = {"user_id": "u", "page_id": "100"}
RANK = {**RECOMMEND, "candidates": ["1"]}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/recommend", {"page_id": "100"}, 422, "user_id: is required"),
        ("/v1/recommend", {"user_id": "u"}, 422, "page_id: is required"),
        ("/v1/recommend", {**RECOMMEND, "user_id": ""}, 422, "user_id: "),
        ("/v1/recommend", {**RECOMMEND, "count": 0}, 422, "count: "),
        ("/v1/recommend", {**RECOMMEND, "count": 101}, 422, "count: "),
        ("/v1/recommend", {**RECOMMEND, "count": "10"}, 422, "count: expected `int`, got `str`"),
        ("/v1/recommend", {**RECOMMEND, "candidates": []}, 422, "candidates: is not known"),
        ("/v1/recommend", {**RECOMMEND, "categories": "shoes"}, 422, "categories: expected `array"),
        ("/v1/recommend", {**RECOMMEND, "exclude": [1]}, 422, "exclude[0]: expected `str`"),
        ("/v1/recommend", {**RECOMMEND, "context": {"a": []}}, 422, "context["),
        ("/v1/recommend", {**RECOMMEND, "context": {"a": "\x00"}}, 422, "NUL"),
        ("/v1/recommend", {**RECOMMEND, "context": {"a": "x" * 4097}}, 422, "context["),
        ("/v1/recommend", {**RECOMMEND, "context": {f"{n}": n for n in range(101)}}, 422, "context: "),
        ("/v1/recommend", [], 422, "body: expected `object`"),
        ("/v1/rank", RECOMMEND, 422, "candidates: is required"),
        ("/v1/rank", {**RANK, "candidates": [""]}, 422, "candidates[0]: "),
        ("/v1/rank", {**RANK, "candidates": [str(n) for n in range(501)]}, 413, "candidates: 501 given, at most 500"),
        ("/v1/rank", {**RANK, "count": 501}, 422, "count: "),
        ("/v1/users:batch", {"users": [{"country": "x"}]}, 422, "users[0].user_id: is required"),
        ("/v1/users:batch", {"users": [{"user_id": "a", "age": 3}]}, 422, "users[0].age: is not known"),
        ("/v1/users:batch", {"users": []}, 422, "users: holds no entry"),
        ("/v1/users:batch", {"users": [{"user_id": "a"}] * 1_001}, 413, "users: 1001"),
        (
            "/v1/items:batch",
            {"items": [{"item_id": "a", "available": "yes"}]},
            422,
            "items[0].available: expected `bool`",
        ),
        ("/v1/items:batch", {"items": [{"item_id": "a", "attributes": {"x": [1]}}]}, 422, "items[0].attributes["),
        ("/v1/items:batch", {"items": [{"item_id": "a"}] * 1_001}, 413, "items: 1001"),
        (
            "/v1/items:batch",
            {"items": [{"item_id": "a"}, {"item_id": "b", "attributes": {f"{n}": "x" * 4096 for n in range(20)}}]},
            413,
            "items[1]: ",
        ),
    ],
)
async def test_wrong_body_is_refused_with_the_name_of_the_field(
    client: httpx.AsyncClient, path: str, body: Any, status: int, says: str
) -> None:
    answer = await client.post(path, json=body)

    assert_problem(answer, status, says)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/users/u1", {"user_id": "u2"}, "user_id: 'u2' in the body, but 'u1' in the path"),
        ("/v1/items/", {}, "item_id: 1 to 256 characters"),
        ("/v1/items/a%01b", {}, "item_id: 1 to 256 characters"),
        ("/v1/items/" + "x" * 257, {}, "item_id: 1 to 256 characters"),
        ("/v1/items/x", {"created_at": "today"}, "created_at: expected `int`"),
        ("/v1/items/x", {"title": "x" * 4097}, "title: "),
    ],
)
async def test_wrong_catalog_entry_is_refused_with_the_name_of_the_field(
    client: httpx.AsyncClient, path: str, body: Any, says: str
) -> None:
    answer = await client.put(path, json=body)

    assert_problem(answer, 422, says)


async def test_wrong_entry_in_a_batch_leaves_the_others_unwritten(client: httpx.AsyncClient) -> None:
    kind = unique("kind")

    answer = await client.post("/v1/items:batch", json={"items": [{"item_id": unique("i"), "item_type": kind}, {}]})
    found = await client.post("/v1/recommend", json={**RECOMMEND, "item_type": kind})

    assert_problem(answer, 422, "items[1].item_id: is required")
    assert found.json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/events", 405),
        ("DELETE", "/v1/recommend", 405),
        ("POST", "/v1/items/x", 405),
        ("GET", "/v1/features/pages/1", 422),
        ("GET", "/v1/features/top/no_such_list/x", 404),
        ("GET", "/docs/no.js", 404),
    ],
)
async def test_wrong_address_is_a_problem_too(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)

    assert_problem(answer, status)


async def test_too_many_requests_at_once_are_429_but_probes_answer(stores: Stores, tmp_path: Path) -> None:
    gateway = GatewayProcess(stores.environment() | {"HEADRACE_MAX_REQUESTS": "1"}, tmp_path)
    gateway.start()
    body = json.dumps({"events": [an_event()]}).encode()
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:

            async def refusal() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, httpx.Response] | None:
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(head + body[:10])
                answer = await client.post("/v1/recommend", json=RECOMMEND)
                if answer.status_code == 429:
                    return reader, writer, answer
                writer.close()  # it came too late, and was refused itself
                return None

            opened = await eventually(refusal, "a refusal")
            assert opened is not None
            reader, writer, refused = opened
            probe = await client.get("/readyz")
            writer.write(body[10:])
            taken = await reader.read()
            writer.close()
            afterwards = await client.post("/v1/recommend", json=RECOMMEND)
    finally:
        gateway.stop()

    assert_problem(refused, 429, "1 requests are open already")
    assert int(refused.headers["retry-after"]) >= 1
    assert probe.status_code == 200
    assert taken.startswith(b"HTTP/1.1 202 ")
    assert afterwards.status_code == 200
