"""A backup amid traffic, PostgreSQL lost, the backup restored: results are those of a run that nothing happened to."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from headrace_core.contracts import User
from headrace_core.definitions.features import Top, load_features
from headrace_core.init.restored import AliveError, raise_after_restore
from headrace_core.runtime.checkpoint_store import CheckpointStore
from headrace_core.runtime.job import Job
from headrace_core.stores.redis_views import catalog_user_key
from headrace_feature_worker.operators.catalog import CatalogOperator
from headrace_feature_worker.store.views import ViewSink
from redis.asyncio import Redis

from load_tests.streams import features_check, samples_check
from load_tests.streams.features_check import Truth, add_views
from load_tests.streams.harness import Offsets, Workers, close_windows, ends, is_consumed, produce, tended, wait_for
from load_tests.streams.world import BEHAVIOR, Message, World, WorldPlan, build
from tests.conftest import Stores, running_stores
from tests.integration.stack_cli import Cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

PARTITIONS = 4
WINDOW_MS = 60_000
HORIZON_MS = 7 * 86_400_000
DEADLINE_S = 240.0
LIST = """\
feature: {name}
source: behavior-events
where: action = 'view'
by: [page_id]
window: {{size: 10m, every: 1s}}
top: {{of: item_id, rank_by: count, k: {k}}}
"""


@pytest.fixture
def stores() -> Iterator[Stores]:
    """Stores of each test's own: they are destroyed."""
    with running_stores() as running:
        yield running


@dataclass(frozen=True)
class Platform:
    """Both stream services on a stream with known truth."""

    stores: Stores
    world: World
    joiner: Workers
    features: Workers

    @property
    def services(self) -> tuple[Workers, Workers]:
        return self.joiner, self.features

    @property
    def data(self) -> Path:
        return self.stores.stack.layout.data

    def start(self) -> None:
        for workers in self.services:
            workers.start()

    def kill(self) -> None:
        for workers in self.services:
            for n in range(workers.replicas):
                workers.kill(n)
            workers.stop()

    async def send(self, messages: list[Message], rate: float) -> None:
        part = World(self.world.plan, messages=messages)
        await tended(produce(self.stores.kafka_address, part, rate=rate), self.joiner, DEADLINE_S, "sending")

    async def joined(self, share: float) -> None:
        """Wait until so much of the impressions is accounted for."""

        async def enough() -> bool:
            sums = await samples_check.totals(self.stores.postgres_dsn)
            return sums.get("joined", 0) >= share * len(self.world.labels)

        await wait_for(enough, self.joiner, DEADLINE_S, f"{share:.0%} of the samples")

    async def live_long(self) -> None:
        """Let the feature workers have claims that the backup does not know, as kills and upgrades make them."""
        with psycopg.connect(self.stores.postgres_dsn) as connection:
            connection.execute("UPDATE runtime.partitions SET epoch = epoch + 40 WHERE job <> 'sample-joiner'")
        for n in range(self.features.replicas):
            self.features.kill(n)
        await asyncio.sleep(0.1)
        self.features.tend()

    async def counted(self, messages: list[Message]) -> None:
        """Wait until the feature workers have counted so much."""
        events = sum(m.topic == BEHAVIOR for m in messages)

        async def all_of_it() -> bool:
            with psycopg.connect(self.stores.postgres_dsn) as connection:
                row = connection.execute(
                    "SELECT sum((offsets ->> %s)::bigint) FROM runtime.partitions WHERE job = 'features'", (BEHAVIOR,)
                ).fetchone()
            return row is not None and (row[0] or 0) >= events

        await wait_for(all_of_it, self.features, DEADLINE_S, f"{events} events")

    async def settled(self, until: Offsets) -> bool:
        """All was read and no window is open. Sums alone do not tell: late clicks and late logs change rows after they close."""
        if not await is_consumed(self.stores.postgres_dsn, "sample-joiner", until):
            return False
        return (await samples_check.totals(self.stores.postgres_dsn))["pending"] == 0

    async def samples(self) -> samples_check.Report:
        await close_windows(self.stores.kafka_address, self.world, PARTITIONS, 2 * HORIZON_MS)
        until = await ends(self.stores.kafka_address)
        await wait_for(lambda: self.settled(until), self.joiner, DEADLINE_S, "settled accounting")
        checking = samples_check.check(self.world, self.stores.postgres_dsn, self.stores.kafka_address)
        return await tended(checking, self.joiner, DEADLINE_S, "a comparison")

    async def all_sources_at_the_end(self) -> None:
        """A list is made for the time that its slowest source has come to: let none stay behind."""
        await close_windows(self.stores.kafka_address, self.world, PARTITIONS, 1_000)

    async def lists(self, truth: Truth) -> features_check.Report:
        async def equal() -> bool:
            return not (await features_check.check(self.world, truth, self.stores.redis_url)).wrong

        with contextlib.suppress(TimeoutError):  # the report tells what is wrong
            await wait_for(equal, self.features, DEADLINE_S / 2, "Redis as computed from the whole stream")
        return await features_check.check(self.world, truth, self.stores.redis_url)

    def lose_postgres_and_restore(self, backup: Path) -> None:
        stack = self.stores.stack
        stack.down()
        shutil.rmtree(self.data / "postgres")
        self.headrace("restore", str(backup))
        stack.up()

    def headrace(self, *arguments: str) -> str:
        done = Cli(self.stores.stack.layout.home).run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, folder: Path, **longest: int) -> None:
        """Apply lists by their names, each so long."""
        folder.mkdir()
        for name, k in longest.items():
            (folder / f"{name}.yaml").write_text(LIST.format(name=name, k=k), encoding="utf-8")
        self.headrace("apply", str(folder))

    def applied(self) -> dict[str, int]:
        """How long each applied list is, by the definitions in force."""
        listed = json.loads(self.headrace("apply", "--list", "--json"))["items"]
        names = [Path(item["file"]).name for item in listed]
        features = load_features(self.stores.stack.layout.definitions / "features")
        return {f.name: f.shape.k for f in features if f"{f.name}.yaml" in names and isinstance(f.shape, Top)}


