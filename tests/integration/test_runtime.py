"""The runtime on real Kafka and PostgreSQL, with the smallest worker there is: exact through any crash."""

import asyncio
import json
import random
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from headrace_core.contracts import DeadLetter
from headrace_core.runtime import publisher
from headrace_core.runtime.checkpoint_store import Sequenced
from headrace_core.runtime.incarnation import Incarnations
from headrace_core.runtime.kafka_clients import idempotent_producer
from headrace_core.runtime.reader import SequenceReader
from headrace_core.settings import KafkaSettings

from load_tests.streams.harness import Workers, disturb, wait_for
from tests.integration.probe_worker import Names

pytestmark = pytest.mark.stack

PARTITIONS = 4
SPAN_MS = 100_000
DEADLINE_S = 120.0


@dataclass
class Probe:
    """One run: its own topics, schema and workers."""

    kafka: str
    postgres: str
    names: Names
    workers: Workers
    connection: Any
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def start(self, replicas: int = 1) -> None:
        self.workers.replicas = replicas
        self.workers.start()

    async def send(self, topic: str, messages: list[tuple[int, bytes]], rate: float | None = None) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=5)
        await producer.start()
        for n, (partition, value) in enumerate(messages):
            await producer.send(topic, value, partition=partition)
            if rate and n % 100 == 0:
                await asyncio.sleep(100 / rate)
        await producer.stop()

    async def stream(self, pairs: int, alone: set[int], rate: float | None = None) -> None:
        """Left and right sides of `pairs` keys; those in `alone` have no right side."""
        step = SPAN_MS / pairs
        left = [(k % PARTITIONS, json.dumps({"k": str(k), "t": int(k * step)}).encode()) for k in range(pairs)]
        right = [m for k, m in enumerate(left) if k not in alone]
        end = [(n, json.dumps({"t": 10 * SPAN_MS}).encode()) for n in range(PARTITIONS)]
        await asyncio.gather(
            self.send(self.names.left, left + end, rate), self.send(self.names.right, right + end, rate)
        )

    async def rows(self) -> list[tuple[str, str]]:
        return [(r["key"], r["kind"]) for r in await self.connection.fetch(f"SELECT * FROM {self.names.schema}.rows")]

    async def published(self, expected: int) -> tuple[list[tuple[str, str]], SequenceReader]:
        """What our reader takes from the output topic."""
        reader = SequenceReader()
        taken: list[tuple[str, str]] = []
        consumer = AIOKafkaConsumer(self.names.out, bootstrap_servers=self.kafka, auto_offset_reset="earliest")
        await consumer.start()

        async def enough() -> bool:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                taken.extend((r.key.decode(), r.value.decode()) for r in reader.take(records))
            return len(taken) >= expected

        await wait_for(enough, self.workers, DEADLINE_S, f"{expected} published messages")
        await consumer.stop()
        return taken, reader

    async def settled(self, expected: int) -> None:
        async def enough() -> bool:
            count = await self.connection.fetchval(f"SELECT count(*) FROM {self.names.schema}.rows")
            return bool(count >= expected)

        await wait_for(enough, self.workers, DEADLINE_S, f"{expected} rows")


@pytest.fixture
async def probe(stores: Any, tmp_path: Path) -> AsyncIterator[Probe]:
    names = Names(f"p{uuid.uuid4().hex[:8]}")
    admin = AIOKafkaAdminClient(bootstrap_servers=stores.kafka_address)
    await admin.start()
    topics = [names.left, names.right, names.out, f"{names.left}.dlq", f"{names.right}.dlq"]
    await admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in topics])
    await admin.close()
    connection = await asyncpg.connect(stores.postgres_dsn)
    await connection.execute(names.ddl)
    environment = {
        "PROBE": names.name,
        "HEADRACE_KAFKA": stores.kafka_address,
        "HEADRACE_POSTGRES": stores.postgres_dsn,
        "HEADRACE_KAFKA_SESSION_TIMEOUT_MS": "3000",
        "HEADRACE_LATENESS_MS": "2000",
    }
    workers = Workers("tests.integration.probe_worker", environment, tmp_path)
    yield Probe(stores.kafka_address, stores.postgres_dsn, names, workers, connection)
    workers.stop()
    await connection.close()


