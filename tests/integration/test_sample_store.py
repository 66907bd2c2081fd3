"""The joiner's effects in real PostgreSQL: rows, corrections, waiting actions, accounting. No Kafka, no workers."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from headrace_core.contracts import BehaviorEvent, FeatureLog, Operation, SampleChange
from headrace_core.runtime.checkpoint_store import CheckpointStore
from headrace_core.runtime.job import Job, Outbox
from headrace_core.runtime.partition import Partition
from headrace_sample_joiner.joiner.operator import BEHAVIOR, LOGS
from headrace_sample_joiner.store.sample_store import SampleStore
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from tests.conftest import Stores
from tests.unit.joiner.driver import HORIZON, LATENESS, WINDOW, Message, an_operator
from tests.unit.joiner.events import (
    CART,
    CLICK,
    START,
    ARecord,
    a_cancellation,
    a_cart,
    a_click,
    a_log,
    a_request,
    an_impression,
)
from tests.unit.joiner.naive import outcome
from tests.unit.joiner.streams import REQUESTS, streams

pytestmark = pytest.mark.stack

RETIRED = WINDOW + 3 * LATENESS
SOURCES = itertools.count(1_000)  # source partitions no worker has
REQUEST = a_request(77)


class Joiner:
    """One partition, fed by hand."""

    def __init__(self, connection: Any, store: CheckpointStore, partition: Partition) -> None:
        self.connection, self.store, self.partition = connection, store, partition
        self.offsets = itertools.count()

    async def feed(self, *messages: Message) -> None:
        """Process messages and make a checkpoint."""
        for message in messages:
            topic = LOGS if isinstance(message, FeatureLog) else BEHAVIOR
            self.partition.feed(topic, [ARecord(message.SerializeToString(), offset=next(self.offsets))])
        await self.checkpoint()

    async def let_pass(self, at: int) -> None:
        """Let time pass, ms after START, and make a checkpoint."""
        self.partition.operator.advance(START + at, self.partition._out)
        await self.checkpoint()

    async def checkpoint(self) -> None:
        await self.store.commit([self.partition.drain(whole=False)], {})

    async def rows(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(request, item): (label, version)."""
        rows = await self.connection.fetch(
            "SELECT request_id::text, item_id, label, version FROM samples.current WHERE source_partition = $1",
            self.partition.number,
        )
        return {(r["request_id"], r["item_id"]): (r["label"], r["version"]) for r in rows}

    async def changes(self) -> list[tuple[str, str, int, int, int]]:
        """(item, operation, previous label, label, version) of each change, in order."""
        rows = await self.connection.fetch(
            "SELECT seq, value FROM samples.changes WHERE source = $1 ORDER BY seq", self.partition.number
        )
        assert [r["seq"] for r in rows] == list(range(1, len(rows) + 1))
        changes = [SampleChange.FromString(r["value"]) for r in rows]
        return [
            (c.sample.item_id, Operation.Name(c.operation).removeprefix("OPERATION_").lower(), c.previous_label,
             c.sample.label, c.sample.version)
            for c in changes
        ]  # fmt: skip

    async def accounting(self) -> dict[str, int]:
        """What is not zero."""
        row = await self.connection.fetchrow(
            "SELECT * FROM samples.accounting WHERE source_partition = $1", self.partition.number
        )
        sums = {name: value for name, value in (row or {}).items() if name != "source_partition"}
        impressions = ("joined", "orphaned", "duplicate", "pending")
        assert sums.get("impressions", 0) == sum(sums.get(name, 0) for name in impressions)
        assert sums.get("joined", 0) == sums.get("positive", 0) + sums.get("negative", 0)
        return {name: value for name, value in sums.items() if value}


@asynccontextmanager
async def a_joiner(stores: Stores, requests: list[str]) -> AsyncIterator[Joiner]:
    """A joiner on a partition of its own; nothing is stored of its requests yet."""
    number = next(SOURCES)
    connection = await asyncpg.connect(stores.postgres_dsn)
    for table in ("requests", "actions", "waiting"):
        await connection.execute(f"DELETE FROM samples.{table} WHERE request_id::text = ANY($1)", requests)
    job = Job(
        name=f"joiner-{number}", inputs=(BEHAVIOR, LOGS), operator=lambda _: an_operator(), sink=SampleStore(),
        outbox=Outbox("samples.changes", "samples.v1"), lateness_ms=LATENESS,
    )  # fmt: skip
    store = CheckpointStore(stores.postgres_dsn, job, job.name)
    await store.open()
    try:
        claim = (await store.claim([number], None))[number]
        partition = Partition(number, job.inputs, an_operator(), claim.position, LATENESS)
        yield Joiner(connection, store, partition)
    finally:
        await store.close()
        await connection.close()


