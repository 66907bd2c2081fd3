"""The scheduler: one condition fires once, whatever is killed when."""

import asyncio
import contextlib
import random
from itertools import pairwise
from typing import Any

import httpx
import pytest
from headrace_control_plane.rules.conditions import Happened
from headrace_control_plane.scheduler.decide import Decider
from headrace_control_plane.scheduler.house import Bounds
from headrace_control_plane.store.database import now_ms, open_pool
from headrace_control_plane.store.workflows import FencedError
from headrace_core.control.client import ControlClient
from headrace_core.workflow import BatchTask, Workflow, all_of, any_of, at, count, event, sequence

from tests.integration.control.eventually import eventually
from tests.integration.control.flows import settled, upload, why
from tests.integration.control.process import ControlPlane
from tests.unit.control import naive

pytestmark = pytest.mark.stack


def resident(name: str, **options: Any) -> BatchTask:
    """A task of a service that is not there: its runs stay where they are."""
    return BatchTask(name, run="work {event.value}", resident="nobody", **options)


async def test_one_two_three_starts_a_task_once_and_one_three_two_does_not(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    with Workflow("order") as flow:
        resident("t").start_on(sequence(event("o1"), event("o2"), event("o3")))
    await upload(http, flow)
    for key in ("o1", "o3", "o2"):
        await client.append(key, key)
    await settled(table)

    before = await why(http, "order", "t.start")
    await client.append("o3", "last")
    (run,) = await eventually(lambda: client.runs(workflow="order"), "the sequence fires")

    assert before["firings"] == []
    assert before["missing"] == ["event o3"]
    assert [part["met"] for part in before["conditions"]["of"]] == [True, True, False]
    assert run.command == ["work", "last"]
    assert run.cause["rule"] == "t.start"
    assert [one["key"] for one in run.cause["events"]] == ["o1", "o2", "o3"]
    after = await why(http, "order", "t.start")
    assert [one["value"] for one in after["firings"][0]["events"]] == ["o1", "o2", "last"]
    assert after["missing"] == ["event o1"]


async def test_every_event_counts_once_through_kills_of_two_control_planes(
    make_control: Any, table: Any, http: httpx.AsyncClient
) -> None:
    conditions = {
        "chain": sequence(event("a"), event("b"), event("c")),
        "limited": sequence(event("a"), event("c"), within="150ms"),
        "both": all_of(event("a"), event("d")),
        "either": any_of(event("b"), sequence(event("c"), event("d"))),
        "thrice": count(event("d"), 3),
        "single": event("c", matches="[0-9]*[05]"),
    }
    with Workflow("chaos") as flow:
        for name, condition in conditions.items():
            resident(name, concurrency=1_000).start_on(condition, name=name)
    await upload(http, flow)
    planes: list[ControlPlane] = [make_control(), make_control()]
    for plane in planes:
        plane.start()
    chance = random.Random(7)
    sent = 0
    sending = True

    async def send(number: int) -> None:
        nonlocal sent
        async with ControlClient(planes[number % 2].url, f"sender {number}", patience_seconds=120) as sender:
            n = 0
            while sending:
                await sender.append(chance.choice("abcdx"), str(n), type="CHAOS", sequence=n)
                n += 1
                sent += 1

    senders = [asyncio.create_task(send(number)) for number in range(4)]
    for _ in range(4):
        victim = chance.choice(planes)
        await asyncio.sleep(chance.uniform(0.1, 0.6))  # the moment of the kill is the test's input
        victim.kill()
        await asyncio.to_thread(victim.start)
    sending = False
    await asyncio.wait_for(asyncio.gather(*senders), 120)
    await settled(table)
    for plane in planes:
        plane.stop()

    rows = await table.fetch("SELECT * FROM control.events WHERE type = 'CHAOS' ORDER BY \"offset\"")
    assert len(rows) == sent
    history = [
        Happened(r["offset"], r["create_time"], r["key"], r["value"], r["type"], r["namespace"], r["sender"])
        for r in rows
    ]
    fired = await table.fetch("SELECT rule, events FROM control.firings WHERE workflow = 'chaos' ORDER BY id")
    for name, condition in conditions.items():
        expected = naive.firings(condition.document, history)
        assert [r["events"] for r in fired if r["rule"] == name] == expected, name
        assert len(expected) > 3, name
        assert await table.fetchval("SELECT count(*) FROM control.runs WHERE task = $1", name) == len(expected)
        requested = (
            "SELECT count(DISTINCT value), count(*) FROM control.events WHERE key = 'run:nobody' AND value LIKE $1"
        )
        assert set(await table.fetchrow(requested, f"chaos.{name}.%")) == {len(expected)}
    holes = await table.fetchval('SELECT max("offset") - count(*) FROM control.events')
    assert holes == 0


async def test_of_two_control_planes_one_leads_and_the_other_takes_over(
    make_control: Any, control: ControlPlane
) -> None:
    planes = {"shared": control, "second": make_control()}
    planes["second"].start()

    async def leaders() -> list[str]:
        found = []
        async with httpx.AsyncClient() as http:
            for name, plane in planes.items():
                with contextlib.suppress(httpx.TransportError):
                    if "headrace_control_leader 1.0" in (await http.get(f"{plane.url}/metrics")).text:
                        found.append(name)
        return found

    (first,) = await eventually(leaders, "one leads")
    planes[first].kill()
    try:
        (then,) = await eventually(leaders, "the other takes over")
    finally:
        await asyncio.to_thread(planes[first].start)

    assert then != first
    assert await leaders() == [then]
    planes["second"].stop()


@pytest.mark.usefixtures("control")
async def test_leader_of_an_old_epoch_can_not_decide(dsn: str, table: Any) -> None:
    async def led() -> int:
        return int(await table.fetchval("SELECT epoch FROM control.scheduler"))

    epoch = await eventually(led, "somebody leads")
    pool = open_pool(dsn, 2)
    await pool

    with pytest.raises(FencedError):
        await Decider(pool, epoch - 1, Bounds(1_000, 1_000)).decide(now_ms())

    await pool.close()


async def test_rules_see_only_what_happens_after_the_upload(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    await client.append("late", "before")
    with Workflow("later") as flow:
        resident("t", concurrency=10).start_on(event("late"))
    await upload(http, flow)
    await client.append("late", "after")
    await settled(table)

    await upload(http, flow)  # the same again changes nothing
    await client.append("late", "again")

    async def both() -> bool:
        return len(await client.runs(workflow="later")) == 2

    await eventually(both, "both events start runs")
    assert [run.command[1] for run in await client.runs(workflow="later")] == ["again", "after"]


async def test_rule_that_stays_as_it_was_keeps_its_state_through_a_new_upload(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    def flow(other: str) -> Workflow:
        with Workflow("keeps") as made:
            resident("kept").start_on(sequence(event("k1"), event("k2")))
            resident("changed").start_on(sequence(event("k1"), event(other)))
        return made

    await upload(http, flow("x"))
    await client.append("k1", "1")
    await eventually(lambda: _met(http, "keeps", "kept.start"), "the first event is seen")

    await upload(http, flow("k2"))
    await client.append("k2", "2")

    await eventually(lambda: client.runs(workflow="keeps", task="kept"), "the kept rule fires")
    assert await client.runs(workflow="keeps", task="changed") == []


async def _met(http: httpx.AsyncClient, workflow: str, rule: str) -> bool:
    return bool((await why(http, workflow, rule))["conditions"]["events"])


async def test_paused_workflow_never_sees_what_happens_meanwhile(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    with Workflow("pauses") as flow:
        resident("t", concurrency=10).start_on(event("p"))
    await upload(http, flow)
    await http.post("/workflows/pauses/pause")
    await client.append("p", "meanwhile")
    await settled(table)
    told = await why(http, "pauses", "t.start")

    await http.post("/workflows/pauses/resume")
    await client.append("p", "after")

    (run,) = await eventually(lambda: client.runs(workflow="pauses"), "the resumed rule fires")
    assert run.command == ["work", "after"]
    assert told["missing"][0] == "the workflow is paused"


async def test_start_has_no_effect_while_the_task_runs(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    with Workflow("busy") as flow:
        resident("none").start_on(event("busy"))
        resident("one", queue="one").start_on(event("busy"))
        resident("newest", queue="newest").start_on(event("busy"))
    await upload(http, flow)
    for n in range(4):
        await client.append("busy", str(n))
    await settled(table)

    told = {
        task: [(r.status, r.command[1]) for r in await client.runs(workflow="busy", task=task)]
        for task in ("none", "one", "newest")
    }

    assert told == {
        "none": [("STARTING", "0")],
        "one": [("QUEUED", "1"), ("STARTING", "0")],
        "newest": [("QUEUED", "3"), ("STARTING", "0")],
    }
    assert [f["effect"].split(":")[0] for f in (await why(http, "busy", "none.start"))["firings"]] == [
        "no effect"
    ] * 3 + ["started"]

    token = await client.claim("busy.newest.1")
    assert token is not None
    await client.finish("busy.newest.1", token, "SUCCEEDED")

    async def started() -> bool:
        return (await client.run("busy.newest.2")).status == "STARTING"

    await eventually(started, "the one that waited has its turn")


async def test_poison_is_set_aside_and_the_rest_goes_on(http: httpx.AsyncClient, client: ControlClient) -> None:
    with Workflow("poison") as flow:
        BatchTask("t", run="work {event.context[to]}", resident="nobody").start_on(event("mark"), at_most_every="1d")
        resident("other").start_on(event("mark"))
    await upload(http, flow)
    bad = await client.append("mark", "bad")
    await client.append("mark", "good", context={"to": 12})

    (run,) = await eventually(lambda: client.runs(workflow="poison", task="t"), "the good event starts a run")

    assert run.command == ["work", "12"]
    (aside,) = (await why(http, "poison", "t.start"))["set_aside"]
    assert aside["event"]["offset"] == bad
    assert "'to'" in aside["error"]
    assert [r.command[1] for r in await client.runs(workflow="poison", task="other")] == ["bad"]


async def test_clock_starts_a_task_and_goes_on_through_a_kill(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    with Workflow("clock") as flow:
        BatchTask("t", run="work", resident="nobody", concurrency=1_000).start_at(every="300ms")
    await upload(http, flow)

    async def several() -> bool:
        return len(await client.runs(workflow="clock")) >= 3

    await eventually(several, "the clock starts runs")
    await http.post("/workflows/clock/pause")
    times = [
        r["time"] for r in await table.fetch("SELECT time FROM control.firings WHERE workflow = 'clock' ORDER BY id")
    ]
    assert all((later - earlier) % 300 == 0 and later > earlier for earlier, later in pairwise(times))


async def test_status_of_a_task_is_a_condition_and_a_time_of_day_one_too(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    with Workflow("after") as flow:
        one = BatchTask("one", run="true")
        one.start_on(event("go", value=at("10:00")))
        BatchTask("two", run="true").start_on(one.succeeded())
    await upload(http, flow)
    await client.append("go", "2026-11-25T09:59:00")

    await client.append("go", "2026-11-25T10:00:00")

    runs = await eventually(lambda: client.runs(workflow="after", task="two"), "the second follows the first")
    assert runs[0].cause["events"][0]["type"] == "TASK_SUCCEEDED"
    assert len(await client.runs(workflow="after", task="one")) == 1


async def test_wrong_document_is_a_problem_that_names_its_place(http: httpx.AsyncClient) -> None:
    with Workflow("wrong") as flow:
        resident("t").start_on(event("x"))
    document = flow.compile()
    document["rules"][0]["task"] = "nobody"

    answer = await http.post("/workflows", json=document)

    assert answer.status_code == 422
    assert answer.json()["detail"] == "rules.0 (t.start): there is no task nobody"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/workflows/none"),
        ("POST", "/workflows/none/pause"),
        ("GET", "/workflows/none/rules"),
        ("GET", "/workflows/none/rules/r/why"),
        ("POST", "/workflows/none/tasks/t/start"),
        ("GET", "/workflows/none/tasks/t/runs"),
        ("GET", "/runs/none"),
    ],
)
async def test_unknown_is_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
