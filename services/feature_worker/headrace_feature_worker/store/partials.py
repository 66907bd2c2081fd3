"""Sink that also publishes partial counts."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from headrace_core.contracts import FeaturePartial
from headrace_core.runtime.kafka_clients import partition_of
from headrace_core.runtime.sink import OutboxMessage, Snapshot
from headrace_core.stores.redis_views import top_key

from headrace_feature_worker.operators.behavior import BEHAVIOR
from headrace_feature_worker.operators.effects import Partial
from headrace_feature_worker.operators.ranking import PARTIALS
from headrace_feature_worker.store.views import ViewSink

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_CLOSE_SECONDS = 5.0
#: Key and value of a record.
Message = tuple[bytes, bytes]


class FeatureSink:
    """Values to Redis, partials to feature-partials.v1, both before the commit and both absolute.

    The partials of a checkpoint end with a mark in every partition; a reader takes them as a whole from there on.
    """

    def __init__(self, views: ViewSink, new_producer: Callable[[], AIOKafkaProducer]) -> None:
        """Write through `views` and a producer, which is replaced when it fails."""
        self._views, self._new_producer = views, new_producer
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> None:
        """Open the views; the producer is made when it is needed."""
        await self._views.open()

    async def close(self) -> None:
        """Let go of everything."""
        await self._drop_producer()
        await self._views.close()

    async def before_commit(self, snapshots: Sequence[Snapshot]) -> None:
        """Write values and partials."""
        await asyncio.gather(self._views.before_commit(snapshots), self._publish(snapshots))

    async def in_transaction(
        self, connection: "PoolConnectionProxy[Any]", snapshots: Sequence[Snapshot]
    ) -> Sequence[OutboxMessage]:
        """Nothing goes to PostgreSQL."""
        return await self._views.in_transaction(connection, snapshots)

    async def _publish(self, snapshots: Sequence[Snapshot]) -> None:
        try:
            if self._producer is None:
                producer = self._new_producer()
                try:
                    await producer.start()
                except BaseException:
                    await _close(producer)
                    raise
                self._producer = producer
            partitions = sorted(await self._producer.partitions_for(PARTIALS))
            messages: dict[int, list[Message]] = defaultdict(list)
            for snapshot in snapshots:
                for partition, message in encode(snapshot, partitions):
                    messages[partition].append(message)
            await asyncio.gather(*(self._send(self._producer, n, m) for n, m in messages.items()))
        except (KafkaError, OSError):
            await self._drop_producer()
            raise

    @staticmethod
    async def _send(producer: AIOKafkaProducer, partition: int, messages: Sequence[Message]) -> None:
        first = 0
        while first < len(messages):
            batch = producer.create_batch()
            end = first
            for key, value in messages[first:]:
                if batch.append(timestamp=None, key=key, value=value) is None:
                    break
                end += 1
            if end == first:
                raise RuntimeError(f"{PARTIALS}: a partial of {len(messages[first][1])} bytes fits in no batch")
            batch.close()
            await (await producer.send_batch(batch, PARTIALS, partition=partition))
            first = end

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)


def encode(snapshot: Snapshot, partitions: Sequence[int]) -> Iterator[tuple[int, Message]]:
    """What a checkpoint sends: (partition, (key, value)), the mark of every partition last."""
    if not snapshot.watermark:
        return
    source, version, watermark = snapshot.partition, snapshot.version, snapshot.watermark
    for effect in snapshot.effects:
        if isinstance(effect, Partial):
            key = top_key(effect.feature, effect.key).encode()
            value = FeaturePartial(
                feature=effect.feature, definition=effect.definition, key=effect.key, tile_start=effect.tile_start,
                tile_ms=effect.tile_ms, source=source, version=version, members=effect.members, counts=effect.counts,
                denominators=effect.denominators,
            )  # fmt: skip
            yield partitions[partition_of(key, len(partitions))], (key, value.SerializeToString())
    offset = snapshot.offsets.get(BEHAVIOR, 0)
    mark = FeaturePartial(source=source, version=version, watermark=watermark, source_offset=offset).SerializeToString()
    for partition in partitions:
        yield partition, (b"", mark)


async def _close(producer: AIOKafkaProducer) -> None:
    # One whose broker is away never ends flushing.
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _CLOSE_SECONDS)
