"""Records that nobody can use: kept beside their topic, cut in size, counted."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaProducer

from headrace_core.contracts import DeadLetter
from headrace_core.runtime.operator import Rejected
from headrace_core.telemetry import DEAD_LETTERS

_MAX_RAW_BYTES: Final = 64 * 1024


class DeadLetterWriter:
    """Writes to `<topic>.dlq`, at least once, before the checkpoint that moves past the record."""

    def __init__(self, consumer: str, new_producer: Callable[[], AIOKafkaProducer]) -> None:
        """Name who sets records aside; the producer is made at the first one."""
        self._consumer, self._new_producer = consumer, new_producer
        self._producer: AIOKafkaProducer | None = None

    async def write(self, rejected: Sequence[Rejected]) -> None:
        """Write and wait until Kafka has them.

        Raises:
            aiokafka.errors.KafkaError: it has not; write all of them again.
        """
        if not rejected:
            return
        if self._producer is None:
            producer = self._new_producer()
            await producer.start()
            self._producer = producer
        now = int(time.time() * 1000)
        try:
            sent = []
            for r in rejected:
                letter = DeadLetter(
                    raw=(r.record.value or b"")[:_MAX_RAW_BYTES],
                    raw_key=(r.record.key or b"")[:_MAX_RAW_BYTES],
                    reason=r.reason,
                    topic=r.topic,
                    partition=getattr(r.record, "partition", -1),
                    offset=r.record.offset,
                    consumer=self._consumer,
                    reject_time=now,
                )
                sent.append(await self._producer.send(f"{r.topic}.dlq", letter.SerializeToString(), key=r.record.key))
            for future in sent:
                await future
        except BaseException:
            producer, self._producer = self._producer, None
            await producer.stop()
            raise
        for r in rejected:
            DEAD_LETTERS.labels(r.topic, r.reason.split(":", 1)[0][:60]).inc()

    async def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None
