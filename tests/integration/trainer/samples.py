"""Samples in the store and in samples.v1, written by the store's own code from a world with known tastes."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from headrace_core.contracts import FeatureLog, LoggedItem
from headrace_core.runtime.sink import OutboxMessage, Snapshot
from headrace_sample_joiner.joiner.effects import Version
from headrace_sample_joiner.store.sample_store import SampleStore

from load_tests.streams.world import uuid7

PARTITIONS: Final = 4
ADS: Final = ("2001", "2002", "2011", *(f"30{n:02d}" for n in range(20)))
TASTES: Final = {"Shanghai": "2002", "Beijing": "2011"}
SLATE: Final = 5


def _as_in_a_pool(connection: Any) -> Any:
    """The store's type says that its connection is a pool's; it asks nothing more of it."""
    return connection


@dataclass(slots=True)
class SampleWriter:
    """Publishes requests as the joiner does: rows and seqs in one transaction, then the change stream.

    Attributes:
        postgres, kafka: where.
        late: share of clicks that come as corrections.
        tastes: ad that a city clicks, half of the time.
        incarnation: of what is published.
    """

    postgres: str
    kafka: str
    late: float = 0.2
    tastes: dict[str, str] = field(default_factory=lambda: dict(TASTES))
    incarnation: int = 1
    seqs: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _serial: int = 0

    async def write(self, requests: int, *, stream: bool = True) -> None:
        """Publish so many more requests."""
        store, connection = SampleStore(), await asyncpg.connect(self.postgres)
        try:
            async with connection.transaction():
                messages = list(await store.in_transaction(_as_in_a_pool(connection), self._snapshots(requests)))
                for source, count in self._numbered(messages).items():
                    await connection.execute(
                        "INSERT INTO runtime.partitions (job, partition, epoch, owner, next_seq) VALUES ($1, $2, 1, 'test', $3) "
                        "ON CONFLICT (job, partition) DO UPDATE SET next_seq = runtime.partitions.next_seq + $4",
                        "sample-joiner", source, 1 + count, count,
                    )  # fmt: skip
        finally:
            await connection.close()
        if stream:
            await self._send(messages)
        for source, count in self._numbered(messages).items():
            self.seqs[source] += count

    def _numbered(self, messages: Sequence[OutboxMessage]) -> dict[int, int]:
        return {n: count for n in range(PARTITIONS) if (count := sum(m.partition == n for m in messages))}

    def _snapshots(self, requests: int) -> list[Snapshot]:
        effects: dict[int, list[Any]] = {n: [] for n in range(PARTITIONS)}
        for _ in range(requests):
            first, late = self._request()
            effects[self._serial % PARTITIONS] += first + late
        return [Snapshot(n, 1, 1, found, 0) for n, found in effects.items() if found]

    def _request(self) -> tuple[list[Version], list[Version]]:
        self._serial += 1
        rng, now = self._random, int(time.time() * 1000)
        request_id, user, city = uuid7(now, rng), f"u{rng.randrange(40)}", rng.choice(sorted(self.tastes))
        items = rng.sample(ADS, SLATE)
        log = FeatureLog(
            request_id=request_id, user_id=user, event_time=now, page_id="100", model="popularity", feature_set_version=3,
            user_features=orjson.dumps({"country": "China", "gender": "male", "city": city}),
            context_features=orjson.dumps({"page_id": "100", "hour": 7}),
            items=[
                LoggedItem(item_id=i, position=n, score=0.1, propensity=1.0,
                           features=orjson.dumps({"category": "cars", "item_type": "ad", "click_rate": {"rate": 0.1}}))
                for n, i in enumerate(items)
            ],
        ).SerializeToString()  # fmt: skip
        first, late = [], []
        for n, item in enumerate(items):
            clicked = rng.random() < (0.5 if item == self.tastes[city] else 0.05)
            delayed = clicked and rng.random() < self.late
            label = int(clicked and not delayed)
            first.append(Version(request_id, item, user, "100", now, n, n, label, 0, 1, log, 0, n == 0))
            if delayed:
                late.append(Version(request_id, item, user, "100", now, n, n, 1, 0, 2, b"", 0, False))
        return first, late

    async def _send(self, messages: Sequence[OutboxMessage]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, enable_idempotence=True, linger_ms=5)
        await producer.start()
        try:
            seqs, pending = dict(self.seqs), []
            for m in messages:
                seqs[m.partition] += 1
                told = {"incarnation": self.incarnation, "source": m.partition, "seq": seqs[m.partition]}
                headers = [(name, b"%d" % value) for name, value in told.items()]
                pending.append(
                    await producer.send("samples.v1", m.value, key=m.key, partition=m.partition, headers=headers)
                )
            for sent in pending:
                await sent
        finally:
            await producer.stop()
