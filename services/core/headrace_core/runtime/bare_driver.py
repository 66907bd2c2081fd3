"""Drives jobs with nothing but aiokafka: what the same operators and checkpoints cost without Faust.

The limit that benchmarks compare with. It reads fixed partitions, without a group.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from headrace_core.runtime.kafka_clients import connection
from headrace_core.runtime.runner import JobRunner
from headrace_core.settings import KafkaSettings

_TICK_SECONDS: Final = 0.1


class BareDriver:
    """Works on fixed partitions of some jobs, without Faust and without a consumer group."""

    def __init__(self, runners: Sequence[JobRunner], partitions: Sequence[int], settings: KafkaSettings) -> None:
        """Work on `partitions` of every job."""
        self._runners, self._partitions = runners, partitions
        self._by_topic = {topic: runner for runner in runners for topic in runner.job.inputs}
        self._settings = settings
        self._checkpoints: dict[str, asyncio.Task[None]] = {}

    async def run(self, until: Callable[[], bool]) -> None:
        """Claim, work until `until` says so after a tick, release.

        Raises:
            FencedError, CheckpointStuckError: as the runner does.
        """
        consumer = AIOKafkaConsumer(
            **connection(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._settings.kafka_fetch_wait_ms,
        )
        await consumer.start()
        try:
            await self._claim(consumer)
            await self._work(consumer, until)
            await asyncio.gather(*self._checkpoints.values())
            for runner in self._runners:
                await runner.close()
        finally:
            await consumer.stop()

    async def _claim(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign([TopicPartition(t, n) for t in self._by_topic for n in self._partitions])
        for runner in self._runners:
            await runner.open()
            for (topic, n), offset in (await runner.claim(self._partitions, None)).items():
                if offset is not None:
                    consumer.seek(TopicPartition(topic, n), offset)

    async def _work(self, consumer: AIOKafkaConsumer, until: Callable[[], bool]) -> None:
        def caught_up(topic: str, n: int, offset: int) -> bool:
            highwater = consumer.highwater(TopicPartition(topic, n))
            return highwater is not None and offset >= highwater

        ticked = 0.0
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=50, max_records=5_000)).items():
                runner = self._by_topic[tp.topic]
                runner.feed(tp.topic, tp.partition, records)
                self._kick(runner)
                if runner.overloaded:
                    await self._checkpoints[runner.job.name]
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                for runner in self._runners:
                    runner.tick(caught_up, int(time.time() * 1000))
                    self._kick(runner)
                if until():
                    return

    def _kick(self, runner: JobRunner) -> None:
        task = self._checkpoints.get(runner.job.name)
        if task is not None and task.done():
            task.result()  # a failed checkpoint ends the run
        if runner.due and not runner.busy:
            self._checkpoints[runner.job.name] = asyncio.get_running_loop().create_task(runner.checkpoint())
