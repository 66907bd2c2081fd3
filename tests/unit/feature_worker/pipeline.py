"""Both stages of the features without any store, with crashes between any two steps."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import msgspec
from headrace_core.contracts import BehaviorEvent
from headrace_core.definitions.features import Feature
from headrace_core.runtime.partition import Partition, Position
from headrace_core.runtime.sink import Snapshot
from headrace_feature_worker.operators.behavior import BEHAVIOR, BehaviorOperator
from headrace_feature_worker.operators.effects import Show
from headrace_feature_worker.operators.ranking import PARTIALS, RankingOperator
from headrace_feature_worker.store.partials import encode

LATENESS_MS = 10_000
PARTITIONS = 2


@dataclass
class Stored:
    """A record of an in-memory topic."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0


class Stage:
    """One partition of a job with its checkpoints."""

    def __init__(self, topic: str, number: int, new: Any) -> None:
        self.topic, self.number, self._new = topic, number, new
        self.log: list[Stored] = []
        self.committed: tuple[dict[str, int], dict[str, int], int | None] = ({}, {}, None)
        self.snapshot: bytes | None = None
        self.changes: list[bytes] = []
        self.epoch = 0
        self.claim()

    def claim(self) -> None:
        """Start anew from the last checkpoint, as after a crash."""
        self.epoch += 1
        operator = self._new()
        operator.restore(self.snapshot, self.changes)
        offsets, watermarks, watermark = self.committed
        position = Position(self.epoch, 0, offsets, watermarks, watermark)
        self.partition = Partition(self.number, [self.topic], operator, position, LATENESS_MS)

    def append(self, value: bytes) -> None:
        self.log.append(Stored(len(self.log), value))

    def feed(self, limit: int) -> None:
        start = self.partition.offsets.get(self.topic, 0)
        if records := self.log[start : start + limit]:
            self.partition.feed(self.topic, records)

    def drain(self, *, whole: bool, commit: bool) -> Snapshot:
        """The effects of a checkpoint; without `commit` the crash comes after they were sent."""
        drained = self.partition.drain(whole=whole)
        if commit:
            s = drained.snapshot
            self.committed = (dict(s.offsets), dict(s.watermarks), s.watermark or None)
            if drained.state is not None:
                if drained.whole:
                    self.snapshot, self.changes = drained.state, []
                else:
                    self.changes.append(drained.state)
        return drained.snapshot


class Pipeline:
    """Two partitions of each stage, and a Redis that keeps the highest version."""

    def __init__(self, features: list[Feature]) -> None:
        def behavior() -> BehaviorOperator:
            return BehaviorOperator(features, lateness_ms=LATENESS_MS, dedupe_window_ms=600_000)

        def ranking() -> RankingOperator:
            return RankingOperator(features, lateness_ms=LATENESS_MS)

        self.sources = [Stage(BEHAVIOR, n, behavior) for n in range(PARTITIONS)]
        self.owners = [Stage(PARTIALS, n, ranking) for n in range(PARTITIONS)]
        self.delayed: list[tuple[int, bytes]] = []
        self.redis: dict[tuple[str, str], tuple[int, Show]] = {}

    def send(self, event: BehaviorEvent) -> None:
        self.sources[int(event.user_id[1:]) % PARTITIONS].append(event.SerializeToString())

    def checkpoint(self, stage: Stage, *, whole: bool = False, crash: bool = False, delayed: bool = False) -> None:
        """Drain, write what goes out before the commit, commit or crash.

        With `delayed`, a part of the partials only comes with `arrive`; for a crash only.
        """
        if not stage.partition.has_changes():
            return
        snapshot = stage.drain(whole=whole, commit=not crash)
        for effect in snapshot.effects:
            if isinstance(effect, Show):
                known = self.redis.get((effect.key, effect.field))
                if known is None or known[0] <= snapshot.version:
                    self.redis[effect.key, effect.field] = (snapshot.version, effect)
        if stage in self.sources:
            messages = [(n, value) for n, (_, value) in encode(snapshot, range(PARTITIONS))]
            sent = len(messages) // 2 if delayed else len(messages)
            for partition, value in messages[:sent]:
                self.owners[partition].append(value)
            self.delayed += messages[sent:]
        if crash:
            stage.claim()

    def arrive(self) -> None:
        """What a dead worker had handed to the network comes after all."""
        for partition, value in self.delayed:
            self.owners[partition].append(value)
        self.delayed = []

    def settle(self, end: int) -> None:
        """Read everything, and let time pass until every list has been emitted."""
        for stage in self.sources:
            while stage.partition.offsets.get(BEHAVIOR, 0) < len(stage.log):
                stage.feed(500)
        for _ in range(2):  # a list that was emitted in this second is emitted in the next
            for stage in self.sources:
                for clock in stage.partition.clocks.values():
                    clock.observe(end)
                end += 1_000
                stage.partition.tick(lambda *_: True, idle_after_ms=0, monotonic_ms=end, now=end)
                self.checkpoint(stage)
            for stage in self.owners:
                stage.feed(1_000_000)
                self.checkpoint(stage)

    @property
    def as_of(self) -> int:
        """End of the windows, the same for all owners once everything has settled."""
        (found,) = {owner.partition.operator.as_of for owner in self.owners}  # type: ignore[attr-defined]  # the second stage
        return int(found)

    def lists(self) -> dict[str, dict[str, Any]]:
        """Payload of each ranked list by key."""
        return {k: msgspec.msgpack.decode(s.payload) for (k, _), (_, s) in self.redis.items() if k.startswith("top:")}

    def sequences(self) -> dict[str, list[dict[str, Any]]]:
        """Events of each user."""
        return {k[2:]: msgspec.msgpack.decode(s.payload) for (k, _), (_, s) in self.redis.items() if k[:2] == "u:"}


def by_user(events: list[BehaviorEvent]) -> dict[str, list[BehaviorEvent]]:
    """Events of each user."""
    found = defaultdict(list)
    for e in events:
        found[e.user_id].append(e)
    return found
