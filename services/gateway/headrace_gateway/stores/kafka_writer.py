"""Writes records to Kafka in batches that many calls share, and tells each call what of its own was acknowledged.

Every partition has a lane: a queue and one batch under way. What queues up while a batch is under way goes out together with
the next one, so the number of requests does not grow with the number of calls, and order is kept within a partition.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from headrace_gateway.essential import essential_task
from headrace_gateway.stores.kafka_producer import MAX_RECORD_BYTES, KafkaAwayError, ProducerHost

_UNKNOWN_OFFSET: Final = -1


class Record(NamedTuple):
    """What goes to Kafka."""

    key: bytes
    value: bytes


@lru_cache(maxsize=131_072)
def partition_of(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key: murmur2, sign bit dropped, modulo."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class NotAcknowledgedError(Exception):
    """Kafka did not acknowledge everything in time.

    Attributes:
        acknowledged: indices of the records that are in Kafka all the same. Of the others nothing is known: one of them may
            still arrive, so a caller sends them again under the same event_id.
    """

    def __init__(self, reason: str, acknowledged: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.acknowledged = list(acknowledged)


class OverloadedError(Exception):
    """Too much is waiting for Kafka; try again in a moment. Nothing of the call was sent."""


class _Delivery:
    """One call: its records and what became of them."""

    __slots__ = ("done", "missing", "offsets")

    def __init__(self, count: int) -> None:
        self.offsets: list[int | None] = [None] * count
        self.missing = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def acknowledge(self, index: int, offset: int) -> None:
        self.offsets[index] = offset
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # a caller that left at its deadline asks no more


class _Queued(NamedTuple):
    record: Record
    delivery: _Delivery
    index: int  # type: ignore[assignment]  # of its call; tuple.index is not used


class _Lane:
    """One partition of one topic."""

    def __init__(self, host: ProducerHost, topic: str, partition: int) -> None:
        self._host, self._topic, self._partition = host, topic, partition
        self._queue: deque[_Queued] = deque()
        self._wake = asyncio.Event()
        self.sent_at: float | None = None
        self.task = essential_task(self._run(), f"lane {topic}-{partition}")

    def add(self, queued: _Queued) -> None:
        self._queue.append(queued)

    def wake(self) -> None:
        self._wake.set()

    def forget(self, delivery: _Delivery) -> None:
        """Drop what was not sent yet of a call that has given up."""
        self._queue = deque(q for q in self._queue if q.delivery is not delivery)

    def silent_for(self, now: float) -> float:
        """For how many seconds the batch under way has waited."""
        return 0.0 if self.sent_at is None else now - self.sent_at

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._send()

    async def _send(self) -> None:
        taken: list[_Queued] = []
        try:
            producer = self._host.current()
        except KafkaAwayError as error:
            self._fail(list(self._queue), error)
            self._queue.clear()
            return
        batch = producer.create_batch()
        queue = self._queue
        append = batch.append
        while queue and append(timestamp=None, key=queue[0].record.key, value=queue[0].record.value) is not None:
            taken.append(queue.popleft())
        batch.close()
        self.sent_at = time.monotonic()
        try:
            metadata = await (await producer.send_batch(batch, self._topic, partition=self._partition))
        except (KafkaError, OSError) as error:
            # Sequence numbers have a hole now: nothing that this producer sends to the partition would be taken.
            self._host.replace(producer, error)
            self._fail(taken, error)
            return
        finally:
            self.sent_at = None
        base = metadata.offset
        for n, queued in enumerate(taken):
            queued.delivery.acknowledge(queued.index, base + n if base >= 0 else _UNKNOWN_OFFSET)

    @staticmethod
    def _fail(queued: Sequence[_Queued], error: BaseException) -> None:
        for delivery in {id(q.delivery): q.delivery for q in queued}.values():
            delivery.fail(error)


class KafkaWriter:
    """Writes to one topic.

    Memory is bounded: a call over `max_records` is refused, one that passed its deadline leaves the queues, and while
    Kafka is silent new calls fail at once.

    Args:
        host: of the producer.
        topic: where to.
        deadline_seconds: how long a call waits for Kafka.
        max_records: not yet acknowledged ones, over all calls.
    """

    def __init__(self, host: ProducerHost, topic: str, *, deadline_seconds: float, max_records: int) -> None:
        self._host, self.topic = host, topic
        self._deadline, self._max_records = deadline_seconds, max_records
        self._lanes: list[_Lane] = []
        self._waiting = 0

    @property
    def away(self) -> str | None:
        """Why Kafka can't be written to; None when it can."""
        if self._host.away is not None:
            return self._host.away
        now = time.monotonic()
        silent = max((lane.silent_for(now) for lane in self._lanes), default=0.0)
        return f"no acknowledgement for {silent:.1f} s" if silent > self._deadline else None

    async def write(self, records: Sequence[Record]) -> list[int]:  # noqa: C901  # one call, told in the order it happens
        """Offsets of the records once all are acknowledged; -1 where Kafka knew it as a repetition.

        Raises:
            NotAcknowledgedError: Kafka is away or did not acknowledge all by the deadline.
            OverloadedError: too many records are waiting already.
            ValueError: a record is larger than MAX_RECORD_BYTES, which the caller has to rule out.
        """
        if not records:
            return []
        if (largest := max(len(r.key) + len(r.value) for r in records)) > MAX_RECORD_BYTES:
            raise ValueError(f"a record of {largest} bytes, at most {MAX_RECORD_BYTES} fit in a batch")
        if self._waiting + len(records) > self._max_records:
            raise OverloadedError(f"{self._waiting} records wait for Kafka already")
        if (away := self.away) is not None:
            raise NotAcknowledgedError(away)
        lanes = self._open_lanes()
        delivery = _Delivery(len(records))
        count = len(lanes)
        used: set[int] = set()
        for index, record in enumerate(records):
            number = partition_of(record.key, count)
            used.add(number)
            lanes[number].add(_Queued(record, delivery, index))
        for number in used:
            lanes[number].wake()
        self._waiting += len(records)
        try:
            async with asyncio.timeout(self._deadline):
                await delivery.done
        except TimeoutError:
            raise NotAcknowledgedError(f"no acknowledgement in {self._deadline:g} s", _acknowledged(delivery)) from None
        except (KafkaError, KafkaAwayError, OSError) as error:
            raise NotAcknowledgedError(repr(error), _acknowledged(delivery)) from error
        finally:
            self._waiting -= len(records)
            if delivery.missing:
                for number in used:
                    lanes[number].forget(delivery)
        return [_UNKNOWN_OFFSET if offset is None else offset for offset in delivery.offsets]

    async def stop(self) -> None:
        """End the lanes, when no call waits any more."""
        for lane in self._lanes:
            lane.task.cancel()
        for lane in self._lanes:
            with contextlib.suppress(asyncio.CancelledError):
                await lane.task

    def _open_lanes(self) -> list[_Lane]:
        if not self._lanes:
            self._lanes = [_Lane(self._host, self.topic, n) for n in self._host.partitions(self.topic)]
        return self._lanes


def _acknowledged(delivery: _Delivery) -> list[int]:
    return [index for index, offset in enumerate(delivery.offsets) if offset is not None]
