"""The feature worker as a service: Redis equals a naive batch computation, through crashes and outages."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from load_tests.streams.features_check import Truth, add_views, check
from load_tests.streams.harness import Workers, disturb, produce, wait_for
from load_tests.streams.world import BEHAVIOR, WorldPlan, build
from tests.conftest import Stores, running_stores

pytestmark = pytest.mark.stack

DEADLINE_S = 180.0


@pytest.fixture
def fresh_stores() -> Iterator[Stores]:
    """Nothing but the stream under test may be in the topics."""
    with running_stores() as running:
        yield running


@pytest.mark.parametrize(
    ("requests", "rate", "every_s", "pause_s"),
    [
        pytest.param(2_000, 1_500.0, 5.0, 0.0, id="small"),
        pytest.param(20_000, 3_000.0, 15.0, 6.0, id="200,000 impressions", marks=pytest.mark.long),
    ],
)
async def test_redis_equals_a_naive_batch_through_kills(  # noqa: PLR0917  # the sizes of one run
    fresh_stores: Stores, tmp_path: Path, requests: int, rate: float, every_s: float, pause_s: float
) -> None:
    world = build(WorldPlan(requests=requests, start=int(time.time() * 1000) - 700_000, users=requests // 10))
    add_views(world, 0.03)
    truth = Truth.of(world)
    settings = {"HEADRACE_KAFKA_SESSION_TIMEOUT_MS": "3000"}
    workers = Workers("headrace_feature_worker", fresh_stores.environment() | settings, tmp_path)
    workers.start()
    try:
        sending = asyncio.create_task(produce(fresh_stores.kafka_address, world, rate=rate, topics=(BEHAVIOR,)))
        kills = await disturb(workers, random.Random(3), every_s, sending, pause_s=pause_s)
        await sending

        async def equal() -> bool:
            return not (await check(world, truth, fresh_stores.redis_url)).wrong

        try:
            await wait_for(equal, workers, DEADLINE_S, "Redis as computed from the whole stream")
        except TimeoutError as error:
            report = await check(world, truth, fresh_stores.redis_url)
            raise AssertionError(f"{len(report.wrong)} wrong: {report.wrong[:3]}\n{error}") from None
        report = await check(world, truth, fresh_stores.redis_url)
    finally:
        workers.stop()

    assert kills >= 2
    assert report.rows > 100
    assert report.users > requests // 20
