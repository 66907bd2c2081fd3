"""Checkpoints in PostgreSQL: claims with fencing epochs, and one transaction for offsets, state, rows and outbox."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import zstandard

from headrace_core.runtime.incarnation import Incarnations, read_incarnations
from headrace_core.runtime.job import Job, Outbox
from headrace_core.runtime.kafka_identity import Identity
from headrace_core.runtime.partition import Drained, Position
from headrace_core.runtime.sink import OutboxMessage, Snapshot

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from headrace_core.contracts.time import Millis

log = logging.getLogger(__name__)

#: A former owner that was stopped inside a COPY holds its row locks; a claim waits for so long before it ends him.
_CLAIM_LOCK_TIMEOUT: Final = "1s"

#: A partition that a restored backup does not know may have been claimed since: it, too, begins above the lost time's.
_CLAIM: Final = """
INSERT INTO runtime.partitions AS p (job, partition, epoch, owner, cluster, topics)
SELECT $1, n, 1 + (SELECT coalesce(max(epoch), 0) FROM runtime.restores), $3, $4, $5::jsonb
FROM unnest($2::int[]) n ORDER BY n
ON CONFLICT (job, partition) DO UPDATE SET epoch = p.epoch + 1, number = 0, owner = excluded.owner, claimed_at = now(),
    cluster = coalesce(p.cluster, excluded.cluster), topics = coalesce(p.topics, excluded.topics)
RETURNING *
"""

_STATE: Final = """
SELECT partition, whole, data FROM runtime.state WHERE job = $1 AND partition = ANY($2) ORDER BY partition, ordinal
"""

_LOCK: Final = """
SELECT p.partition, p.number, p.next_seq, p.ordinal, p.snapshot_bytes, p.changes_bytes
FROM runtime.partitions p JOIN unnest($2::int[], $3::bigint[]) v(partition, epoch)
    ON p.partition = v.partition AND p.epoch = v.epoch
WHERE p.job = $1 ORDER BY p.partition FOR UPDATE OF p
"""

_COMMIT: Final = """
UPDATE runtime.partitions p
SET number = v.number, offsets = v.offsets::jsonb, watermarks = v.watermarks::jsonb, watermark = v.watermark,
    ordinal = v.ordinal, snapshot_bytes = v.snapshot_bytes, changes_bytes = v.changes_bytes, next_seq = v.next_seq,
    published_seq = greatest(p.published_seq, v.published_seq), committed_at = now()
FROM unnest($2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::bigint[], $11::bigint[])
    v(partition, number, offsets, watermarks, watermark, ordinal, snapshot_bytes, changes_bytes, next_seq,
        published_seq)
