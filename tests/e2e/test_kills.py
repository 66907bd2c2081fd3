"""The closed loop while its services are killed: each comes back alone, and versions go on being made, judged and served."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import httpx
import pytest
from headrace_core.control.client import ControlClient, ModelVersion
from headrace_stack.layout import Layout, StackError
from headrace_stack.simulate.story import ADS, StoryWorld
from headrace_stack.simulate.visitors import Habits, Visitors
from headrace_stack.simulate.world import Person
from headrace_stack.stack import Stack

from tests.integration.stack_cli import SHORT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1_200)]

MODEL: Final = "ctr"
FLOW: Final = "realtime_recommender"
DEADLINE_S: Final = 150.0
#: Visits a second.
RATE: Final = 20.0
SETTINGS: Final = SHORT | {"HEADRACE_DEPLOY_GRACE_MS": "1000", "HEADRACE_RUN_LOST_MS": "8000"}
KILLED: Final = ("control-plane-0", "model-validator-0", "model-server-0", "gateway-0", "trainer-0")


@dataclass(frozen=True)
class Answer:
    """What came back of a request.

    Attributes:
        path: that was asked.
        began, ended: ms since the epoch.
        outcome: 200, another status, or the name of the error.
        version: of the model that the answer names.
        degraded: what it lacked.
    """

    path: str
    began: int
    ended: int
    outcome: int | str
    version: int | None = None
    degraded: frozenset[str] = frozenset()


class Crowd(Visitors):
    """The demo's visitors; half of them have a list of their own ranked. Every answer is kept."""

    def __init__(self, gateway: str) -> None:
        super().__init__(gateway, StoryWorld(), Habits(late=0.0), seed=5)
        self.answers: list[Answer] = []
        self._coin = random.Random(6)
        self._asking = httpx.AsyncClient(base_url=gateway, timeout=10.0)

    async def aclose(self) -> None:
        await self._asking.aclose()
        await super().aclose()

    async def ask(self, person: Person, count: int) -> dict[str, Any]:
        path = self._coin.choice(["/v1/recommend", "/v1/rank"])
        body: dict[str, Any] = {"user_id": person.user_id, "page_id": self.world.page_id, "count": count}
        if path == "/v1/rank":
            body["candidates"] = list(ADS)
        began = now_ms()
        try:
            answer = await self._asking.post(path, json=body)
        except httpx.HTTPError as error:
            self.answers.append(Answer(path, began, now_ms(), type(error).__name__))
            raise
        told: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        degraded = frozenset(told.get("degraded", ()))
        self.answers.append(Answer(path, began, now_ms(), answer.status_code, told.get("model_version"), degraded))
        answer.raise_for_status()
        return told

    async def served(self) -> int | None:
        """When a model ranked for the first time, ms since the epoch."""
        return next((a.ended for a in self.answers if a.version), None)


@dataclass
class Platform:
    """What runs for these tests.

    Attributes:
        told: stack.json.
        down: when the gateway was down, from before the kill until it was ready again, ms since the epoch.
    """

    stack: Stack
    told: dict[str, Any]
    down: list[tuple[int, int]] = field(default_factory=list)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def eventually(condition: Any, what: str, deadline_s: float = DEADLINE_S) -> Any:
    end = time.monotonic() + deadline_s
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < end, f"{what} did not come true within {deadline_s} s"
        await asyncio.sleep(0.1)


def reached(version: ModelVersion, stage: str) -> int | None:
    """When a version reached a stage, ms since the epoch."""
    return min((told["time"] for told in version.history if told["stage"] == stage), default=None)


async def served_after(control: ControlClient, moment: int) -> ModelVersion:
    """A version that was generated, validated and deployed after a moment."""

    async def look() -> ModelVersion | None:
        for version in await control.versions(MODEL, stage="DEPLOYED"):
            if (reached(version, "GENERATED") or 0) > moment and reached(version, "VALIDATED"):
                return version
        return None

    found: ModelVersion = await eventually(look, "a version that was generated, validated and deployed after a kill")
    return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Everything, with the demo's definitions."""
    stack = Stack(Layout(tmp_path_factory.mktemp("kills") / "home"), "demo")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        told = stack.up()
        try:
            yield Platform(stack, told)
        finally:
            stack.down()


@asynccontextmanager
async def visited(platform: Platform) -> AsyncIterator[Crowd]:
    crowd, over = Crowd(platform.told["gateway"]), asyncio.Event()
    await crowd.introduce()
    coming = asyncio.create_task(crowd.come(lambda: RATE, over))
    try:
        yield crowd
    finally:
        over.set()
        await coming
        await crowd.aclose()


