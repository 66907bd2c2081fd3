"""Worker processes that can be killed, and a producer with a pace."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from load_tests.streams.world import BEHAVIOR, LOGS, World

_POLL_SECONDS: Final = 0.25

Result = TypeVar("Result")

#: Next offset by topic and partition.
Offsets = Mapping[tuple[str, int], int]


@dataclass
class Workers:
    """Replicas of one service as processes of their own, started again when they end.

    Attributes:
        module: what `python -m` runs.
        environment: HEADRACE_… settings, the same for all.
        folder: for logs.
        replicas: how many.
    """

    module: str
    environment: Mapping[str, str]
    folder: Path
    replicas: int = 2
    ended: list[int] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start all replicas."""
        self._processes = [self._start(n) for n in range(self.replicas)]

    def kill(self, replica: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; what ends is started again by `tend`."""
        self._processes[replica].send_signal(number)

    def tend(self) -> None:
        """Start again what has ended."""
        for n, process in enumerate(self._processes):
            code = process.poll()
            if code is not None:
                self.ended.append(code)
                self._processes[n] = self._start(n)

    def cpu_seconds(self) -> float:
        """User and system time of the living replicas."""
        ticks = 0
        for process in self._processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End all replicas, gently at first."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self) -> str:
        """The end of every replica's log."""
        paths = sorted(self.folder.glob(f"{self.module}-*.log"))
        return "\n".join(f"--- {p.name}\n" + p.read_text(encoding="utf-8", errors="replace")[-3_000:] for p in paths)

    def _start(self, replica: int) -> subprocess.Popen[bytes]:
        environment = os.environ | dict(self.environment)
        environment |= {"HEADRACE_REPLICA": str(replica), "HEADRACE_METRICS_PORT": "0"}
        with (self.folder / f"{self.module}-{replica}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self.module], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


async def tended(awaitable: "Coroutine[Any, Any, Result]", workers: Workers, deadline_s: float, what: str) -> Result:
    """Result of something that needs living workers.

    Raises:
        TimeoutError: it did not come in time.
    """
    task = asyncio.ensure_future(awaitable)

    async def done() -> bool:
        return task.done()

    try:
        await wait_for(done, workers, deadline_s, what)
    finally:
        task.cancel()
    return await task


async def produce(
    kafka: str, world: World, *, rate: float | None = None, topics: tuple[str, ...] = (BEHAVIOR, LOGS)
) -> None:
    """Write the world's messages in order, `rate` a second or as fast as Kafka takes them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka,
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=262_144,
        request_timeout_ms=120_000,
    )  # waits through an outage of the broker
    await producer.start()
    try:
        start = time.monotonic()
        pending = []
        for n, message in enumerate(m for m in world.messages if m.topic in topics):
            pending.append(await producer.send(message.topic, message.value, key=message.key.encode()))
            if len(pending) >= 5_000:
                await asyncio.gather(*pending)
                pending.clear()
            if rate and n % 100 == 0 and (ahead := start + n / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
        await asyncio.gather(*pending)
    finally:
        await producer.stop()


async def close_windows(kafka: str, world: World, partitions: int, ahead_ms: int) -> None:
    """Move the time of every partition far ahead, so that nothing keeps waiting."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for partition, message in world.closing(partitions, ahead_ms):
            await producer.send_and_wait(message.topic, message.value, key=message.key.encode(), partition=partition)
    finally:
        await producer.stop()


async def ends(kafka: str, topics: tuple[str, ...] = (BEHAVIOR, LOGS)) -> Offsets:
    """Where the topics end by now."""
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic) or ()]
        found = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
    return {(place.topic, place.partition): offset for place, offset in found.items()}


async def is_consumed(postgres: str, job: str, until: Offsets) -> bool:
    """Whether the job's checkpoints hold all effects of what is before these offsets."""
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch("SELECT partition, offsets FROM runtime.partitions WHERE job = $1", job)
    finally:
        await connection.close()
    reached = {(topic, r["partition"]): n for r in rows for topic, n in json.loads(r["offsets"]).items()}
    return all(reached.get(place, 0) >= offset for place, offset in until.items())


async def disturb(
    workers: Workers, rng: random.Random, every_s: float, until: "asyncio.Task[None]", *, pause_s: float = 0.0
) -> int:
    """Kill a random replica about every so often (or stop it for `pause_s`) until the task is done; how many."""
    count = 0
    while not until.done():
        await asyncio.wait([until], timeout=every_s * (0.5 + rng.random()))
        victim = rng.randrange(workers.replicas)
        workers.tend()
        if pause_s and count % 3 == 2:
            workers.kill(victim, signal.SIGSTOP)
            await asyncio.sleep(pause_s)
            workers.kill(victim, signal.SIGCONT)
        else:
            workers.kill(victim)
        count += 1
        await asyncio.sleep(0)
        workers.tend()
    return count


async def wait_for(condition: Callable[[], Awaitable[bool]], workers: Workers, deadline_s: float, what: str) -> None:
    """Wait for a condition while keeping the workers alive.

    Raises:
        TimeoutError: it did not come true in time; the message holds the ends of the workers' logs.
    """
    end = time.monotonic() + deadline_s
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {deadline_s} s\n{workers.log()}")
        workers.tend()
        await asyncio.sleep(_POLL_SECONDS)