WHERE p.job = $1 AND p.partition = v.partition
"""


class FencedError(Exception):
    """Somebody else claimed the partition: everything computed since the last checkpoint is void."""


class KafkaReplacedError(Exception):
    """The stored offsets belong to another cluster or topic than the one we are connected to."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim found.

    Attributes:
        position: where to go on.
        snapshot: state of the operator, None before the first.
        changes: to that state, oldest first.
        next_seq: of the outbox.
        published_seq: all of the outbox up to here is in Kafka.
        state_bytes: size of the snapshot and of the changes after it, compressed.
    """

    position: Position
    snapshot: bytes | None
    changes: list[bytes]
    next_seq: int
    published_seq: int
    state_bytes: tuple[int, int]


class Sequenced(msgspec.Struct, frozen=True, gc=False):
    """An outbox message with its place in the sequence of its source."""

    source: int
    seq: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """What a checkpoint left behind.

    Attributes:
        messages: rows of the outbox, in order per source.
        next_seq: per partition, of the outbox; rows before it may be more than `messages` when an earlier try had
            committed unnoticed.
        state_bytes: per partition, size of the snapshot and of the changes after it.
    """

    messages: list[Sequenced]
    next_seq: dict[int, int]
    state_bytes: dict[int, tuple[int, int]]


class CheckpointStore:
    """The only writer of schema `runtime`. One connection per job, whose name is the owner in the rows."""

    def __init__(self, dsn: str, job: Job, owner: str) -> None:
        """Prepare for `job`; `owner` is unique among all processes and names the connection."""
        self._dsn, self._job, self.owner = dsn, job, owner
        self._pool: asyncpg.Pool[Any] | None = None
        self._known_days: set[str] = set()
        self._compress = zstandard.ZstdCompressor(level=1)
        self._decompress = zstandard.ZstdDecompressor()
        self.incarnations = Incarnations()

    async def open(self) -> None:
        """Connect.

        Raises:
            OSError, asyncpg.PostgresError: the database is away.
        """
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=1,
            max_size=1,
            server_settings={
                "application_name": self.owner,
                "idle_in_transaction_session_timeout": "15000",
                "statement_timeout": "60000",
            },
        )
        async with self._pool.acquire() as connection:
            self.incarnations = await read_incarnations(connection, self._job.name)

    async def close(self) -> None:
        """Disconnect."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    @asynccontextmanager
    async def _connection(self) -> "AsyncIterator[PoolConnectionProxy[Any]]":
        if self._pool is None:
            raise RuntimeError("the checkpoint store is not open")
        async with self._pool.acquire() as connection:
            yield connection

    async def claim(self, partitions: Sequence[int], identity: Identity | None) -> dict[int, Claim]:
        """Take over partitions: raises their epochs, which voids whatever a former owner has not committed.

        Args:
            partitions: their numbers.
            identity: of the cluster and the inputs, None to leave that unchecked.

        Raises:
            KafkaReplacedError: offsets were stored for another cluster or topic.
        """
        cluster = identity.cluster if identity else None
        topics = json.dumps(identity.topics) if identity else None
        while True:
            try:
                async with self._connection() as connection, connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{_CLAIM_LOCK_TIMEOUT}'")
                    rows = await connection.fetch(
                        _CLAIM, self._job.name, sorted(partitions), self.owner, cluster, topics
                    )
                    if identity:
                        self._check_identity(rows, identity)
                    # A statement of its own: the first may have waited for a former owner's commit, and its snapshot
                    # would show the state from before that commit beside the offsets from after it.
                    state = await connection.fetch(_STATE, self._job.name, sorted(partitions))
            except asyncpg.LockNotAvailableError:
                await self._end_former_owners(partitions)
            else:
                return {
                    r["partition"]: self._claimed(r, [s for s in state if s["partition"] == r["partition"]])
                    for r in rows
                }

    async def holds(self, partition: int, epoch: int, number: int) -> bool:
        """Whether a partition is still as we left it at our last checkpoint."""
        async with self._connection() as connection:
            found = await connection.fetchval(
                "SELECT true FROM runtime.partitions WHERE job = $1 AND partition = $2 AND epoch = $3 AND number = $4",
                self._job.name, partition, epoch, number,
            )  # fmt: skip
        return bool(found)

    async def commit(self, drained: Sequence[Drained], published: dict[int, int]) -> Committed:
        """Make one checkpoint of several partitions in one transaction.

        May be repeated with the same arguments after an error, also when the outcome of the first try is unknown.

        Args:
            drained: a part per partition.
            published: per partition, up to which seq Kafka has acknowledged the outbox.

        Raises:
            FencedError: somebody else claimed one of the partitions.
        """
        drained = sorted(drained, key=lambda d: d.snapshot.partition)
        snapshots = [d.snapshot for d in drained]
        async with self._connection() as connection:
            if self._job.outbox is not None:
                await self._ensure_day(connection, self._job.outbox)
            async with connection.transaction():
                rows = await connection.fetch(
                    _LOCK, self._job.name, [s.partition for s in snapshots], [s.epoch for s in snapshots]
                )
                held = {row["partition"]: row for row in rows}
                lost = [s.partition for s in snapshots if s.partition not in held]
                if lost:
                    raise FencedError(f"{self._job.name}: partitions {lost} were claimed by another worker")
                if all(held[s.partition]["number"] == s.number for s in snapshots):
                    # The connection broke after the commit of an earlier try.
                    return Committed(
                        [],
                        {n: r["next_seq"] for n, r in held.items()},
                        {n: (r["snapshot_bytes"], r["changes_bytes"]) for n, r in held.items()},
                    )
                behind = [s.partition for s in snapshots if held[s.partition]["number"] != s.number - 1]
                if behind:
                    raise FencedError(f"{self._job.name}: checkpoints of {behind} are not the next ones")
                messages = await self._job.sink.in_transaction(connection, snapshots)
                sequenced, next_seq = self._sequence(messages, {n: r["next_seq"] for n, r in held.items()})
                if sequenced and self._job.outbox is not None:
                    await self._append(connection, self._job.outbox, sequenced)
                sizes = await self._write_state(connection, drained, held)
                await self._write_positions(connection, snapshots, sizes, next_seq, published)
        return Committed(sequenced, next_seq, {n: (size, changes) for n, (_, size, changes) in sizes.items()})

    async def unpublished(self, source: int, after: int, limit: int) -> list[Sequenced]:
        """Rows of the outbox that Kafka may not have, oldest first."""
        if self._job.outbox is None:
            return []
        wanted = f"SELECT seq, key, value FROM {self._job.outbox.table} WHERE source = $1 AND seq > $2"  # noqa: S608  # the table is the job's own
        async with self._connection() as connection:
            # Seqs are dense; a range of them is found by the index alone, whatever else there is.
            rows = await connection.fetch(f"{wanted} AND seq <= $3 ORDER BY seq", source, after, after + limit)
            if not rows:  # days that were dropped
                rows = await connection.fetch(f"{wanted} ORDER BY seq LIMIT $3", source, after, limit)
        return [Sequenced(source, row["seq"], row["key"], row["value"]) for row in rows]

    async def mark_published(self, published: dict[int, tuple[int, int]]) -> None:
        """Move the published marks, {partition: (epoch, seq)}, unless somebody else owns the partition by now."""
        async with self._connection() as connection:
            await connection.executemany(
                "UPDATE runtime.partitions SET published_seq = greatest(published_seq, $4) "
                "WHERE job = $1 AND partition = $2 AND epoch = $3",
                [(self._job.name, n, epoch, seq) for n, (epoch, seq) in published.items()],
            )

    def _check_identity(self, rows: Sequence["asyncpg.Record"], identity: Identity) -> None:
        for row in rows:
            stored = Identity(row["cluster"], json.loads(row["topics"]))
            if stored != identity:
                raise KafkaReplacedError(
                    f"{self._job.name}/{row['partition']}: offsets are of {stored}, connected to {identity}; "
                    "see docs/operations/kafka-replaced.md"
                )

    async def _end_former_owners(self, partitions: Sequence[int]) -> None:
        async with self._connection() as connection:
            ended = await connection.fetch(
                "SELECT a.application_name, pg_terminate_backend(a.pid) FROM pg_stat_activity a "
                "WHERE a.application_name <> $3 AND a.state <> 'idle' AND a.application_name IN "
                "(SELECT owner FROM runtime.partitions WHERE job = $1 AND partition = ANY($2))",
                self._job.name, list(partitions), self.owner,
            )  # fmt: skip
        log.warning("ended backends of former owners", extra={"fields": {"owners": [r[0] for r in ended]}})
        await asyncio.sleep(0.05)

    def _claimed(self, row: "asyncpg.Record", state: Sequence["asyncpg.Record"]) -> Claim:
        snapshot: bytes | None = None
        changes: list[bytes] = []
        for part in state:
            data = self._decompress.decompress(part["data"])
            if part["whole"]:
                snapshot, changes = data, []
            else:
                changes.append(data)
        watermarks: dict[str, Millis] = json.loads(row["watermarks"])
        position = Position(row["epoch"], row["number"], json.loads(row["offsets"]), watermarks, row["watermark"])
        sizes = (row["snapshot_bytes"], row["changes_bytes"])
        return Claim(position, snapshot, changes, row["next_seq"], row["published_seq"], sizes)

    @staticmethod
    def _sequence(
        messages: Sequence[OutboxMessage], next_seq: dict[int, int]
    ) -> tuple[list[Sequenced], dict[int, int]]:
        sequenced = []
        for m in messages:
            seq = next_seq[m.partition]
            next_seq[m.partition] = seq + 1
            sequenced.append(Sequenced(m.partition, seq, m.key, m.value))
        return sequenced, next_seq

    async def _append(
        self, connection: "PoolConnectionProxy[Any]", outbox: Outbox, messages: Sequence[Sequenced]
    ) -> None:
        schema, table = outbox.table.split(".")
        await connection.copy_records_to_table(
            table,
            schema_name=schema,
            columns=("source", "seq", "key", "value"),
            records=((m.source, m.seq, m.key, m.value) for m in messages),
        )

    async def _ensure_day(self, connection: "PoolConnectionProxy[Any]", outbox: Outbox) -> None:
        """Create the outbox's partitions of today and tomorrow; rows get their day from the database's clock."""
        today = time.strftime("%Y%m%d", time.gmtime())
        if today in self._known_days:
            return
        await connection.execute(
            f"""
            DO $$
            DECLARE d date;
            BEGIN
                PERFORM pg_advisory_xact_lock(hashtext('{outbox.table}'));
                FOR i IN -1..1 LOOP
                    d := (now() AT TIME ZONE 'UTC')::date + i;
                    EXECUTE format('CREATE TABLE IF NOT EXISTS {outbox.table}_%s PARTITION OF {outbox.table} '
                        'FOR VALUES FROM (%L) TO (%L)', to_char(d, 'YYYYMMDD'), d, d + 1);
                END LOOP;
            END $$
            """
        )
        self._known_days = {today}

    async def _write_state(
        self, connection: "PoolConnectionProxy[Any]", drained: Sequence[Drained], held: dict[int, Any]
    ) -> dict[int, tuple[int, int, int]]:
        sizes, rows, replaced = {}, [], []
        for d in drained:
            n = d.snapshot.partition
            ordinal, size, changes = (held[n][c] for c in ("ordinal", "snapshot_bytes", "changes_bytes"))
            if d.state is not None:
                data = self._compress.compress(d.state)
                ordinal += 1
                rows.append((self._job.name, n, ordinal, d.whole, data))
                if d.whole:
                    size, changes = len(data), 0
                    replaced.append((n, ordinal))
                else:
                    changes += len(data)
            sizes[n] = (ordinal, size, changes)
        if replaced:
            await connection.execute(
                "DELETE FROM runtime.state s USING unnest($2::int[], $3::bigint[]) v(partition, ordinal) "
                "WHERE s.job = $1 AND s.partition = v.partition AND s.ordinal < v.ordinal",
                self._job.name, [n for n, _ in replaced], [o for _, o in replaced],
            )  # fmt: skip
        if rows:
            await connection.copy_records_to_table(
                "state", schema_name="runtime", columns=("job", "partition", "ordinal", "whole", "data"), records=rows
            )
        return sizes

    async def _write_positions(  # the parts of one row, told once
        self,
        connection: "PoolConnectionProxy[Any]",
        snapshots: Sequence[Snapshot],
        sizes: dict[int, tuple[int, int, int]],
        next_seq: dict[int, int],
        published: dict[int, int],
    ) -> None:
        numbers = [s.partition for s in snapshots]
        await connection.execute(
            _COMMIT,
            self._job.name,
            numbers,
            [s.number for s in snapshots],
            [json.dumps(s.offsets) for s in snapshots],
            [json.dumps(s.watermarks) for s in snapshots],
            [s.watermark or None for s in snapshots],
            [sizes[n][0] for n in numbers],
            [sizes[n][1] for n in numbers],
            [sizes[n][2] for n in numbers],
            [next_seq[n] for n in numbers],
            [published.get(n, 0) for n in numbers],
        )
