"""Versions swapped under load: `python -m load_tests.hot_swap [--swaps 20] [--callers 4] [--rows 300000]` prints figures as JSON.

Callers ask for scores of the version that serves, one request after the other, as a gateway does; every score is compared with
what its named version must say. First nothing is swapped, then one version after the other is loaded beside the one that serves,
takes its place, and the old one is unloaded. Exit code 1 when a request failed or a score is not its version's.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from headrace_core.serving.client import Aspired, ModelServerClient, ServingError
from headrace_core.serving.messages import VersionState
from numpy.typing import NDArray

from load_tests.serving.process import ModelServerProcess
from load_tests.serving.saved_models import Weights, expected, export, inputs

MODEL = "ctr"


@dataclass
class Load:
    """What callers do and see.

    Attributes:
        current: the version that serves.
        latencies: of each answer, seconds, by phase.
        failed: messages of requests that got no answer.
        wrong: answers that are not their version's.
    """

    client: ModelServerClient
    columns: list[dict[str, NDArray[Any]]]
    wanted: dict[int, list[NDArray[np.float32]]]
    current: int = 1
    phase: str = "before"
    latencies: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    wrong: int = 0
    answered_by: set[int] = field(default_factory=set)

    async def ask(self, caller: int, done: asyncio.Event) -> None:
        """One caller."""
        n = caller
        while not done.is_set():
            n = (n + 1) % len(self.columns)
            phase, version, started = self.phase, self.current, time.perf_counter()
            try:
                answer = await self.client.predict(MODEL, version, self.columns[n], timeout_s=5)
            except ServingError as error:
                self.failed.append(str(error))
                continue
            self.latencies.setdefault(phase, []).append(time.perf_counter() - started)
            self.answered_by.add(answer.version)
            right = np.allclose(answer.outputs["score"], self.wanted[answer.version][n], rtol=1e-5, atol=1e-7)
            if answer.version != version or not right:
                self.wrong += 1

    async def swap(self, base_path: str, to: int) -> float:
        """Deploy a version as the deployer does; seconds until it served."""
        started = time.perf_counter()
        await self.client.reload({MODEL: Aspired(base_path, (self.current, to))})
        await reached(self.client, to, VersionState.VERSION_STATE_AVAILABLE)
        old, self.current = self.current, to
        took = time.perf_counter() - started
        await asyncio.sleep(0.2)  # the grace, in which requests that named the old one end
        await self.client.reload({MODEL: Aspired(base_path, (to,))})
        await reached(self.client, old, VersionState.VERSION_STATE_END)
        return took


async def reached(client: ModelServerClient, version: int, state: VersionState) -> None:
    """Wait until a version is in a state."""
    while True:
        found = (await client.status(MODEL)).get(version)
        if found is not None and found.state == state:
            return
        await asyncio.sleep(0.01)


def figures(latencies: list[float]) -> dict[str, float]:
    """Quantiles in ms."""
    p50, p99, worst = np.quantile(latencies, [0.5, 0.99, 1.0]) * 1_000
    return {"requests": len(latencies), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(worst, 2)}


async def run(server: ModelServerProcess, root: Path, told: argparse.Namespace) -> dict[str, Any]:
    """The figures."""
    rng = np.random.default_rng(1)
    keys = rng.integers(-(2**62), 2**62, told.rows)
    columns = [inputs(*rng.choice(keys, told.items).tolist(), rate=0.1 * n) for n in range(50)]
    wanted = {}
    for version in range(1, told.swaps + 2):
        logits = rng.normal(size=told.rows)
        weights = Weights(bias=version / 10, rows=dict(zip(keys.tolist(), logits.tolist(), strict=True)), rate=1.0)
        export(root, MODEL, version, weights)
        wanted[version] = [expected(weights, c) for c in columns]
    base_path = str(root / MODEL)
    async with ModelServerClient(server.address) as client:
        load = Load(client, columns, wanted)
        await client.reload({MODEL: Aspired(base_path, (1,))})
        await reached(client, 1, VersionState.VERSION_STATE_AVAILABLE)
        await load.swap(base_path, 2)  # both slots are there from now on, as in any process that is not new
        done, took = asyncio.Event(), []
        callers = [asyncio.create_task(load.ask(n, done)) for n in range(told.callers)]
        load.phase = "warm up"
        await asyncio.sleep(1)
        load.phase = "before"
        await asyncio.sleep(told.seconds)
        load.phase = "during"
        for version in range(3, told.swaps + 2):
            took.append(await load.swap(base_path, version))
            await asyncio.sleep(told.every)
        took.append(await load.swap(base_path, 1))
        load.phase = "after"
        await asyncio.sleep(1)
        done.set()
        await asyncio.gather(*callers)
    before, during = figures(load.latencies["before"]), figures(load.latencies["during"])
    return {
        "swaps": len(took),
        "failed": len(load.failed),
        "wrong_scores": load.wrong,
        "versions_that_answered": len(load.answered_by),
        "before": before,
        "during": during,
        "p99_ratio": round(during["p99_ms"] / before["p99_ms"], 2),
        "until_it_serves_ms": {"p50": round(float(np.median(took)) * 1e3, 1), "max": round(max(took) * 1e3, 1)},
        "rows": told.rows,
        "items_per_request": told.items,
        "callers": told.callers,
        "cores": os.cpu_count(),
        "first_failures": load.failed[:3],
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--items", type=int, default=100, help="scored in one request")
    parser.add_argument("--rows", type=int, default=300_000, help="of the id table")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured before the first swap")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between swaps")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-hot-swap-") as folder:
        server = ModelServerProcess(Path(folder))
        server.spawn()
        try:
            server.wait_ready()
            found = asyncio.run(run(server, Path(folder), told))
        finally:
            server.stop()
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if found["failed"] or found["wrong_scores"] or found["swaps"] < told.swaps else 0)


if __name__ == "__main__":
    main()