@pytest.fixture
async def joiner(stores: Stores) -> AsyncIterator[Joiner]:
    async with a_joiner(stores, [REQUEST]) as joiner:
        yield joiner


async def test_late_click_makes_version_2_that_tells_the_previous_label(joiner: Joiner) -> None:
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST))
    await joiner.let_pass(RETIRED)

    await joiner.feed(a_click(REQUEST, at=RETIRED))

    assert await joiner.rows() == {(REQUEST, "a"): (CLICK, 2)}
    assert await joiner.changes() == [("a", "insert", 0, 0, 1), ("a", "correct", 0, CLICK, 2)]
    assert await joiner.accounting() == {"impressions": 1, "joined": 1, "positive": 1, "corrected": 1}


async def test_late_click_that_comes_twice_corrects_once(joiner: Joiner) -> None:
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST))
    await joiner.let_pass(RETIRED)
    await joiner.feed(a_click(REQUEST, at=RETIRED))
    joiner.partition.operator = an_operator()  # as after the dedupe window
    await joiner.let_pass(RETIRED)

    await joiner.feed(a_click(REQUEST, at=RETIRED))

    assert await joiner.rows() == {(REQUEST, "a"): (CLICK, 2)}


async def test_late_cancellation_takes_back_a_click_from_before_retirement(joiner: Joiner) -> None:
    click = a_click(REQUEST, at=100)
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST), click, a_cart(REQUEST, at=200))
    await joiner.let_pass(RETIRED)

    await joiner.feed(a_cancellation(click, at=RETIRED))

    assert await joiner.rows() == {(REQUEST, "a"): (CART, 3)}
    assert (await joiner.changes())[-1] == ("a", "correct", CLICK | CART, CART, 3)


async def test_late_cancellation_leaves_a_bit_that_another_click_backs(joiner: Joiner) -> None:
    first, second = a_click(REQUEST, at=100, name="c1"), a_click(REQUEST, at=200, name="c2")
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST), first, second)
    await joiner.let_pass(RETIRED)

    await joiner.feed(a_cancellation(first, at=RETIRED))
    one_left = await joiner.rows()
    await joiner.feed(a_cancellation(second, at=RETIRED))

    assert one_left == {(REQUEST, "a"): (CLICK, 1)}
    assert await joiner.rows() == {(REQUEST, "a"): (0, 2)}


async def test_late_cancellation_before_its_late_click_cancels_it(joiner: Joiner) -> None:
    click = a_click(REQUEST, at=RETIRED)
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST))
    await joiner.let_pass(RETIRED)

    await joiner.feed(a_cancellation(click, at=RETIRED))
    await joiner.feed(click)

    assert await joiner.rows() == {(REQUEST, "a"): (0, 1)}


async def test_action_long_before_its_impression_waits_in_the_store(joiner: Joiner) -> None:
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST, "b"))
    await joiner.let_pass(RETIRED)
    await joiner.feed(a_click(REQUEST, at=RETIRED))
    before = await joiner.rows()

    await joiner.feed(an_impression(REQUEST))
    await joiner.let_pass(RETIRED + LATENESS)

    assert before == {(REQUEST, "b"): (0, 1)}
    assert await joiner.rows() == {(REQUEST, "b"): (0, 1), (REQUEST, "a"): (CLICK, 2)}
    assert await joiner.connection.fetchval("SELECT count(*) FROM samples.waiting WHERE request_id = $1", REQUEST) == 0


async def test_orphan_is_repaired_by_a_late_log(joiner: Joiner) -> None:
    await joiner.feed(an_impression(REQUEST), a_click(REQUEST, at=100))
    await joiner.let_pass(10 * WINDOW)
    orphaned = await joiner.accounting()

    await joiner.feed(a_log(REQUEST))

    assert orphaned == {"impressions": 1, "orphaned": 1}
    assert await joiner.rows() == {(REQUEST, "a"): (CLICK, 1)}
    assert await joiner.accounting() == {"impressions": 1, "joined": 1, "positive": 1}


async def test_late_impression_is_an_orphan_until_its_later_log(joiner: Joiner) -> None:
    await joiner.let_pass(RETIRED)
    await joiner.feed(an_impression(REQUEST))
    await joiner.let_pass(RETIRED + LATENESS)
    await joiner.feed(a_click(REQUEST, at=RETIRED))
    orphaned = await joiner.accounting()

    await joiner.feed(a_log(REQUEST))

    assert orphaned == {"impressions": 1, "orphaned": 1}
    assert await joiner.rows() == {(REQUEST, "a"): (CLICK, 2)}
    assert await joiner.accounting() == {"impressions": 1, "joined": 1, "positive": 1, "corrected": 1}