def a_platform(stores: Stores, folder: Path, requests: int) -> Platform:
    plan = WorldPlan(
        requests=requests,
        start=int(time.time() * 1000) - 1_000_000,
        window_ms=WINDOW_MS,
        clicks=0.2,
        users=requests // 10,
    )
    world = build(plan)
    add_views(world, 0.03)
    settings = {"HEADRACE_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS), "HEADRACE_KAFKA_SESSION_TIMEOUT_MS": "3000"}
    environment = stores.environment() | settings
    return Platform(
        stores,
        world,
        Workers("headrace_sample_joiner", environment, folder),
        Workers("headrace_feature_worker", environment, folder),
    )


@pytest.mark.parametrize(
    ("requests", "rate"),
    [
        pytest.param(1_000, 3_000.0, id="small"),
        pytest.param(20_000, 3_000.0, id="200,000 impressions", marks=pytest.mark.long),
    ],
)
async def test_results_are_exact_after_a_restore(stores: Stores, tmp_path: Path, requests: int, rate: float) -> None:
    platform = a_platform(stores, tmp_path, requests)
    messages, truth, backup = platform.world.messages, Truth.of(platform.world), tmp_path / "backup"
    first, amid, second = (len(messages) * n // 5 for n in (2, 3, 4))
    versions = platform.data / "models" / "ctr"
    for version, when in ((1, "before"), (2, "since")):
        await asyncio.to_thread(
            platform.apply, tmp_path / when, **({"kept": 5} if version == 1 else {"kept": 9, "later": 9})
        )
        (versions / str(version)).mkdir(parents=True)
        (versions / str(version) / "saved_model.pb").write_text(when, encoding="utf-8")
        if version == 1:
            platform.start()
            try:
                await platform.send(messages[:first], rate)
                await platform.joined(0.2)
                await platform.counted(messages[: first // 2])
                sending = asyncio.create_task(platform.send(messages[first:amid], rate))
                await asyncio.to_thread(platform.headrace, "backup", str(backup))
                await sending
                await platform.live_long()
                await platform.send(messages[amid:second], rate)
                await platform.joined(0.6)
                await platform.counted(messages[:second])
            finally:
                platform.kill()

    shutil.rmtree(versions / "1")
    await asyncio.to_thread(platform.lose_postgres_and_restore, backup)
    applied = await asyncio.to_thread(platform.applied)
    platform.start()
    try:
        await platform.send(messages[second:], rate)
        await platform.all_sources_at_the_end()
        lists = await platform.lists(truth)
        samples = await platform.samples()
    finally:
        for workers in platform.services:
            workers.stop()

    assert not lists.wrong, lists.wrong[:3]
    assert lists.rows > 100
    assert samples.exact, samples
    assert samples.undone > 0  # seqs that were given out again, for other changes
    assert [(versions / v / "saved_model.pb").read_text(encoding="utf-8") for v in "12"] == ["before", "since"]
    assert applied == {"kept": 5}
    aside = platform.data.parent / "applied-before-restore" / "features"
    assert sorted(file.name for file in aside.iterdir()) == ["kept.yaml", "later.yaml"]


async def test_workers_refuse_a_database_that_was_set_back_and_not_declared(stores: Stores, tmp_path: Path) -> None:
    platform = a_platform(stores, tmp_path, 100)
    platform.joiner.replicas = 1
    platform.joiner.start()
    try:
        await platform.send(platform.world.messages, 10_000.0)
        await platform.joined(0.1)
        with pytest.raises(AliveError, match="sample-joiner"):
            raise_after_restore(stores.postgres_dsn, "too early")
    finally:
        platform.joiner.stop()
    with psycopg.connect(stores.postgres_dsn) as connection:
        connection.execute("UPDATE runtime.partitions SET next_seq = greatest(1, next_seq - 1)")

    platform.joiner.start()
    try:

        async def refused() -> bool:
            return "it was restored from a backup" in platform.joiner.log()

        await wait_for(refused, platform.joiner, DEADLINE_S, "a refusal")
    finally:
        platform.joiner.stop()

    raised = raise_after_restore(stores.postgres_dsn, "by hand")
    again = raise_after_restore(stores.postgres_dsn, "by hand")
    assert (raised.anew, again.anew) == (True, False)
    assert (again.incarnation, again.epoch) == (raised.incarnation, raised.epoch)
    assert await first_epoch(stores.postgres_dsn) == raised.epoch + 1


async def first_epoch(dsn: str) -> int:
    """Epoch of a job that the database never knew."""
    sink = ViewSink("redis://unused", 1)
    store = CheckpointStore(dsn, Job("new", (), lambda _: CatalogOperator(User, catalog_user_key), sink), "a-test")
    await store.open()
    try:
        return (await store.claim([0], None))[0].position.epoch
    finally:
        await store.close()


async def test_a_redis_that_lost_everything_is_filled_again(stores: Stores, tmp_path: Path) -> None:
    platform = a_platform(stores, tmp_path, 300)
    platform.features.replicas = 1
    platform.features.start()
    redis = Redis.from_url(stores.redis_url)

    async def catalog() -> int:
        return sum([1 async for _ in redis.scan_iter(match="cat:*")])

    async def filled() -> bool:
        return await catalog() == 20 and not (await features_check.check(platform.world, truth, stores.redis_url)).wrong

    truth = Truth.of(platform.world)
    entries = [Message("users.v1", f"u{n}", b"") for n in range(20)]
    try:
        await produce(stores.kafka_address, World(platform.world.plan, messages=entries), topics=("users.v1",))
        await platform.send(platform.world.messages, 10_000.0)
        await platform.all_sources_at_the_end()
        await wait_for(filled, platform.features, DEADLINE_S, "lists, sequences and catalog")

        await redis.flushall()

        await wait_for(filled, platform.features, DEADLINE_S, "lists, sequences and catalog again")
    finally:
        platform.features.stop()
        await redis.aclose()
