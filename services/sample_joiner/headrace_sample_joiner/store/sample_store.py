"""The joiner's sink: samples, corrections and accounting, inside the checkpoint's transaction."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from headrace_core.contracts import Millis
from headrace_core.runtime.sink import OutboxMessage, Snapshot

from headrace_sample_joiner.joiner.effects import Correction, Counts, Evidence, Forget, Revived, Version
from headrace_sample_joiner.metrics import observe, show_accounting
from headrace_sample_joiner.store.rows import ARRAYS, COLUMNS, Row, array_literal, day_of

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_TYPES: Final = {"items": "text[]", "score": "float8[]", "propensity": "float8[]", "event_time": "bigint[]",
                 "impression_offset": "bigint[]", "joined_at": "bigint[]"}  # fmt: skip
_UPDATE: Final = (
    "UPDATE samples.requests r SET "  # noqa: S608  # columns of ours
    + ", ".join(f"{name} = v.{name}::{_TYPES.get(name, 'int[]')}" for name in ARRAYS)
    + " FROM unnest($1::date[], $2::uuid[], "
    + ", ".join(f"${n}::text[]" for n in range(3, 3 + len(ARRAYS)))
    + f") v(day, request_id, {', '.join(ARRAYS)}) WHERE r.day = v.day AND r.request_id = v.request_id"
)
_LOAD: Final = (
    f"SELECT {', '.join('r.' + c for c in COLUMNS)} FROM samples.requests r "  # noqa: S608  # columns of ours
    "JOIN unnest($1::date[], $2::uuid[]) v(day, request_id) ON r.day = v.day AND r.request_id = v.request_id"
)

#: Effects between which others have their turn: the publisher would wait for all of a large checkpoint at each of its steps.
_TURN: Final = 100

_Key = tuple[str, str, int]


class SampleStore:
    """Sink of the job `sample-joiner`."""

    def __init__(self) -> None:
        """Nothing is connected: the transaction is the runtime's."""
        self._days: set[date] = set()

    async def open(self) -> None:
        """Nothing of its own to connect."""

    async def close(self) -> None:
        """Nothing of its own to let go."""

    async def before_commit(self, snapshots: Sequence[Snapshot]) -> None:
        """Nothing outside of the transaction."""

    async def in_transaction(
        self, connection: "PoolConnectionProxy[Any]", snapshots: Sequence[Snapshot]
    ) -> Sequence[OutboxMessage]:
        """Write what the effects say; the changes for samples.v1, in order."""
        messages: list[OutboxMessage] = []
        days = _Days(self._days)
        for snapshot in snapshots:
            batch = _Batch(connection, snapshot, int(time.time() * 1000), days)
            messages += await batch.apply()
            observe(batch.counts, batch.freshness)
            if batch.totals is not None:
                show_accounting(snapshot.partition, batch.totals)
        return messages


class _Days:
    """Day partitions of samples.requests within one transaction.

    Only those that an earlier transaction left behind are remembered for good: this one may roll back.
    """

    def __init__(self, known: set[date]) -> None:
        self._known = known
        self._made: set[date] = set()

    async def ensure(self, connection: "PoolConnectionProxy[Any]", days: set[date]) -> None:
        """Create what is missing; two workers may do so at once."""
        for day in sorted(days - self._known - self._made):
            name = f"samples.requests_{day:%Y%m%d}"
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
                self._known.add(day)
                continue
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('samples.requests'))")
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF samples.requests "
                f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}') WITH (fillfactor = 85)"
            )
            self._made.add(day)


