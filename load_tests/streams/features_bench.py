"""What the feature worker costs: `python -m load_tests.streams.features_bench` prints JSON.

Each driver gets stores of its own with the same seeded stream waiting in Kafka: the Faust worker, and beside it the same
operators and checkpoints without Faust, which is the limit.
"""

import argparse
import asyncio
import json
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from headrace_core.definitions.features import load_features
from headrace_feature_worker.__main__ import feature_jobs
from headrace_feature_worker.operators.ranking import PARTIALS
from headrace_feature_worker.settings import FeatureWorkerSettings
from headrace_feature_worker.store.shown import Shown

from load_tests.streams.bench import (
    PARTITIONS,
    Figures,
    Stores,
    drive_bare,
    measure,
    python_module,
    running_stores,
)
from load_tests.streams.features_check import Truth, add_views, check
from load_tests.streams.harness import produce
from load_tests.streams.world import BEHAVIOR, World, WorldPlan, build

COMMANDS = {
    "faust": python_module("headrace_feature_worker"),
    "bare": python_module("load_tests.streams.features_bench", "--drive-bare"),
}
_OFFSETS = "SELECT coalesce(sum(value::bigint), 0) FROM runtime.partitions, jsonb_each_text(offsets) WHERE job = $1"


async def run(driver: str, stores: Stores, events: int) -> Figures:
    """Figures of one worker: done when all events are counted and the counts that this made are ranked."""
    partials: int | None = None

    async def settled(connection: Any) -> bool:
        nonlocal partials
        if partials is None and await connection.fetchval(_OFFSETS, "features") >= events:
            partials = await _records(stores.kafka, PARTIALS)
        return partials is not None and await connection.fetchval(_OFFSETS, "feature-ranking") >= partials

    return await measure(COMMANDS[driver], stores, ["features", "feature-ranking"], settled)


async def _records(kafka: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, n) for n in range(PARTITIONS)])
    finally:
        await consumer.stop()
    return sum(ends.values())


async def bench(requests: int, drivers: list[str]) -> dict[str, Any]:
    """All figures."""
    world: World = build(WorldPlan(requests=requests, start=int(time.time() * 1000) - 700_000))
    add_views(world, 0.03)
    truth = Truth.of(world)
    events = sum(m.topic == BEHAVIOR for m in world.messages)
    answer: dict[str, Any] = {"events": events, "impressions": world.impressions, "requests": requests}
    for driver in drivers:
        with running_stores() as stores:
            await produce(stores.kafka, world, topics=(BEHAVIOR,))
            figures = await run(driver, stores, events)
            answer[driver] = figures.per_event(events)
            report = await check(world, truth, stores.environment["HEADRACE_REDIS"])
            answer[driver]["keys_that_differ_from_batch"] = len(report.wrong)
    if {"faust", "bare"} <= answer.keys():
        cost = {d: answer[d]["cpu_s_per_million_events"]["worker"] for d in ("faust", "bare")}
        answer["worker_cpu_faust_over_bare"] = round(cost["faust"] / cost["bare"], 2)
    return answer


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="of ten impressions each")
    parser.add_argument("--drivers", nargs="+", choices=sorted(COMMANDS), default=["faust", "bare"])
    parser.add_argument("--drive-bare", action="store_true", help="be the worker without Faust")
    arguments = parser.parse_args()
    if arguments.drive_bare:
        settings = FeatureWorkerSettings()
        shown = Shown(settings.redis.get_secret_value(), settings.redis_timeout_ms)
        jobs = feature_jobs(settings, load_features(settings.definitions / "features"), shown)
        drive_bare("feature-worker", settings, jobs)
        return
    print(json.dumps(asyncio.run(bench(arguments.requests, arguments.drivers)), indent=2))


if __name__ == "__main__":
    main()
