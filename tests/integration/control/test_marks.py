"""The joiner's marks, told to a real control plane of a real sample store."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from headrace_core.contracts import FeatureLog
from headrace_core.control.client import ControlClient
from headrace_core.runtime.sink import Snapshot
from headrace_sample_joiner.joiner.effects import Version
from headrace_sample_joiner.marks import MarkTeller
from headrace_sample_joiner.store.sample_store import SampleStore
from headrace_trainer.store.scan import open_scan

from load_tests.streams.world import uuid7
from tests.integration.control.eventually import eventually
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack

WINDOW_MS, EVERY_MS = 600_000, 60_000
#: Each test has an hour of its own: a mark is told once for ever, and tests share the control plane.
HOURS = (1_764_072_000_000 + n * 3_600_000 for n in itertools.count())


@dataclass
class Joiner:
    """A joiner without samples, its time, and the workers that tell its marks.

    Attributes:
        hour: ms since the epoch, on a mark.
        job: its name, which the tellers' connections bear, too.
    """

    dsn: str
    control: str
    client: ControlClient
    table: Any
    hour: int
    tellers: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def job(self) -> str:
        return f"joiner-{self.hour}"

    async def complete_until(self, time: int) -> None:
        """Let windows pass: samples up to `time` ms after the hour are labelled, as the workers commit it."""
        await self.table.execute(
            "INSERT INTO runtime.partitions (job, partition, epoch, owner, watermark) VALUES ($1, 0, 1, 'test', $2) "
            "ON CONFLICT (job, partition) DO UPDATE SET watermark = excluded.watermark",
            self.job, self.hour + time + WINDOW_MS,
        )  # fmt: skip

    async def add_sample(self, time: int) -> None:
        """Publish the sample of a request that was made `time` ms after the hour."""
        made = self.hour + time
        request = uuid7(made, random.Random(time))
        log = FeatureLog(request_id=request, event_time=made).SerializeToString()
        version = Version(request, "2001", "u", "100", made, 0, 0, 1, 0, 1, log, 0, True)
        async with self.table.transaction():
            await SampleStore().in_transaction(self.table, [Snapshot(0, 1, 1, [version], 0)])

    def tell(self) -> "asyncio.Task[None]":
        """Start a worker's teller."""
        teller = MarkTeller(
            postgres=f"{self.dsn}?application_name={self.job}", control=self.control, job=self.job,
            window_ms=WINDOW_MS, every_ms=EVERY_MS,
        )  # fmt: skip
        self.tellers.append(asyncio.create_task(teller.run()))
        return self.tellers[-1]

    async def told(self) -> list[int]:
        """Marks that were told, ms after the hour."""
        events = (await self.client.events(keys=["samples"], type="JOINED_UNTIL")).items
        return [int(e.value) - self.hour for e in events if 0 <= int(e.value) - self.hour < 3_600_000]

    async def looked(self, times: int = 2) -> None:
        """Wait until every teller has looked so often more."""
        begun: dict[int, set[Any]] = {}

        async def look() -> bool:
            rows = await self.table.fetch(
                "SELECT pid, query_start FROM pg_stat_activity WHERE application_name = $1", self.job
            )
            for row in rows:
                begun.setdefault(row["pid"], set()).add(row["query_start"])
            return len(rows) == len(self.tellers) and all(len(begun[row["pid"]]) > times for row in rows)

        await eventually(look, "the tellers look")


@asynccontextmanager
async def a_joiner(control: ControlPlane, client: ControlClient, table: Any, dsn: str) -> AsyncIterator[Joiner]:
    joiner = Joiner(dsn, control.url, client, table, next(HOURS))
    await table.execute("DELETE FROM samples.requests")
    try:
        yield joiner
    finally:
        for teller in joiner.tellers:
            teller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await teller


async def test_first_mark_is_the_first_that_has_a_sample_before_it(
    control: ControlPlane, client: ControlClient, table: Any, dsn: str
) -> None:
    async with a_joiner(control, client, table, dsn) as joiner:
        joiner.tell()
        await joiner.complete_until(0)
        await joiner.looked()
        without = await joiner.told()

        await joiner.add_sample(EVERY_MS)  # positive at once, long before its window is over
        await joiner.looked()
        too_new = await joiner.told()
        await joiner.complete_until(EVERY_MS)  # and the mark is its own time, which a base until then leaves out
        await joiner.looked()
        not_yet = await joiner.told()

        await joiner.complete_until(2 * EVERY_MS)
        told = await eventually(joiner.told, "a mark")

    assert (without, too_new, not_yet, told) == ([], [], [], [2 * EVERY_MS])
    async with open_scan(dsn, until=joiner.hour + EVERY_MS) as scan:
        assert scan.requests == 0
    async with open_scan(dsn, until=joiner.hour + told[0]) as scan:
        assert scan.requests == 1


async def test_mark_is_told_once_by_all_workers_and_their_successors(
    control: ControlPlane, client: ControlClient, table: Any, dsn: str
) -> None:
    async with a_joiner(control, client, table, dsn) as joiner:
        await joiner.add_sample(-EVERY_MS)
        await joiner.complete_until(0)
        for _ in range(3):
            joiner.tell()
        await joiner.looked()
        await joiner.complete_until(EVERY_MS)
        await joiner.looked()
        joiner.tellers.pop().cancel()
        joiner.tell()
        await joiner.looked()

        assert await joiner.told() == [0, EVERY_MS]


async def test_sample_is_not_looked_for_again_once_there_was_one(
    control: ControlPlane, client: ControlClient, table: Any, dsn: str
) -> None:
    async with a_joiner(control, client, table, dsn) as joiner:
        await joiner.add_sample(-EVERY_MS)
        await joiner.complete_until(0)
        joiner.tell()
        await eventually(joiner.told, "a mark")

        await table.execute("DELETE FROM samples.requests")
        await joiner.complete_until(EVERY_MS)

        await eventually(lambda: _is(joiner, [0, EVERY_MS]), "the next mark")


async def _is(joiner: Joiner, wanted: list[int]) -> bool:
    return await joiner.told() == wanted
