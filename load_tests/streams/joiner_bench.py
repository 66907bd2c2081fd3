"""What the sample joiner costs: `python -m load_tests.streams.joiner_bench` prints JSON.

It starts stores of its own, writes a seeded stream into Kafka and lets one worker catch up with it: the Faust worker, and
beside it the same operators and checkpoints without Faust, which is the limit.
"""

import argparse
import asyncio
import json
import time
from typing import Any

import asyncpg
from headrace_sample_joiner.__main__ import joiner_job
from headrace_sample_joiner.settings import SampleJoinerSettings

from load_tests.streams.bench import (
    PARTITIONS,
    Figures,
    Stores,
    drive_bare,
    forget,
    measure,
    python_module,
    running_stores,
)
from load_tests.streams.harness import close_windows, produce
from load_tests.streams.samples_check import check
from load_tests.streams.world import World, WorldPlan, build

WINDOW_MS = 60_000
AHEAD_MS = 10 * WINDOW_MS
TABLES = ["samples.requests", "samples.actions", "samples.waiting", "samples.accounting", "samples.changes"]
COMMANDS = {
    "faust": python_module("headrace_sample_joiner"),
    "bare": python_module("load_tests.streams.joiner_bench", "--drive-bare"),
}


async def begin_incarnation(postgres: str) -> None:
    """Let sequences begin anew."""
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute("UPDATE runtime.incarnation SET incarnation = incarnation + 1")
    finally:
        await connection.close()


async def run(driver: str, stores: Stores, world: World) -> Figures:
    """Figures of one worker, from an empty store."""
    await forget(stores.postgres, TABLES)

    async def settled(connection: Any) -> bool:
        row = await connection.fetchrow("SELECT sum(joined) AS joined, sum(pending) AS open FROM samples.accounting")
        return row["joined"] is not None and row["joined"] >= len(world.labels) and row["open"] == 0

    return await measure(COMMANDS[driver], stores, ["sample-joiner"], settled)


async def bench(requests: int, drivers: list[str]) -> dict[str, Any]:
    """All figures."""
    world = build(WorldPlan(requests=requests, start=int(time.time() * 1000) - 700_000, window_ms=WINDOW_MS))
    events = len(world.messages)
    answer: dict[str, Any] = {"events": events, "impressions": world.impressions, "requests": requests}
    with running_stores() as found:
        environment = {**found.environment, "HEADRACE_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS)}
        stores = Stores(found.stack, environment)
        await produce(stores.kafka, world)
        await close_windows(stores.kafka, world, PARTITIONS, AHEAD_MS)
        for n, driver in enumerate(drivers):
            if n:  # a database that knows less than samples.v1 must declare it
                await begin_incarnation(stores.postgres)
            figures = await run(driver, stores, world)
            answer[driver] = figures.per_event(events)
            if n == 0:  # afterwards samples.v1 holds more than one run
                report = await check(world, stores.postgres, stores.kafka)
                answer["exact"] = report.exact
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
        settings = SampleJoinerSettings()
        drive_bare("sample-joiner", settings, [joiner_job(settings)])
        return
    print(json.dumps(asyncio.run(bench(arguments.requests, arguments.drivers)), indent=2))


if __name__ == "__main__":
    main()