async def test_impression_again_after_retirement_is_a_duplicate_and_its_click_corrects(joiner: Joiner) -> None:
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST))
    await joiner.let_pass(RETIRED)

    await joiner.feed(an_impression(REQUEST, name="again"), a_click(REQUEST, at=RETIRED))
    await joiner.let_pass(RETIRED + LATENESS)

    assert await joiner.rows() == {(REQUEST, "a"): (CLICK, 2)}
    assert await joiner.accounting() == {
        "impressions": 2, "duplicate": 1, "joined": 1, "positive": 1, "corrected": 1,
    }  # fmt: skip


async def test_log_that_comes_again_after_a_repeated_impression_changes_nothing(joiner: Joiner) -> None:
    await joiner.feed(a_log(REQUEST), an_impression(REQUEST))
    await joiner.let_pass(RETIRED)
    await joiner.feed(an_impression(REQUEST, name="again"))
    await joiner.let_pass(RETIRED + LATENESS)

    await joiner.feed(a_log(REQUEST))

    assert await joiner.rows() == {(REQUEST, "a"): (0, 1)}
    assert await joiner.accounting() == {"impressions": 2, "duplicate": 1, "joined": 1, "negative": 1}
    shown = {
        state: REGISTRY.get_sample_value(
            "headrace_accounting", {"source_partition": str(joiner.partition.number), "state": state}
        )
        for state in ("impressions", "joined", "orphaned", "duplicate", "pending")
    }
    assert shown == {"impressions": 2, "joined": 1, "orphaned": 0, "duplicate": 1, "pending": 0}


async def test_action_whose_impression_never_comes_is_unattributed_at_the_horizon(joiner: Joiner) -> None:
    click = a_click(REQUEST, at=100)
    await joiner.feed(click, a_cancellation(click, at=200), a_cart(REQUEST, at=300))
    await joiner.let_pass(RETIRED)
    before = await joiner.accounting()

    await joiner.let_pass(2 * HORIZON)

    assert before == {}
    assert await joiner.accounting() == {"unattributed": 2}
    assert await joiner.connection.fetchval("SELECT count(*) FROM samples.waiting WHERE request_id = $1", REQUEST) == 0


async def test_sample_holds_the_features_as_served_and_where_it_came_from(joiner: Joiner) -> None:
    log = a_log(REQUEST)
    log.model, log.model_version, log.feature_set_version = "ctr", 3, 4
    await joiner.feed(log, an_impression(REQUEST), a_click(REQUEST, at=100))

    row = dict(
        await joiner.connection.fetchrow(
            "SELECT * FROM samples.current WHERE request_id = $1 AND item_id = 'a'", REQUEST
        )
    )

    assert json.loads(row["features"]) == {"user": {"age": 7}, "context": {}, "item": {"ctr": 0.1}}
    assert (row["user_id"], row["page_id"], row["position"], row["score"]) == ("u1", "home", 3, 0.5)
    assert (row["model"], row["model_version"], row["feature_set_version"]) == ("ctr", 3, 4)
    assert (row["log_offset"], row["impression_offset"], row["event_time"]) == (0, 1, START)


async def test_commit_whose_answer_was_lost_is_not_made_twice(joiner: Joiner) -> None:
    joiner.partition.feed(LOGS, [ARecord(a_log(REQUEST).SerializeToString())])
    joiner.partition.feed(BEHAVIOR, [ARecord(an_impression(REQUEST).SerializeToString())])
    joiner.partition.feed(BEHAVIOR, [ARecord(a_click(REQUEST, at=1).SerializeToString(), offset=1)])
    drained = joiner.partition.drain(whole=False)

    await joiner.store.commit([drained], {})
    again = await joiner.store.commit([drained], {})

    assert (again.messages, again.next_seq) == ([], {joiner.partition.number: 2})
    assert await joiner.accounting() == {"impressions": 1, "joined": 1, "positive": 1}


@settings(max_examples=60)
@given(stream=streams(), data=st.data())
async def test_rows_changes_and_accounting_are_those_of_the_model(
    stores: Stores, stream: list[Message], data: st.DataObject
) -> None:
    async with a_joiner(stores, REQUESTS) as joiner:
        start = 0
        while start < len(stream):
            end = data.draw(st.integers(start + 1, len(stream)))
            await joiner.feed(*stream[start:end])
            await joiner.accounting()
            start = end
        await joiner.let_pass(3 * HORIZON)
        rows, changes, sums = await joiner.rows(), await joiner.changes(), await joiner.accounting()

    assert {key: label for key, (label, _) in rows.items()} == outcome(stream)
    assert len(changes) == sum(version for _, version in rows.values())
    assert sums.get("joined", 0) == len(rows)
    assert sums.get("positive", 0) == sum(label > 0 for label, _ in rows.values())
    shown = [m for m in stream if isinstance(m, BehaviorEvent) and m.action == 1]
    assert (sums.get("impressions", 0), sums.get("pending", 0)) == (len(shown), 0)
