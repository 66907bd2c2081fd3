"""Runs one job: claims, feeding, ticking and checkpoints, whoever drives it (Faust, a bare consumer, a test)."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import asyncpg

from headrace_core.contracts.time import Millis
from headrace_core.runtime.checkpoint_store import CheckpointStore, Claim, FencedError
from headrace_core.runtime.dead_letters import DeadLetterWriter
from headrace_core.runtime.job import Job
from headrace_core.runtime.kafka_identity import Identity
from headrace_core.runtime.operator import Record
from headrace_core.runtime.partition import Drained, Partition
from headrace_core.runtime.publisher import Publisher
from headrace_core.settings import StreamSettings
from headrace_core.telemetry import CHECKPOINT_SECONDS, EVENTS, WATERMARK_LAG_SECONDS

log = logging.getLogger(__name__)

#: Changes are folded into a new snapshot once they outgrow the last one and this size: what is written stays in
#: proportion to what changed, and a claim reads at most twice the state.
FOLD_BYTES: Final = 256 * 1024
#: A batch that would let more rows than this many checkpoints wait is held back until one is through.
_CHECKPOINTS_AHEAD: Final = 3
#: How long a worker that ends waits for Kafka to take the last rows of its outbox. Well under the time that process
#: managers give (10 s embedded, 30 s on Kubernetes); what is left is sent by the next owner.
_DRAIN_SECONDS: Final = 5.0
#: Checkpoints of an idle job, which only move its watermark and its sliding windows, are this far apart.
_QUIET_SECONDS: Final = 1.0

#: Whether an empty fetch confirmed that (topic, partition, next offset) is at its end.
CaughtUp = Callable[[str, int, int], bool]
#: (incarnation, seq) of the last message that the outbox's topic holds, by partition.
Newest = Callable[[Sequence[int]], Awaitable[Mapping[int, tuple[int, int]]]]


class CheckpointStuckError(Exception):
    """A checkpoint failed for longer than is allowed; the process must end and be started again."""


class RestoredError(Exception):
    """The database was set back behind what Kafka holds, and nobody declared it."""


class JobRunner:
    """All partitions of one job in this process."""

    def __init__(  # noqa: PLR0913  # the parts are wired once, in worker.py
        self,
        service: str,
        job: Job,
        *,
        store: CheckpointStore,
        dead_letters: DeadLetterWriter,
        publisher: Publisher | None,
        settings: StreamSettings,
        newest: Newest | None = None,
    ) -> None:
        """Put the parts together; nothing is connected yet."""
        self.job = job
        self.partitions: dict[int, Partition] = {}
        self._service = service
        self._store = store
        self._dead_letters = dead_letters
        self._publisher = publisher
        self._settings = settings
        self._newest = newest
        self._parked: dict[int, Partition] = {}
        self._state_bytes: dict[int, tuple[int, int]] = {}
        self._lock = asyncio.Lock()
        self._last = time.monotonic()

    async def open(self) -> None:
        """Connect the stores."""
        await self._store.open()
        await self.job.sink.open()
        if self._publisher is not None:
            self._publisher.start(self._store.incarnations)

    async def close(self) -> None:
        """Make a last checkpoint, publish what it holds and let go of everything."""
        await self.release()
        if self._publisher is not None:
            if not await self._publisher.drain(_DRAIN_SECONDS):
                log.warning("ends with unpublished rows", extra={"fields": {"rows": self._publisher.backlog()}})
            await self._publisher.stop()
            await self._mark_published(self._publisher)
        await self.job.sink.close()
        await self._store.close()

    async def claim(self, numbers: Sequence[int], identity: Identity | None) -> dict[tuple[str, int], int | None]:
        """Own exactly these partitions from now on; where to read each input, None for its beginning.

        Partitions that were released a moment ago and that nobody else claimed keep their state in memory.

        Raises:
            RestoredError: seqs that would be given out next are in Kafka already.
        """
        async with self._lock:
            self.partitions.clear()
            kept = {
                n: p for n in numbers
                if (p := self._parked.get(n)) is not None and await self._store.holds(n, p.epoch, p.checkpoint)
            }  # fmt: skip
            for gone in [n for n in self._parked if n not in kept]:
                if self._publisher is not None:
                    self._publisher.revoke(gone)
            self._parked = {}
            claims = await self._store.claim([n for n in numbers if n not in kept], identity)
            await self._refuse_undeclared(claims)
            lacking = await self.job.lacking(list(claims)) if self.job.lacking is not None and claims else set()
            for n, claim in claims.items():
                kept[n] = self._restore(n, claim, from_beginning=n in lacking)
            self.partitions = dict(sorted(kept.items()))
            log.info(
                "claimed",
                extra={"fields": {"job": self.job.name, "partitions": {n: p.epoch for n, p in self.partitions.items()},
                                  "restored": sorted(claims)}},
            )  # fmt: skip
            return {(t, n): p.offsets.get(t) for n, p in self.partitions.items() for t in self.job.inputs}

    async def release(self) -> None:
        """Make a last checkpoint and own nothing; what comes back unclaimed by others keeps its state."""
        try:
            await self.checkpoint()
        except (FencedError, CheckpointStuckError) as error:
            log.warning(
                "released without a last checkpoint", extra={"fields": {"job": self.job.name, "why": str(error)}}
            )
            self.partitions = {}
        self._parked, self.partitions = self.partitions, {}
        if self._publisher is not None:
            await self._mark_published(self._publisher)

    def feed(self, topic: str, number: int, records: Sequence[Record]) -> None:
        """Give records to their operator; those of partitions we do not own are dropped, their owner reads them."""
        partition = self.partitions.get(number)
        if partition is None:
            return
        partition.feed(topic, records)
        EVENTS.labels(self._service, topic).inc(len(records))

    def tick(self, caught_up: CaughtUp, now: Millis) -> None:
        """Let time pass on quiet inputs."""
        monotonic = int(time.monotonic() * 1000)
        for n, partition in self.partitions.items():
            partition.tick(caught_up, idle_after_ms=self._settings.idle_after_ms, monotonic_ms=monotonic, now=now)
            if partition.watermark is not None:
                WATERMARK_LAG_SECONDS.labels(self.job.name, n).set((now - partition.watermark) / 1000)

    def ahead(self, caught_up: CaughtUp) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
        """Inputs to pause because they lead a slower sibling by too much, and those to resume."""
        most = min(self._settings.max_drift_ms, self.job.drift_ms or self._settings.max_drift_ms)
        pause: set[tuple[str, int]] = set()
        resume: set[tuple[str, int]] = set()
        for n, partition in self.partitions.items():
            behind = [
                clock.value for topic, clock in partition.clocks.items()
                if clock.value is not None and not caught_up(topic, n, partition.offsets.get(topic, 0))
            ]  # fmt: skip
            for topic, clock in partition.clocks.items():
                leads = behind and clock.value is not None and clock.value - min(behind) > most
                (pause if leads else resume).add((topic, n))
        return pause, resume

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        waited = time.monotonic() - self._last
        rows = sum(p.rows for p in self.partitions.values())
        if rows or any(p.pending() for p in self.partitions.values()):
            return rows >= self._settings.checkpoint_rows or waited >= self._settings.checkpoint_interval_ms / 1000
        return waited >= _QUIET_SECONDS and any(p.has_changes() for p in self.partitions.values())

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is under way."""
        return self._lock.locked()

    @property
    def overloaded(self) -> bool:
        """Whether so much waits for the running checkpoint that reading should wait too."""
        return sum(p.rows for p in self.partitions.values()) > _CHECKPOINTS_AHEAD * self._settings.checkpoint_rows

    async def checkpoint(self) -> None:
        """Persist everything up to here.

        Raises:
            FencedError: somebody else owns a partition of ours; all state here is void.
            CheckpointStuckError: the stores failed for longer than `stop_after_failing_ms`.
        """
        async with self._lock:
            self._last = time.monotonic()
            parts = [p for p in self.partitions.values() if p.has_changes()]
            if not parts:
                return
            drained = [p.drain(whole=self._wants_whole(p.number)) for p in parts]
            try:
                await self._persist(drained)
            except BaseException:
                self.partitions = {}  # what was drained is lost to memory: only a new claim may go on
                raise

    async def _persist(self, drained: Sequence[Drained]) -> None:
        start = time.monotonic()
        pause = 0.1
        while True:
            try:
                await self._dead_letters.write([r for d in drained for r in d.rejected])
                await self.job.sink.before_commit([d.snapshot for d in drained])
                published = self._publisher.acknowledged() if self._publisher is not None else {}
                committed = await self._store.commit(drained, published)
            except FencedError:
                raise
            except Exception as error:
                # Any failure of a store is tried again for a while, then ends the process; so does a defect of ours,
                # only later. Nothing is skipped either way.
                if time.monotonic() - start > self._settings.stop_after_failing_ms / 1000:
                    raise CheckpointStuckError(f"{self.job.name}: checkpoint keeps failing: {error!r}") from error
                log.warning("checkpoint failed, trying again", exc_info=not isinstance(error, OSError),
                            extra={"fields": {"job": self.job.name, "error": repr(error)}})  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)
            else:
                break
        self._state_bytes.update(committed.state_bytes)
        if self._publisher is not None:
            self._publisher.add(committed.messages)
            for n, next_seq in committed.next_seq.items():
                self._publisher.sync(n, next_seq)
        CHECKPOINT_SECONDS.labels(self.job.name).observe(time.monotonic() - start)

    async def _mark_published(self, publisher: Publisher) -> None:
        """Tell the next owner what need not be sent again; only a saving, so a store that is away is no fault."""
        marks = publisher.acknowledged()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._store.mark_published({n: (p.epoch, marks[n]) for n, p in self._parked.items() if n in marks})

    def _wants_whole(self, number: int) -> bool:
        snapshot, changes = self._state_bytes.get(number, (0, 0))
        return changes > max(FOLD_BYTES, snapshot)

    async def _refuse_undeclared(self, claims: Mapping[int, Claim]) -> None:
        if self._newest is None or self.job.outbox is None or not claims:
            return
        for n, (incarnation, seq) in (await self._newest(list(claims))).items():
            if (incarnation, seq) >= (self._store.incarnations.current, claims[n].next_seq):
                raise RestoredError(
                    f"{self.job.outbox.topic}/{n} holds seq {seq} of incarnation {incarnation}, the database would give out "
                    f"{claims[n].next_seq} next: it was restored from a backup; see docs/operations/backup-and-restore.md"
                )

    def _restore(self, number: int, claim: Claim, *, from_beginning: bool) -> Partition:
        operator = self.job.operator(number)
        operator.restore(claim.snapshot, claim.changes)
        self._state_bytes[number] = claim.state_bytes
        if self._publisher is not None:
            self._publisher.assign(number, claim.position.epoch, claim.published_seq, claim.next_seq)
        position = replace(claim.position, offsets={}) if from_beginning else claim.position
        partition = Partition(number, self.job.inputs, operator, position, self.job.lateness_ms)
        if from_beginning:
            partition.touch()
        return partition
