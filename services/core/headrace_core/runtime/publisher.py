"""Publishes an outbox to Kafka: in order, nothing after a failed send, marks only what is acknowledged."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from headrace_core.runtime.checkpoint_store import Sequenced
from headrace_core.runtime.incarnation import Incarnations

log = logging.getLogger(__name__)

#: Bytes of messages kept in memory; beyond it they are read back from the table when Kafka takes them again.
_MEMORY: Final = 128 * 1024 * 1024
_CHUNK: Final = 1_000

#: Reads rows of the outbox: (source, after seq, limit) -> rows, oldest first.
ReadBack = Callable[[int, int, int], Awaitable[list[Sequenced]]]


class _Source:
    """What is known of one source partition's sequence."""

    __slots__ = ("acknowledged", "bytes", "committed", "epoch", "queue")

    def __init__(self, epoch: int, published: int, committed: int) -> None:
        self.epoch = epoch
        self.acknowledged = published
        self.committed = committed
        self.queue: deque[Sequenced] = deque()
        self.bytes = 0  # of the queue

    def append(self, message: Sequenced) -> None:
        """Keep a message for sending."""
        self.queue.append(message)
        self.bytes += len(message.value)

    def pop(self) -> Sequenced:
        """The oldest message kept."""
        message = self.queue.popleft()
        self.bytes -= len(message.value)
        return message


class Publisher:
    """One per job with an outbox.

    Every record carries the headers incarnation, source and seq. After a crash the records behind the published mark
    are sent again with the same seqs; a reader that takes only the next seq sees each once and in order.
    """

    def __init__(self, topic: str, new_producer: Callable[[], AIOKafkaProducer], read_back: ReadBack) -> None:
        """Publish to `topic`; a producer that failed is replaced by a new one."""
        self._topic, self._new_producer, self._read_back = topic, new_producer, read_back
        self._sources: dict[int, _Source] = {}
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._incarnations = Incarnations()

    def start(self, incarnations: Incarnations) -> None:
        """Start publishing in the background; what a backup held unpublished goes out in its own incarnation."""
        self._incarnations = incarnations
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"publish {self._topic}")

    async def drain(self, timeout_s: float) -> bool:
        """Wait until Kafka has everything that was committed, for so long at most; whether it has."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.backlog():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Stop; what was not sent stays in the table, for the next owner to send."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def assign(self, source: int, epoch: int, published: int, next_seq: int) -> None:
        """Take over a source at its claim; what lies between the mark and `next_seq` is sent again."""
        self._sources[source] = _Source(epoch, published, next_seq - 1)
        self._wake.set()

    def revoke(self, source: int) -> None:
        """Another worker owns the source now."""
        self._sources.pop(source, None)

    def add(self, messages: Sequence[Sequenced]) -> None:
        """Rows that were just committed."""
        room = _MEMORY - sum(s.bytes for s in self._sources.values())
        for m in messages:
            source = self._sources.get(m.source)
            if source is None:
                continue
            if room > 0 and (not source.queue or source.queue[-1].seq == m.seq - 1):
                source.append(m)
                room -= len(m.value)
            source.committed = max(source.committed, m.seq)
        if messages:
            self._wake.set()

    def sync(self, source: int, next_seq: int) -> None:
        """The table may hold rows that never passed `add`: a commit whose answer was lost."""
        if (known := self._sources.get(source)) is not None:
            known.committed = max(known.committed, next_seq - 1)
            self._wake.set()

    def acknowledged(self) -> dict[int, int]:
        """Per source, everything up to this seq is in Kafka."""
        return {n: s.acknowledged for n, s in self._sources.items()}

    def backlog(self) -> int:
        """Committed messages that Kafka has not acknowledged."""
        return sum(s.committed - s.acknowledged for s in self._sources.values())

    async def _run(self) -> None:
        pause = 0.1
        while True:
            producer = self._new_producer()
            try:
                await producer.start()
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    while await self._round(producer):
                        pause = 0.1
            except (KafkaError, OSError) as error:
                log.warning(
                    "publishing failed, will go on from the last acknowledged message",
                    extra={"fields": {"topic": self._topic, "error": repr(error)}},
                )
                self._wake.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            finally:
                with contextlib.suppress(KafkaError, OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(producer.stop(), 5)

    async def _round(self, producer: AIOKafkaProducer) -> bool:
        """Send the next chunk of every source; whether anything was sent."""
        work = [(n, s, await self._next(n, s)) for n, s in list(self._sources.items())]
        results = await asyncio.gather(
            *(self._send(producer, n, s, chunk) for n, s, chunk in work if chunk), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return bool(results)

    async def _next(self, number: int, source: _Source) -> list[Sequenced]:
        after = source.acknowledged
        queue = source.queue
        while queue and queue[0].seq <= after:
            source.pop()
        if queue and queue[0].seq == after + 1:
            return [source.pop() for _ in range(min(len(queue), _CHUNK))]
        if source.committed > after:
            return await self._read_back(number, after, _CHUNK)
        return []

    async def _send(self, producer: AIOKafkaProducer, number: int, source: _Source, chunk: Sequence[Sequenced]) -> None:
        """Send consecutive messages; nothing is sent after a failure, and only an acknowledged prefix is marked."""
        origin = ("source", b"%d" % number)
        first = 0
        while first < len(chunk):
            batch = producer.create_batch()
            end = first
            for m in chunk[first:]:
                incarnation = b"%d" % self._incarnations.of(number, m.seq)
                headers = [("incarnation", incarnation), origin, ("seq", b"%d" % m.seq)]
                if batch.append(key=m.key, value=m.value, timestamp=None, headers=headers) is None:
                    break
                end += 1
            if end == first:
                raise RuntimeError(f"{self._topic}: message {chunk[first].seq} of source {number} fits in no batch")
            batch.close()
            await (await producer.send_batch(batch, self._topic, partition=number))
            if self._sources.get(number) is source:
                source.acknowledged = chunk[end - 1].seq
                self._progress.set()
            first = end