async def kill(platform: Platform, name: str) -> int:
    """Kill -9 a part; when it is ready again the process manager alone has seen to it. The moment of the kill."""
    before, began = platform.stack.pid(name), now_ms()
    os.kill(before, signal.SIGKILL)

    def replaced() -> bool:
        with suppress(StackError):  # between two processes there is none
            return platform.stack.pid(name) != before
        return False

    async def look() -> bool:
        return await asyncio.to_thread(replaced)

    await eventually(look, f"a new process of {name}")
    await asyncio.to_thread(platform.stack.wait_ready, name)
    if name.startswith("gateway"):
        platform.down.append((began, now_ms()))
    return began


@pytest.mark.parametrize("rounds", [pytest.param(1, id="once"), pytest.param(4, id="often", marks=pytest.mark.long)])
async def test_loop_lives_through_kills_of_each_service(platform: Platform, rounds: int) -> None:
    rng = random.Random(rounds)
    async with ControlClient(platform.told["control"], "test-kills") as control:
        async with visited(platform) as crowd:
            await served_after(control, 0)
            began = await eventually(crowd.served, "an answer by a model")
            for _ in range(rounds):
                for name in rng.sample(KILLED, len(KILLED)):
                    moment_s = rng.uniform(0.0, 4.0)
                    await asyncio.sleep(moment_s)  # until the kill; nothing waits for its end but this
                    await served_after(control, await kill(platform, name))
        versions = {version.version: version for version in await control.versions(MODEL, limit=500)}

    assert_answers_are_good(crowd.answers, versions, platform.down, began)
    connection = await asyncpg.connect(platform.told["postgres"])
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    try:
        await assert_each_event_fired_once(connection)
        await assert_nothing_was_done_twice(connection)
    finally:
        await connection.close()


def assert_answers_are_good(
    answers: list[Answer], versions: dict[int, ModelVersion], down: list[tuple[int, int]], began: int
) -> None:
    """Good or, while there was no gateway, refused; by validated versions or openly by none."""
    bad = [a for a in answers if a.outcome != 200]
    assert [a for a in bad if not any(start <= a.ended and a.began <= end for start, end in down)] == []
    assert {a.outcome for a in bad} <= {"ConnectError", "ReadError", "RemoteProtocolError", "WriteError"}

    good = [a for a in answers if a.outcome == 200]
    assert {a.path for a in good} == {"/v1/recommend", "/v1/rank"}
    for answer in good:
        if answer.version:
            validated = reached(versions[answer.version], "VALIDATED")
            assert validated is not None, answer
            assert validated <= answer.ended, answer
        else:
            assert answer.degraded & {"no_model", "model_unavailable"}, answer
    # A model serves from here on, so nobody may say that there is none.
    assert [a for a in good if a.began > began and "no_model" in a.degraded] == []


async def assert_each_event_fired_once(connection: Any) -> None:
    """Every event that a rule of one condition waits for made it fire once; the base's rule counted each mark at most once."""
    consumed = await connection.fetchval("SELECT consumed FROM control.scheduler")
    fired = await connection.fetch(
        "SELECT rule, unnest(events) AS event FROM control.firings WHERE workflow = $1", FLOW
    )
    times = Counter((row["rule"], row["event"]) for row in fired)
    assert [which for which, n in times.items() if n > 1] == []

    rules = await connection.fetch(
        "SELECT rule, definition->'when' AS condition, active_after FROM control.rule_states WHERE workflow = $1", FLOW
    )
    single = [rule for rule in rules if rule["condition"]["kind"] == "event"]
    assert len(single) == 4
    for rule in single:
        wanted = await connection.fetch(
            'SELECT "offset" FROM control.events WHERE key = $1 AND type = $2 AND "offset" > $3 AND "offset" <= $4',
            rule["condition"]["key"], rule["condition"]["type"], rule["active_after"], consumed,
        )  # fmt: skip
        missed = [row["offset"] for row in wanted if (rule["rule"], row["offset"]) not in times]
        assert missed == [], rule["rule"]
    assert await connection.fetchval("SELECT count(*) FROM control.set_aside") == 0


async def assert_nothing_was_done_twice(connection: Any) -> None:
    """No attempt of a run was claimed twice, and no version reached a stage twice."""
    claims = await connection.fetch(
        "SELECT value, context->>'attempt' AS attempt, count(*) AS n FROM control.events "
        "WHERE type = 'TASK_RUNNING' GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert claims == []
    causes = await connection.fetch(
        "SELECT task, cause->'rule' AS rule, cause->'events' AS events FROM control.runs WHERE workflow = $1", FLOW
    )
    of = Counter((row["task"], row["rule"], event["offset"]) for row in causes for event in row["events"])
    assert [which for which, n in of.items() if n > 1] == []
    stages = await connection.fetch(
        "SELECT model, version, stage FROM control.version_history GROUP BY 1, 2, 3 HAVING count(*) > 1"
    )
    assert stages == []