class _Batch:
    """One partition's effects of one checkpoint."""

    def __init__(self, connection: "PoolConnectionProxy[Any]", snapshot: Snapshot, now: Millis, days: "_Days") -> None:
        self._connection, self._source, self._now, self._days = connection, snapshot.partition, now, days
        self._effects = snapshot.effects
        self._rows: dict[str, Row] = {}
        self._messages: list[OutboxMessage] = []
        self._backing: dict[_Key, dict[int, bool]] = {}
        self._written: set[_Key] = set()
        self.counts = Counts()
        self.totals: Mapping[str, int] | None = None
        self.freshness: list[float] = []

    async def apply(self) -> list[OutboxMessage]:
        corrections = [e for e in self._effects if isinstance(e, Correction)]
        await self._load(corrections)
        revived: set[tuple[str, str]] = set()
        for n, effect in enumerate(self._effects):
            if n % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            if isinstance(effect, Version):
                self._version(effect)
            elif isinstance(effect, Evidence):
                self._back(effect)
            elif isinstance(effect, Revived):
                self._revive(effect, revived)
            elif isinstance(effect, Counts):
                _sum(self.counts, effect)
        waited = await self._waited(revived)
        await self._correct(corrections, waited)
        for effect in self._effects:
            if isinstance(effect, Forget):
                await self._forget(effect.before)
        await self._write()
        return self._messages

    async def _load(self, corrections: Sequence[Correction]) -> None:
        """Rows that may be there already: of requests published before, and of those that left the state."""
        opened: set[str] = set()
        ids: set[str] = set()
        for effect in self._effects:
            if isinstance(effect, Version):
                (opened if effect.opens else ids).add(effect.request_id)
            elif isinstance(effect, Revived):
                ids.add(effect.version.request_id)
        ids.update(c.evidence.request_id for c in corrections)
        ids -= opened
        days = {i: day_of(i) for i in ids}
        await self._days.ensure(self._connection, {*days.values(), *map(day_of, opened)})
        if days:
            for record in await self._connection.fetch(_LOAD, list(days.values()), list(days)):
                row = Row.loaded(record)
                self._rows[row.request_id] = row

    def _version(self, version: Version) -> None:
        row = self._rows.get(version.request_id)
        if row is None:
            row = self._rows[version.request_id] = Row.opened(version, self._source)
        if version.version == 1:
            self._messages.append(row.add(version, self._now))
            self.freshness.append((self._now - version.event_time) / 1000)
        else:
            self._messages.append(row.correct(row.items.index(version.item_id), version.label, self._now))

    def _revive(self, revived: Revived, added: set[tuple[str, str]]) -> None:
        """An impression that came after its request had retired: the row decides what becomes of it."""
        version = revived.version
        row = self._rows.get(version.request_id)
        if row is not None and version.item_id in row.items:
            self.counts.duplicate += not revived.repairs
        elif row is None and not version.log:
            self.counts.orphaned += 1
        else:
            self._version(version)
            added.add((version.request_id, version.item_id))
            self.counts.published(version.label, 0, 1)
            self.counts.orphaned -= revived.repairs

    def _back(self, evidence: Evidence) -> bool:
        """Note an action; whether that is news."""
        key = (evidence.request_id, evidence.item_id, evidence.bit)
        events = self._backing.setdefault(key, {})
        known = events.get(evidence.event)
        events[evidence.event] = evidence.cancelled or bool(known)
        self._written.add(key)
        return known != events[evidence.event]

    async def _waited(self, revived: set[tuple[str, str]]) -> list[Correction]:
        """Actions that waited for the impressions that came now: they had left the state before these came."""
        if not revived:
            return []
        rows = await self._connection.fetch(
            "DELETE FROM samples.waiting w USING unnest($1::uuid[], $2::text[]) v(request_id, item_id) "
            "WHERE w.request_id = v.request_id AND w.item_id = v.item_id RETURNING w.*",
            [r for r, _ in revived], [i for _, i in revived],
        )  # fmt: skip
        return [
            Correction(Evidence(str(r["request_id"]), r["item_id"], r["bit"], r["event"], r["cancelled"]),
                       r["event_time"])
            for r in sorted(rows, key=lambda r: (r["event_time"], r["event"], r["cancelled"]))
        ]  # fmt: skip

    async def _correct(self, corrections: Sequence[Correction], waited: Sequence[Correction]) -> None:
        """Actions after retirement, in order: each that changes a label makes a version."""
        if not corrections and not waited:
            return
        await self._load_backing([c.evidence for c in (*corrections, *waited)])
        missing = []
        for correction in (*waited, *corrections):
            evidence = correction.evidence
            row = self._rows.get(evidence.request_id)
            if row is None or evidence.item_id not in row.items:
                missing.append(correction)
                continue
            if self._back(evidence):
                index = row.items.index(evidence.item_id)
                label = self._label(row, index, evidence.bit)
                if label != row.label[index]:
                    self.counts.published(label, row.label[index], 2)
                    self._messages.append(row.correct(index, label, self._now))
        await self._wait(missing)

    def _label(self, row: Row, index: int, bit: int) -> int:
        events = self._backing.get((row.request_id, row.items[index], bit), {})
        backed = any(not cancelled for cancelled in events.values())
        return row.label[index] | bit if backed else row.label[index] & ~bit

    async def _load_backing(self, evidence: Sequence[Evidence]) -> None:
        """What backs the labels so far; this checkpoint's own evidence is there already and wins."""
        keys = {(e.request_id, e.item_id, e.bit) for e in evidence}
        rows = await self._connection.fetch(
            "SELECT a.* FROM samples.actions a JOIN unnest($1::uuid[]) v(request_id) ON a.request_id = v.request_id",
            list({request_id for request_id, _, _ in keys}),
        )
        for r in rows:
            events = self._backing.setdefault((str(r["request_id"]), r["item_id"], r["bit"]), {})
            events[r["event"]] = r["cancelled"] or events.get(r["event"], False)

    async def _wait(self, corrections: Sequence[Correction]) -> None:
        if corrections:
            await self._connection.executemany(
                "INSERT INTO samples.waiting VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                [(c.evidence.request_id, c.evidence.item_id, c.evidence.bit, c.evidence.event,
                  c.evidence.cancelled, self._source, c.event_time) for c in corrections],
            )  # fmt: skip

    async def _forget(self, before: Millis) -> None:
        """Give up actions whose sample never came."""
        gone = await self._connection.fetch(
            "DELETE FROM samples.waiting WHERE source = $1 AND event_time < $2 RETURNING cancelled",
            self._source, before,
        )  # fmt: skip
        self.counts.unattributed += sum(not r["cancelled"] for r in gone)

    async def _write(self) -> None:
        fresh = [r for r in self._rows.values() if r.is_new]
        old = [r for r in self._rows.values() if r.changed and not r.is_new]
        if fresh:
            await self._connection.copy_records_to_table(
                "requests", schema_name="samples", columns=COLUMNS, records=[r.values() for r in fresh]
            )
        if old:
            columns = [[array_literal(getattr(r, name)) for r in old] for name in ARRAYS]
            ids = [r.request_id for r in old]
            await self._connection.execute(_UPDATE, [*map(day_of, ids)], ids, *columns)
        actions = [(*key, event, c) for key in self._written for event, c in self._backing[key].items()]
        if actions:
            await self._connection.executemany(
                "INSERT INTO samples.actions AS a VALUES ($1, $2, $3, $4, $5) "
                "ON CONFLICT (request_id, item_id, bit, event) "
                "DO UPDATE SET cancelled = a.cancelled OR excluded.cancelled",
                actions,
            )
        changes = {k: v for k, v in asdict(self.counts).items() if v}
        if changes:
            names = ", ".join(changes)
            places = ", ".join(f"${n}" for n in range(2, 2 + len(changes)))
            sums = ", ".join(f"{n} = a.{n} + excluded.{n}" for n in changes)
            self.totals = await self._connection.fetchrow(
                f"INSERT INTO samples.accounting AS a (source_partition, {names}) VALUES ($1, {places}) "  # noqa: S608
                f"ON CONFLICT (source_partition) DO UPDATE SET {sums} RETURNING *",
                self._source, *changes.values(),
            )  # fmt: skip


def _sum(total: Counts, more: Counts) -> None:
    for name, value in asdict(more).items():
        setattr(total, name, getattr(total, name) + value)
