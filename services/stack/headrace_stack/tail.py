"""Reads topics of a running stack from outside any consumer group: changes of samples.v1, dead letters."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from google.protobuf import json_format
from headrace_core.contracts import DeadLetter, SampleChange
from headrace_core.runtime.kafka_clients import connection
from headrace_core.runtime.reader import SequenceReader
from headrace_core.settings import KafkaSettings

SAMPLES: Final = "samples.v1"
DEAD: Final = ".dlq"
_POLL_MS: Final = 500

Told = dict[str, Any]


def changes(kafka: str, request_id: str) -> list[Told]:
    """The history of a request's samples on samples.v1, as a consumer that takes each change once sees it."""
    return asyncio.run(_changes(kafka, request_id))


async def _changes(kafka: str, request_id: str) -> list[Told]:
    key, reader, found = f"{request_id}:".encode(), SequenceReader(), []
    async with _consumer(kafka, SAMPLES, auto_offset_reset="earliest") as consumer:
        async for records in _until_now(consumer):
            found += [SampleChange.FromString(r.value) for r in reader.take(records) if r.key.startswith(key)]
    return [told_change(change) for change in found]


def follow_changes(kafka: str, take: Callable[[Told], bool]) -> None:
    """Hand on every change that is published from now on, until `take` says that it was the last one wanted."""
    asyncio.run(_follow(kafka, take))


async def _follow(kafka: str, take: Callable[[Told], bool]) -> None:
    async with _consumer(kafka, SAMPLES, auto_offset_reset="latest") as consumer:
        for partition in consumer.assignment():
            await consumer.position(partition)  # from here on, not from the first fetch
        async for record in consumer:
            if not take(told_change(SampleChange.FromString(record.value))):
                return


def told_change(change: SampleChange) -> Told:
    """A change as JSON."""
    told: Told = json_format.MessageToDict(
        change, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    told["sample"]["features"] = json.loads(change.sample.features)
    return told


def dead_letters(kafka: str, topics: Sequence[str], newest: int) -> list[Told]:
    """The newest dead letters, oldest first.

    Args:
        kafka: its address.
        topics: source topics; all that have a topic of dead letters when none is told.
        newest: at most so many of each partition.
    """
    return asyncio.run(_letters(kafka, topics, newest))


async def _letters(kafka: str, topics: Sequence[str], newest: int) -> list[Told]:
    known = await _dead_letter_topics(kafka)
    wanted = [topic + DEAD for topic in known if not topics or topic in topics]
    if not wanted:
        return []
    async with _consumer(kafka, *wanted, auto_offset_reset="earliest") as consumer:
        partitions = list(consumer.assignment())
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(begins[partition], ends[partition] - newest))
        found = [_told_letter(record) async for records in _until_now(consumer) for record in records]
    return sorted(found, key=lambda letter: (letter["reject_time"], letter["dead_partition"], letter["dead_offset"]))


def dead_letter_topics(kafka: str) -> list[str]:
    """Source topics that have a topic of dead letters."""
    return asyncio.run(_dead_letter_topics(kafka))


async def _dead_letter_topics(kafka: str) -> list[str]:
    async with _consumer(kafka) as consumer:
        return sorted(t.removesuffix(DEAD) for t in await consumer.topics() if t.endswith(DEAD))


def _told_letter(record: Any) -> Told:
    letter = DeadLetter.FromString(record.value)
    return {
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "reason": letter.reason,
        "consumer": letter.consumer, "reject_time": letter.reject_time, "bytes": len(letter.raw),
        "key": letter.raw_key.decode(errors="replace"), "raw": letter.raw, "dead_partition": record.partition,
        "dead_offset": record.offset,
    }  # fmt: skip


@asynccontextmanager
async def _consumer(kafka: str, *topics: str, **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(*topics, **connection(KafkaSettings(kafka=kafka)), enable_auto_commit=False, **settings)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _until_now(consumer: AIOKafkaConsumer) -> AsyncIterator[list[Any]]:
    """Everything that is there now, a batch of a partition at a time."""
    ends = await consumer.end_offsets(list(consumer.assignment()))
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
            yield records
