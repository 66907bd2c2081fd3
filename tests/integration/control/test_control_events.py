"""Events: dense offsets, idempotent sending, listening."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from headrace_core.control.client import ControlClient

from tests.integration.control.process import ControlPlane

JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.stack


async def test_concurrent_sends_take_dense_offsets_in_commit_order(client: ControlClient, make_control: Any) -> None:
    other = make_control()
    other.start()
    start = await client.newest()

    async with ControlClient(other.url, "other") as second:
        calls = [(client, second)[n % 2].append("dense", str(n)) for n in range(300)]
        offsets = await asyncio.gather(*calls)

    page = await client.events(after=start, limit=1_000)
    told = [event.offset for event in page.items]
    assert told == list(range(start + 1, start + 1 + len(told)))
    mine = [event for event in page.items if event.key == "dense"]
    assert sorted(offsets) == [event.offset for event in mine]
    assert [event.version for event in mine] == list(range(1, 301))
    times = [event.create_time for event in page.items]
    assert times == sorted(times)


async def test_reader_that_has_seen_n_never_finds_a_smaller_one_later(client: ControlClient) -> None:
    start = await client.newest()
    seen: list[int] = []

    async def read() -> None:
        after = start
        while len(seen) < 200:
            page = await client.events(after=after, keys=["tail"], wait_s=5)
            seen.extend(event.offset for event in page.items)
            after = page.next

    reader = asyncio.create_task(read())
    offsets = await asyncio.gather(*(client.append("tail", str(n)) for n in range(200)))
    await asyncio.wait_for(reader, 60)

    assert seen == sorted(offsets)


async def test_event_sent_again_has_the_offset_of_the_first(client: ControlClient) -> None:
    first = await client.append("again", "1", sequence=7)

    repeated = await asyncio.gather(*(client.append("again", "2", sequence=7) for _ in range(20)))

    assert set(repeated) == {first}
    page = await client.events(keys=["again"])
    assert [(event.offset, event.value) for event in page.items] == [(first, "1")]


async def test_sequences_of_two_senders_do_not_meet(control: ControlPlane, client: ControlClient) -> None:
    async with ControlClient(control.url, "somebody else") as other:
        assert await client.append("senders", "1", sequence=1) != await other.append("senders", "1", sequence=1)


async def test_long_poll_is_answered_by_the_event_that_comes(client: ControlClient) -> None:
    start = await client.newest()
    poll = asyncio.create_task(client.events(after=start, keys=["poll"], wait_s=60))
    await client.append("noise", "1")

    offset = await client.append("poll", "1")

    page = await asyncio.wait_for(poll, 30)
    assert [event.offset for event in page.items] == [offset]


async def test_filters_and_where_to_go_on(client: ControlClient) -> None:
    start = await client.newest()
    for key, kind, namespace in (("f1", "A", "x"), ("f2", "A", "y"), ("f1", "B", "x"), ("f3", "A", "x")):
        await client.append(key, "v", type=kind, namespace=namespace)

    by_keys = await client.events(after=start, keys=["f1", "f3"])
    by_type = await client.events(after=start, keys=["f1"], type="B")
    by_space = await client.events(after=start, namespace="y")
    short = await client.events(after=start, keys=["f1"], limit=1)

    assert [event.key for event in by_keys.items] == ["f1", "f1", "f3"]
    assert [event.type for event in by_type.items] == ["B"]
    assert [event.key for event in by_space.items] == ["f2"]
    assert by_keys.next >= start + 4
    assert short.next == start + 1


async def test_stream_goes_on_after_the_last_event_id(http: httpx.AsyncClient, client: ControlClient) -> None:
    first = await client.append("sse", "1")
    second = await client.append("sse", "2")

    told = []
    async with http.stream("GET", "/stream", params={"key": "sse"}, headers={"last-event-id": str(first)}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line[6:]))
                if len(told) == 2:
                    break
                await client.append("sse", "3")

    assert [(event["offset"] >= second, event["value"]) for event in told] == [(True, "2"), (True, "3")]


async def test_listening_lives_through_a_control_plane_that_is_killed(make_control: Any) -> None:
    own = make_control()
    own.start()
    async with (
        ControlClient(own.url, "listener", patience_seconds=0.5) as listener,
        ControlClient(own.url, "s") as sender,
    ):
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def listen() -> None:
            async for event in listener.listen(keys=["lives"], after=0):
                await heard.put(event.value)

        task = asyncio.create_task(listen())
        await sender.append("lives", "1")
        assert await asyncio.wait_for(heard.get(), 30) == "1"
        own.kill()
        own.start()

        await sender.append("lives", "2")

        assert await asyncio.wait_for(heard.get(), 60) == "2"
        task.cancel()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"value": "1"}, "key"),
        ({"key": "", "value": "1"}, "key"),
        ({"key": "k" * 501, "value": "1"}, "key"),
        ({"key": "k", "value": 1}, "value"),
        ({"key": "k\x00", "value": "1"}, "key"),
        ({"key": "k", "value": "\ud800"}, "value"),
        ({"key": "k", "value": "1", "sequence": -1}, "sequence"),
        ({"key": "k", "value": "1", "sequence": 2**63}, "sequence"),
        ({"key": "k", "value": "1", "context": []}, "context"),
        ({"key": "k", "value": "1", "context": {"a": "\x00"}}, "context"),
        ({"key": "k", "value": "1", "context": {"a": "x" * 300_000}}, "context"),
        ({"key": "k", "value": "1", "offset": 1}, "offset"),
    ],
)
async def test_bad_event_is_a_problem_that_names_its_field(
    http: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await http.post("/events", content=json.dumps(body), headers=JSON)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(field)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000])
async def test_body_that_is_no_event_is_a_problem(http: httpx.AsyncClient, content: bytes) -> None:
    answer = await http.post("/events", content=content, headers=JSON)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/events", content=b'{"key": "' + b"x" * 5_000_000 + b'"}', headers=JSON)

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "limit=0", "limit=100000", "wait_s=-1", "wait_s=61", f"after={2**63}"]
)
async def test_bad_query_is_a_problem(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/events?{query}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_pages_for_people_load_nothing_from_elsewhere(control: ControlPlane) -> None:
    async with httpx.AsyncClient(base_url=control.url) as http:
        page = (await http.get("/docs")).text
        asset = await http.get("/docs/swagger-ui-bundle.js")
        schema = (await http.get("/openapi.json")).json()

    assert "https://" not in page
    assert asset.status_code == 200
    assert "/api/v1/events" in schema["paths"]
