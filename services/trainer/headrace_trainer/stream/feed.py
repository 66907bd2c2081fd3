"""Records of samples.v1 by offset: first those that a plan names, then what comes."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from headrace_core.contracts import Millis
from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings

from headrace_trainer.stream.line import SampleRecord
from headrace_trainer.stream.plan import OffsetRange

TOPIC: Final = "samples.v1"

_CLOCKS_MS: Final = 60_000
_POLL_MS: Final = 200
_AHEAD: Final = 4


class GoneError(Exception):
    """Records that are needed are no longer in the topic; only a newer base can go on from there."""


class Feed:
    """All partitions of the topic, read by one consumer without a group: offsets are the trainer's own."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Nothing is connected yet."""
        self._settings = settings
        self._consumer: Any = None
        self._buffers: dict[int, deque[SampleRecord]] = {}
        self._next: dict[int, int] = {}

    async def open(self) -> None:
        """Connect.

        Raises:
            aiokafka.errors.KafkaError: Kafka is away.
        """
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings), enable_auto_commit=False, auto_offset_reset="none",
            request_timeout_ms=self._settings.kafka_request_timeout_ms, fetch_max_wait_ms=self._settings.kafka_fetch_wait_ms,
        )  # fmt: skip
        await self._consumer.start()

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def _partitions(self) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(
            **connection(self._settings), request_timeout_ms=self._settings.kafka_request_timeout_ms
        )
        await admin.start()
        try:
            (told,) = await admin.describe_topics([TOPIC])
        finally:
            await admin.close()
        if told["error_code"]:
            raise KafkaError(f"{TOPIC}: {for_code(told['error_code']).description}; headrace-init creates the topics")
        return [TopicPartition(TOPIC, p) for p in sorted(p["partition"] for p in told["partitions"])]

    async def start(self, known: dict[int, int], since: Millis) -> dict[int, int]:
        """Begin to read; per partition the first offset.

        Args:
            known: per partition, where to begin.
            since: where nothing is known, with what was published after this time, ms since the epoch; 0 for all.
        """
        tps = await self._partitions()
        self._consumer.assign(tps)
        ends = await self._consumer.end_offsets(tps)
        timed: dict[Any, Any] = {}
        if since:
            timed = await self._consumer.offsets_for_times({tp: max(0, since - _CLOCKS_MS) for tp in tps})
        first = await self._consumer.beginning_offsets(tps)
        self._buffers = {tp.partition: deque() for tp in tps}
        for tp in tps:
            at = timed.get(tp)
            found = (at.offset if at else ends[tp]) if since else first[tp]
            self._next[tp.partition] = known.get(tp.partition, found)
            self._consumer.seek(tp, self._next[tp.partition])
        return dict(self._next)

    async def ends(self) -> dict[int, int]:
        """Per partition, the offset after the newest record."""
        tps = [TopicPartition(TOPIC, p) for p in self._buffers]
        return {tp.partition: end for tp, end in (await self._consumer.end_offsets(tps)).items()}

    async def read(self, ranges: Sequence[OffsetRange]) -> list[SampleRecord]:
        """The records of the ranges, in their order; each begins where its partition was left.

        Raises:
            GoneError: the topic no longer holds them.
        """
        found: list[SampleRecord] = []
        for partition, start, end in ranges:
            if start != self._next[partition]:
                raise GoneError(
                    f"{TOPIC}-{partition}: the plan goes on at {start}, what was read at {self._next[partition]}"
                )
            buffer = self._buffers[partition]
            while not buffer or buffer[-1].offset < end - 1:
                await self._fill([partition], end - start)
            while buffer and buffer[0].offset < end:
                found.append(buffer.popleft())
            self._next[partition] = end
        return found

    async def next_ranges(self, limit: int, wait_ms: int, first: int) -> tuple[OffsetRange, ...]:
        """What could be read next: up to `limit` records, all from memory then.

        Waits until so many are there, or some are and `wait_ms` is over; gives nothing after `wait_ms` without any.

        Args:
            limit: most records.
            wait_ms: see above.
            first: partition that may fill the batch first, modulo their number; let it go round.
        """
        deadline = time.monotonic() + wait_ms / 1000
        while sum(map(len, self._buffers.values())) < limit and (left := deadline - time.monotonic()) > 0:
            await self._fill(list(self._buffers), limit, max(1, int(left * 1000)))
        partitions = sorted(self._buffers)
        first %= max(1, len(partitions))
        ranges: list[OffsetRange] = []
        for partition in partitions[first:] + partitions[:first]:
            buffer = self._buffers[partition]
            count = min(limit, len(buffer))
            if count:
                ranges.append(OffsetRange(partition, self._next[partition], buffer[count - 1].offset + 1))
                limit -= count
        return tuple(ranges)

    async def _fill(self, partitions: Sequence[int], limit: int, wait_ms: int = _POLL_MS) -> None:
        tps = [TopicPartition(TOPIC, p) for p in partitions]
        try:
            fetched = await self._consumer.getmany(*tps, timeout_ms=min(wait_ms, _POLL_MS), max_records=_AHEAD * limit)
        except OffsetOutOfRangeError as error:
            raise GoneError(f"{TOPIC}: offsets {error.args[0]} are no longer there") from error
        for tp, records in fetched.items():
            self._buffers[tp.partition].extend(records)
