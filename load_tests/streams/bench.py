"""What benchmarks of stream workers share: stores of their own, CPU by process tree, workers with and without Faust."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from headrace_core.runtime.bare_driver import BareDriver
from headrace_core.runtime.job import Job
from headrace_core.runtime.worker import WorkerSettings, calm_garbage_collector, make_runner
from headrace_core.telemetry import configure_logging
from headrace_stack.layout import Layout
from headrace_stack.stack import Stack

PARTITIONS: Final = 4
STORES: Final = ("kafka", "postgres", "valkey")
_CLAIM_POLL_SECONDS: Final = 0.02
_POLL_SECONDS: Final = 0.2
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stores:
    """Running stores.

    Attributes:
        stack: that keeps them.
        environment: HEADRACE_… for a service on them.
    """

    stack: Stack
    environment: Mapping[str, str]

    @property
    def kafka(self) -> str:
        """Address of Kafka."""
        return self.environment["HEADRACE_KAFKA"]

    @property
    def postgres(self) -> str:
        """DSN of PostgreSQL."""
        return self.environment["HEADRACE_POSTGRES"]

    def pids(self) -> dict[str, int]:
        """Process ids of the stores."""
        return {name: self.stack.pid(name) for name in STORES}


@contextmanager
def running_stores() -> Iterator[Stores]:
    """Kafka, PostgreSQL and Valkey in a folder of their own, gone afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also then nothing may stay behind
    home = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    stack = Stack(Layout(home), services=())
    try:
        described = stack.up()
        environment = {
            "HEADRACE_KAFKA": described["kafka"],
            "HEADRACE_POSTGRES": described["postgres"],
            "HEADRACE_REDIS": described["redis"],
            "HEADRACE_DEFINITIONS": str(Path(__file__).resolve().parents[2] / "definitions"),
        }
        yield Stores(stack, environment)
    finally:
        stack.down()
        shutil.rmtree(home, ignore_errors=True)


def cpu_seconds(root: int) -> float:
    """CPU time of a process and all below it, children that have ended and were reaped included."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    total, tree = 0, [root]
    while tree:
        pid = tree.pop()
        total += ticks.get(pid, 0)
        tree += children.get(pid, [])
    return total / _TICKS


@dataclass(frozen=True, slots=True)
class Figures:
    """What one worker needed for a stream that waited for it in Kafka.

    Attributes:
        seconds: from its claim until everything was settled.
        cpu_seconds: by process: worker, postgres, valkey, kafka.
    """

    seconds: float
    cpu_seconds: Mapping[str, float]

    def per_event(self, events: int) -> dict[str, Any]:
        """For JSON; CPU-seconds per million events are µs per event."""
        each = {name: round(cpu / events * 1e6, 2) for name, cpu in self.cpu_seconds.items()}
        own = sum(cpu for name, cpu in each.items() if name != "kafka")
        return {
            "events_per_s": round(events / self.seconds),
            "cpu_s_per_million_events": each,
            "cpu_s_per_million_events_without_kafka": round(own, 2),
        }


#: Whether everything is done, asked on a connection that lasts: a new one a question would count as PostgreSQL's cost.
Settled = Callable[[Any], Awaitable[bool]]


@contextmanager
def running_worker(command: Sequence[str], stores: Stores) -> Iterator["subprocess.Popen[bytes]"]:
    """One worker on the stores, ended gently; what it says goes to our stderr if it ends by itself.

    Raises:
        RuntimeError: it had ended.
    """
    environment = os.environ | dict(stores.environment) | {"HEADRACE_METRICS_PORT": "0"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield process
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"the worker ended:\n{log.read()[-3_000:].decode(errors='replace')}")
        finally:
            process.terminate()
            process.wait(60)


async def measure(command: Sequence[str], stores: Stores, jobs: Sequence[str], settled: Settled) -> Figures:
    """Run one worker on what waits in Kafka until it is settled; its start-up is not counted.

    Args:
        command: argument vector of the worker.
        stores: where it works.
        jobs: names of its jobs, by whose claims the start-up ends.
        settled: whether everything is done.

    Raises:
        RuntimeError: the worker ended.
    """

    async def claimed(connection: Any) -> bool:
        count = await connection.fetchval("SELECT count(*) FROM runtime.partitions WHERE job = ANY($1)", list(jobs))
        return bool(count == PARTITIONS * len(jobs))

    connection = await asyncpg.connect(stores.postgres)
    try:
        with running_worker(command, stores) as process:
            pids = {"worker": process.pid, **stores.pids()}
            while not await claimed(connection) and process.poll() is None:  # noqa: ASYNC110  # another process
                await asyncio.sleep(_CLAIM_POLL_SECONDS)
            before, start = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
            while not await settled(connection) and process.poll() is None:  # noqa: ASYNC110  # another process
                await asyncio.sleep(_POLL_SECONDS)
            seconds = time.monotonic() - start
            after = {name: cpu_seconds(pid) for name, pid in pids.items()}
    finally:
        await connection.close()
    return Figures(seconds, {name: after[name] - before[name] for name in pids})


def drive_bare(service: str, settings: WorkerSettings, jobs: Sequence[Job]) -> None:
    """A worker without Faust, on all partitions, until SIGTERM."""
    configure_logging(settings)

    async def run() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        runners = [make_runner(service, job, settings) for job in jobs]
        calm_garbage_collector()
        await BareDriver(runners, range(PARTITIONS), settings).run(ended.is_set)

    asyncio.run(run())


async def forget(postgres: str, tables: Sequence[str]) -> None:
    """Empty tables and everything of the runtime, so that the next worker starts from the beginning."""
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute(f"TRUNCATE runtime.partitions, runtime.state, {', '.join(tables)}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def python_module(name: str, *arguments: str) -> list[str]:
    """Argument vector that runs a module by this interpreter."""
    return [sys.executable, "-m", name, *arguments]
