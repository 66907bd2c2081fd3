"""The sample joiner as a service: exact rows, accounting and change stream, whatever ends or stops underneath."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from headrace_core.contracts import Action, BehaviorEvent

from load_tests.streams.harness import (
    Offsets,
    Workers,
    close_windows,
    disturb,
    ends,
    is_consumed,
    produce,
    tended,
    wait_for,
)
from load_tests.streams.samples_check import Report, check, totals
from load_tests.streams.world import BEHAVIOR, Message, World, WorldPlan, build
from tests.conftest import Stores, running_stores

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

PARTITIONS = 4
WINDOW_MS = 60_000
HORIZON_MS = 7 * 86_400_000
SESSION_S = 3.0
DEADLINE_S = 240.0


@pytest.fixture
def stores() -> Iterator[Stores]:
    """Stores of each test's own: the joiner works on the platform's own topics and tables."""
    with running_stores() as running:
        yield running


@dataclass(frozen=True)
class Scene:
    """Two workers on a stream with known truth."""

    stores: Stores
    workers: Workers
    world: World

    async def play(self, rate: float, trouble: "Callable[[asyncio.Task[None]], Awaitable[int]]") -> tuple[Report, int]:
        """Stream everything at `rate` while there is trouble; what came of it, and how much trouble there was."""
        self.workers.start()
        try:
            sending = asyncio.create_task(produce(self.stores.kafka_address, self.world, rate=rate))
            times = await trouble(sending)
            await sending
            await close_windows(self.stores.kafka_address, self.world, PARTITIONS, 2 * HORIZON_MS)
            until = await ends(self.stores.kafka_address)
            await wait_for(lambda: self.settled(until), self.workers, DEADLINE_S, "settled accounting")
            checking = check(self.world, self.stores.postgres_dsn, self.stores.kafka_address)
            return await tended(checking, self.workers, DEADLINE_S, "a comparison"), times
        finally:
            self.workers.stop()

    async def settled(self, until: Offsets) -> bool:
        """All was read and no window is open. Sums alone do not tell: late clicks and late logs change rows after they close."""
        if not await is_consumed(self.stores.postgres_dsn, "sample-joiner", until):
            return False
        return (await totals(self.stores.postgres_dsn))["pending"] == 0


def a_scene(stores: Stores, folder: Path, requests: int) -> Scene:
    plan = WorldPlan(requests=requests, start=int(time.time() * 1000) - 700_000, window_ms=WINDOW_MS)
    settings = {
        "HEADRACE_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS),
        "HEADRACE_KAFKA_SESSION_TIMEOUT_MS": str(int(SESSION_S * 1000)),
    }
    workers = Workers("headrace_sample_joiner", stores.environment() | settings, folder)
    return Scene(stores, workers, build(plan))


def assert_exact(report: Report, world: World) -> None:
    assert report.exact, report
    assert report.totals["impressions"] == world.impressions
    assert report.totals["joined"] == len(world.labels)
    assert report.totals["orphaned"] == len(world.orphans)
    assert report.totals["duplicate"] == world.impressions - len(world.labels) - len(world.orphans)
    assert report.totals["positive"] == sum(world.labels.values())


@pytest.mark.parametrize(
    ("requests", "rate", "every_s"),
    [
        pytest.param(2_000, 1_500.0, 5.0, id="small"),
        pytest.param(20_000, 2_500.0, 15.0, id="200,000 impressions", marks=pytest.mark.long),
    ],
)
async def test_every_sample_is_right_through_kills(
    stores: Stores, tmp_path: Path, requests: int, rate: float, every_s: float
) -> None:
    scene = a_scene(stores, tmp_path, requests)

    report, kills = await scene.play(rate, lambda s: disturb(scene.workers, random.Random(3), every_s, s))

    assert kills >= 2
    assert_exact(report, scene.world)


@pytest.mark.long  # tests/integration/test_runtime.py stops workers past their session in the short run, too
async def test_every_sample_is_right_when_workers_wake_up_after_their_session(stores: Stores, tmp_path: Path) -> None:
    scene = a_scene(stores, tmp_path, 2_000)

    async def stop_and_wake(sending: "asyncio.Task[None]") -> int:
        times = 0
        while not sending.done():
            victim = times % scene.workers.replicas
            await asyncio.wait([sending], timeout=2.0)
            scene.workers.kill(victim, signal.SIGSTOP)
            await asyncio.sleep(SESSION_S + 2)
            scene.workers.kill(victim, signal.SIGCONT)
            times += 1
            scene.workers.tend()
        return times

    report, times = await scene.play(1_000.0, stop_and_wake)

    assert times >= 2
    assert_exact(report, scene.world)


@pytest.mark.parametrize(
    ("requests", "rate", "between_s", "outage_s"),
    [
        pytest.param(2_000, 500.0, 3.0, 8.0, id="small"),
        pytest.param(20_000, 2_500.0, 15.0, 20.0, id="200,000 impressions", marks=pytest.mark.long),
    ],
)
async def test_every_sample_is_right_when_stores_are_away(  # noqa: PLR0917  # how much, how fast, how long away
    stores: Stores, tmp_path: Path, requests: int, rate: float, between_s: float, outage_s: float
) -> None:
    scene = a_scene(stores, tmp_path, requests)

    async def stop_stores(sending: "asyncio.Task[None]") -> int:
        outages = 0
        for store in ("postgres", "kafka"):
            await asyncio.wait([sending], timeout=between_s)
            outages += not sending.done()
            await asyncio.to_thread(stores.stack.stop, store)
            up_again = time.monotonic() + outage_s
            while time.monotonic() < up_again:
                scene.workers.tend()
                await asyncio.sleep(0.5)
            await asyncio.to_thread(stores.stack.start, store)
            await asyncio.to_thread(stores.stack.wait_ready, store)
        return outages

    report, outages = await scene.play(rate, stop_stores)

    assert outages == 2
    assert_exact(report, scene.world)


async def test_window_ends_without_any_further_event_and_a_late_click_corrects(stores: Stores, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    world = build(WorldPlan(requests=1, start=now, slate=1, clicks=0.0, duplicated=0.0, lost_logs=0.0, disorder_ms=0))
    settings = {
        "HEADRACE_ATTRIBUTION_WINDOW_MS": "2000",
        "HEADRACE_LATENESS_MS": "1000",
        "HEADRACE_IDLE_AFTER_MS": "500",
    }
    workers = Workers("headrace_sample_joiner", stores.environment() | settings, tmp_path, replicas=1)
    connection = await asyncpg.connect(stores.postgres_dsn)

    def row_is(label: int, version: int) -> Callable[[], Awaitable[bool]]:
        async def found() -> bool:
            rows = await connection.fetch("SELECT label, version FROM samples.current")
            return [tuple(r) for r in rows] == [(label, version)]

        return found

    workers.start()
    try:
        await produce(stores.kafka_address, world)
        await wait_for(row_is(0, 1), workers, DEADLINE_S, "a negative")
        impression = BehaviorEvent.FromString(next(m.value for m in world.messages if m.topic == BEHAVIOR))
        impression.action, impression.event_id = Action.ACTION_CLICK, "late"
        world.messages = [Message(BEHAVIOR, impression.user_id, impression.SerializeToString())]

        await produce(stores.kafka_address, world)

        await wait_for(row_is(1, 2), workers, DEADLINE_S, "a correction")
    finally:
        workers.stop()
        await connection.close()
