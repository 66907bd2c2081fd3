import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from aiokafka.errors import OutOfOrderSequenceNumber
from headrace_core.settings import KafkaSettings
from headrace_gateway.stores.kafka_producer import MAX_RECORD_BYTES, ProducerHost
from headrace_gateway.stores.kafka_writer import (
    KafkaWriter,
    NotAcknowledgedError,
    OverloadedError,
    Record,
    partition_of,
)

TOPIC = "t.v1"
PARTITIONS = 4
BATCH = 3


class Metadata(NamedTuple):
    offset: int


class Batch:
    """As aiokafka's: takes so many records."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes) -> object | None:
        if len(self.records) == BATCH:
            return None
        self.records.append((key, value))
        return self

    def close(self) -> None:
        """Nothing more comes."""


class Broker:
    """Stands for aiokafka's producer: a broker that answers when the test says so can't be run."""

    def __init__(self) -> None:
        self.log: dict[int, list[bytes]] = {n: [] for n in range(PARTITIONS)}
        self.sends: list[int] = []
        self.open = asyncio.Event()
        self.broken: set[int] = set()
        self.silent: set[int] = set()
        self.forgetful = False

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[Metadata]":
        self.sends.append(partition)
        return asyncio.ensure_future(self._take(batch, partition))

    async def _take(self, batch: Batch, partition: int) -> Metadata:
        await self.open.wait()
        if partition in self.silent:
            await asyncio.Event().wait()
        if partition in self.broken:
            raise OutOfOrderSequenceNumber
        base = len(self.log[partition])
        self.log[partition] += [value for _, value in batch.records]
        return Metadata(-1 if self.forgetful else base)

    async def stop(self) -> None:
        """Closed."""


class Bench(NamedTuple):
    broker: Broker
    host: ProducerHost
    writer: KafkaWriter


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    broker: Any = Broker()
    host = ProducerHost(KafkaSettings(), (TOPIC,), request_timeout_ms=1_000)
    host._producer, host._partitions[TOPIC], host.away = broker, list(range(PARTITIONS)), None
    writer = KafkaWriter(host, TOPIC, deadline_seconds=0.2, max_records=20)
    yield Bench(broker, host, writer)
    await writer.stop()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def records(*numbers: int) -> list[Record]:
    return [Record(b"user-%d" % n, b"%d" % n) for n in numbers]


def of(partition: int, count: int) -> list[Record]:
    """Records of one partition."""
    keys = (b"k%d" % n for n in range(10_000))
    found = [key for key in keys if partition_of(key, PARTITIONS) == partition][:count]
    return [Record(key, b"%d" % n) for n, key in enumerate(found)]


async def becomes(writer: KafkaWriter, *, away: bool) -> None:
    async with asyncio.timeout(10):
        while (writer.away is not None) != away:
            await asyncio.sleep(0.01)


async def test_every_record_has_the_offset_it_got_in_its_own_partition(bench: Bench) -> None:
    bench.broker.open.set()
    sent = records(*range(20))

    offsets = await bench.writer.write(sent)

    for record, offset in zip(sent, offsets, strict=True):
        assert bench.broker.log[partition_of(record.key, PARTITIONS)][offset] == record.value


async def test_calls_that_wait_go_out_together_and_in_order(bench: Bench) -> None:
    calls = [asyncio.create_task(bench.writer.write([r])) for r in of(2, 7)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    bench.broker.open.set()
    offsets = await asyncio.gather(*calls)

    assert offsets == [[n] for n in range(7)]
    assert bench.broker.log[2] == [b"%d" % n for n in range(7)]
    assert len(bench.broker.sends) < 7


async def test_fault_of_one_partition_tells_what_the_others_took(bench: Bench) -> None:
    bench.broker.open.set()
    bench.broker.broken = {1}
    mixed = [r for pair in zip(of(0, 2), of(1, 2), strict=True) for r in pair]

    with pytest.raises(NotAcknowledgedError, match="OutOfOrderSequenceNumber") as raised:
        await bench.writer.write(mixed)

    assert set(raised.value.acknowledged) <= {0, 2}
    assert bench.host.away is not None


async def test_deadline_tells_what_was_acknowledged_and_leaves_the_rest_unsent(bench: Bench) -> None:
    bench.broker.open.set()
    bench.broker.silent = {1}
    mixed = [*of(0, 2), *of(1, BATCH + 2)]

    with pytest.raises(NotAcknowledgedError, match=r"no acknowledgement in 0\.2 s") as raised:
        await bench.writer.write(mixed)

    assert raised.value.acknowledged == [0, 1]
    assert bench.broker.sends.count(1) == 1
    assert len(bench.writer._lanes[1]._queue) == 0


async def test_silence_beyond_the_deadline_fails_the_next_call_at_once(bench: Bench) -> None:
    first, second = asyncio.create_task(bench.writer.write(of(0, 1))), of(1, 1)
    with pytest.raises(NotAcknowledgedError):
        await first
    await becomes(bench.writer, away=True)

    with pytest.raises(NotAcknowledgedError, match="no acknowledgement for"):
        await bench.writer.write(second)

    assert bench.broker.sends == [0]
    bench.broker.open.set()
    await becomes(bench.writer, away=False)
    assert await bench.writer.write(second) == [0]


async def test_more_than_may_wait_is_refused_and_nothing_of_it_is_sent(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.writer.write(records(*range(15))))
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError):
        await bench.writer.write(records(*range(100, 106)))

    bench.broker.open.set()
    await waiting
    assert sum(len(log) for log in bench.broker.log.values()) == 15
    assert len(await bench.writer.write(records(*range(100, 106)))) == 6


async def test_offset_that_kafka_does_not_tell_is_unknown(bench: Bench) -> None:
    bench.broker.open.set()
    bench.broker.forgetful = True

    assert await bench.writer.write(records(1, 2)) == [-1, -1]


async def test_record_that_fits_in_no_batch_is_the_callers_fault(bench: Bench) -> None:
    with pytest.raises(ValueError, match="at most"):
        await bench.writer.write([Record(b"k", b"x" * MAX_RECORD_BYTES)])


async def test_nothing_is_sent_while_kafka_is_known_to_be_away(bench: Bench) -> None:
    bench.host.away = "no broker answers"

    with pytest.raises(NotAcknowledgedError, match="no broker answers"):
        await bench.writer.write(records(1))

    assert bench.broker.sends == []