def expected_rows(pairs: int, alone: set[int]) -> list[tuple[str, str]]:
    return sorted((str(k), "alone" if k in alone else "pair") for k in range(pairs))


@pytest.mark.parametrize(
    "pause_s",
    [
        # The services' own tests kill them in the short run, too.
        pytest.param(0.0, id="kill", marks=pytest.mark.long),
        pytest.param(5.0, id="kill and stop past the session"),
    ],
)
async def test_results_are_exact_through_crashes(probe: Probe, pause_s: float) -> None:
    probe.start(replicas=2)
    pairs = 30_000
    alone = set(probe.rng.sample(range(pairs), pairs // 10))
    sending = asyncio.create_task(probe.stream(pairs, alone, rate=2_000))

    crashes = await disturb(probe.workers, probe.rng, 4.0, sending, pause_s=pause_s)
    await sending
    await probe.settled(pairs)
    published, _ = await probe.published(pairs)

    assert crashes >= 3
    assert sorted(await probe.rows()) == expected_rows(pairs, alone)
    assert sorted(published) == expected_rows(pairs, alone)


async def test_worker_that_was_fenced_ends_with_code_3(probe: Probe) -> None:
    probe.start()
    await probe.stream(100, set())
    await probe.settled(100)
    await probe.connection.execute("UPDATE runtime.partitions SET epoch = epoch + 1 WHERE job = $1", probe.names.job)

    await probe.send(probe.names.left, [(n, b'{"k": "x%d", "t": 9000000}' % n) for n in range(PARTITIONS)])

    async def ended() -> bool:
        return len(probe.workers.ended) > 0

    await wait_for(ended, probe.workers, DEADLINE_S, "an end of the fenced worker")
    assert set(probe.workers.ended) == {3}


async def test_record_that_nobody_can_read_goes_to_the_dead_letters_and_the_partition_goes_on(probe: Probe) -> None:
    probe.start()
    await probe.send(probe.names.left, [(0, b"garbage")])
    await probe.stream(100, set())

    await probe.settled(100)

    consumer = AIOKafkaConsumer(f"{probe.names.left}.dlq", bootstrap_servers=probe.kafka, auto_offset_reset="earliest")
    await consumer.start()
    letter = DeadLetter.FromString((await asyncio.wait_for(consumer.getone(), 30)).value)
    await consumer.stop()
    assert (letter.raw, letter.topic, letter.partition, letter.offset) == (b"garbage", probe.names.left, 0, 0)
    assert letter.reason.startswith("not JSON")


async def test_recreated_topic_stops_the_worker_instead_of_starting_over(probe: Probe) -> None:
    probe.start()
    await probe.stream(100, set())
    await probe.settled(100)
    probe.workers.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=probe.kafka)
    await admin.start()
    await admin.delete_topics([probe.names.left])

    async def recreated() -> bool:
        response = await admin.create_topics([NewTopic(probe.names.left, PARTITIONS, 1)])
        return all(error == 0 for _, error, *_ in response.topic_errors)

    while not await recreated():
        await asyncio.sleep(0.2)
    await admin.close()
    probe.workers.ended.clear()
    probe.workers.start()

    async def ended() -> bool:
        return len(probe.workers.ended) > 0

    await wait_for(ended, probe.workers, DEADLINE_S, "an end of the worker")
    assert set(probe.workers.ended) == {3}
    assert "kafka-replaced.md" in probe.workers.log()


async def test_leader_that_sees_no_topic_any_more_ends_instead_of_standing_still(probe: Probe) -> None:
    """As after a broker's restart, whose metadata lack topics for a moment: the group must not settle on nothing."""
    probe.start()
    await probe.stream(100, set())
    await probe.settled(100)
    inputs = [probe.names.left, probe.names.right]
    admin = AIOKafkaAdminClient(bootstrap_servers=probe.kafka)
    await admin.start()
    await admin.delete_topics(inputs)
    await admin.close()

    async def ended() -> bool:
        return len(probe.workers.ended) > 0

    await wait_for(ended, probe.workers, DEADLINE_S, "an end of the worker")
    assert probe.workers.ended[0] == 3
    assert f"Kafka does not tell of {', '.join(inputs)}" in probe.workers.log()


async def test_terminated_worker_leaves_nothing_to_send_again(probe: Probe) -> None:
    probe.start()
    await probe.stream(2_000, set())
    await probe.settled(2_000)
    await probe.published(2_000)

    for replica in range(probe.workers.replicas):
        probe.workers.kill(replica, signal.SIGTERM)

    async def marked() -> bool:
        open_rows = await probe.connection.fetchval(
            "SELECT count(*) FROM runtime.partitions WHERE job = $1 AND published_seq < next_seq - 1", probe.names.job
        )
        return bool(open_rows == 0)

    await wait_for(marked, probe.workers, DEADLINE_S, "published marks at the end")


async def test_terminated_worker_publishes_what_its_last_checkpoint_committed(probe: Probe) -> None:
    few_but_large = {"HEADRACE_CHECKPOINT_ROWS": "100000", "HEADRACE_CHECKPOINT_INTERVAL_MS": "60000"}
    probe.workers.environment = {**probe.workers.environment, **few_but_large}
    probe.start()
    await probe.stream(60_000, set())
    await probe.settled(1)

    probe.workers.stop()

    committed = await probe.connection.fetch(
        "SELECT partition, next_seq - 1 AS seq FROM runtime.partitions WHERE job = $1", probe.names.job
    )
    assert sum(r["seq"] for r in committed) == len(await probe.rows())
    consumer = AIOKafkaConsumer(bootstrap_servers=probe.kafka)
    await consumer.start()
    end = await consumer.end_offsets([TopicPartition(probe.names.out, r["partition"]) for r in committed])
    await consumer.stop()
    assert {tp.partition: offset for tp, offset in end.items()} == {r["partition"]: r["seq"] for r in committed}


async def test_inputs_that_are_held_back_in_catch_up_lose_nothing(probe: Probe) -> None:
    probe.workers.environment = {**probe.workers.environment, "HEADRACE_MAX_DRIFT_MS": "100"}
    pairs = 20_000
    alone = set(probe.rng.sample(range(pairs), pairs // 10))
    await probe.stream(pairs, alone)

    probe.start()
    await probe.settled(pairs)

    assert sorted(await probe.rows()) == expected_rows(pairs, alone)


async def test_outbox_that_outgrows_memory_is_read_back_and_published_in_order(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_MEMORY", 10_000)
    settings = KafkaSettings(kafka=probe.kafka)
    table = [Sequenced(n % 2, n // 2 + 1, b"%d" % n, random.Random(n).randbytes(1_000)) for n in range(4_000)]
    asked: list[int] = []

    async def read_back(source: int, after: int, limit: int) -> list[Sequenced]:
        asked.append(after)
        return [m for m in table if m.source == source and m.seq > after][:limit]

    sending = publisher.Publisher(probe.names.out, lambda: idempotent_producer(settings), read_back)
    for source in (0, 1):
        sending.assign(source, epoch=1, published=0, next_seq=1)
    sending.add(table[:2_000])
    monkeypatch.setattr(publisher, "_MEMORY", 10_000_000)  # there is room again, behind what was left out
    sending.add(table[2_000:])
    sending.start(Incarnations())
    assert await sending.drain(DEADLINE_S)
    await sending.stop()

    consumer = AIOKafkaConsumer(probe.names.out, bootstrap_servers=probe.kafka, auto_offset_reset="earliest")
    await consumer.start()
    taken: list[tuple[int, bytes, bytes]] = []

    async def all_of_it() -> bool:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            taken.extend((r.partition, r.key, r.value) for r in records)
        return len(taken) >= len(table)

    await wait_for(all_of_it, probe.workers, DEADLINE_S, f"{len(table)} messages")
    await consumer.stop()
    for source in (0, 1):
        assert [t[1:] for t in taken if t[0] == source] == [(m.key, m.value) for m in table if m.source == source]
    assert len(asked) >= 2, "what did not fit into memory was read back"
