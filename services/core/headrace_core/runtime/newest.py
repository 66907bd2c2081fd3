"""What a sequenced topic holds last: a database that was restored without being declared so is told by it."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings


async def newest_published(
    settings: KafkaSettings, topic: str, partitions: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """By source, (incarnation, seq) of the last record; none of a partition that is empty or that others write to.

    Raises:
        aiokafka.errors.KafkaError, TimeoutError: Kafka is away.
    """
    consumer = AIOKafkaConsumer(
        **connection(settings), enable_auto_commit=False, fetch_max_wait_ms=settings.kafka_fetch_wait_ms
    )
    found: dict[int, tuple[int, int]] = {}
    async with asyncio.timeout(settings.kafka_request_timeout_ms / 1000):
        await consumer.start()
        try:
            tps = [TopicPartition(topic, n) for n in partitions]
            consumer.assign(tps)
            first, end = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            waiting = {tp for tp in tps if end[tp] > first[tp]}
            consumer.pause(*(set(tps) - waiting))
            for tp in waiting:
                consumer.seek(tp, end[tp] - 1)
            while waiting:
                for tp, records in (await consumer.getmany(*waiting, timeout_ms=200)).items():
                    waiting.discard(tp)
                    headers = dict(records[-1].headers)
                    if {"incarnation", "seq"} <= headers.keys():
                        found[tp.partition] = (int(headers["incarnation"]), int(headers["seq"]))
        finally:
            await consumer.stop()
    return found
