"""First stage: behaviour events of a partition become user sequences and counts of tiles."""

from collections.abc import Sequence
from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from headrace_core.contracts import Action, BehaviorEvent, Millis
from headrace_core.definitions.features import Feature, Top
from headrace_core.runtime.dedupe import Dedupe
from headrace_core.runtime.operator import Batch, Output, Record

from headrace_feature_worker.operators.effects import Expired
from headrace_feature_worker.operators.sequences import Entry, UserSequences
from headrace_feature_worker.operators.tiles import Members, TileCounts

BEHAVIOR: Final = "behavior-events.v1"

_SEARCH: Final = int(Action.ACTION_SEARCH)
#: Windows slide in steps of this length; the finest tile is one.
_STEP_MS: Final = 1_000


class _State(msgspec.Struct, array_like=True):
    """All of the state in a snapshot, what changed otherwise; parts are named "<feature>@<definition>".

    Attributes:
        high: newest event time.
        watermark: of the operator.
        dedupe: event ids.
        sequences: of each user all entries; empty for one to forget.
        counts: of tiles, the members that changed; None for a tile to forget.
        added: of each user the entries that came.
    """

    high: int
    watermark: int
    dedupe: bytes | None
    sequences: dict[str, dict[str, list[Entry]]]
    counts: dict[str, list[tuple[tuple[str, ...], int, Members | None]]]
    added: dict[str, dict[str, list[Entry]]] = {}


_decode_state = msgspec.msgpack.Decoder(_State).decode


class BehaviorOperator:
    """One partition of the job `features`.

    Time moves record by record, so what a late event meets does not depend on how records are batched.
    """

    def __init__(self, features: Sequence[Feature], *, lateness_ms: int, dedupe_window_ms: int) -> None:
        """Make an operator without state.

        Args:
            features: definitions in force.
            lateness_ms: how much later than the newest an event may come.
            dedupe_window_ms: how long an event_id is remembered.
        """
        self._lateness = lateness_ms
        self._sequences: dict[str, UserSequences] = {}
        self._counts: dict[str, TileCounts] = {}
        for f in features:
            name = f"{f.name}@{f.definition}"
            if isinstance(f.shape, Top):
                self._counts[name] = TileCounts(f, f.shape)
            else:
                self._sequences[name] = UserSequences(f, f.shape)
        self._parts: tuple[UserSequences | TileCounts, ...] = (*self._sequences.values(), *self._counts.values())
        self._dedupe = Dedupe(dedupe_window_ms)
        self._high = self._watermark = 0
        self._event = BehaviorEvent()

    def process(self, batch: Batch, out: Output) -> None:
        """Take the next events."""
        for record in batch.records:
            fault = self._take(record)
            if fault is not None:
                out.reject(batch.topic, record, fault)
        if self._high:
            out.observe(self._high)

    def advance(self, watermark: Millis, out: Output) -> None:  # noqa: ARG002  # nothing is emitted by time alone here
        """Forget what has left the windows."""
        if watermark > self._watermark:
            self._move(watermark)

    def flush(self, out: Output) -> None:
        """Emit the values that changed."""
        for sequences in self._sequences.values():
            for show in sequences.flush(self._high):
                out.emit(show)
        for tiles in self._counts.values():
            for partial in tiles.flush():
                out.emit(partial)
            if tiles.expired:
                out.emit(Expired(tiles.feature.name, tiles.expired))
                tiles.expired = 0

    def changes(self) -> bytes | None:
        """What changed since the last call."""
        return msgspec.msgpack.encode(
            _State(self._high, self._watermark, self._dedupe.changes(), {},
                   {n: d for n, t in self._counts.items() if (d := t.changes())},
                   {n: c for n, s in self._sequences.items() if (c := s.changes())})
        )  # fmt: skip

    def snapshot(self) -> bytes:
        """Everything."""
        return msgspec.msgpack.encode(
            _State(self._high, self._watermark, self._dedupe.snapshot(),
                   {n: s.snapshot() for n, s in self._sequences.items()},
                   {n: t.snapshot() for n, t in self._counts.items()})
        )  # fmt: skip

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """Take over a snapshot and the changes after it; what belongs to definitions no longer in force is dropped."""
        parts = [_decode_state(data) for data in ([snapshot] if snapshot else []) + list(changes)]
        for part in parts:
            self._high, self._watermark = part.high, part.watermark
            for absolute, users in ((True, part.sequences), (False, part.added)):
                for name, entries in users.items():
                    if name in self._sequences:
                        self._sequences[name].restore(entries, whole=absolute)
            for name, counts in part.counts.items():
                if name in self._counts:
                    self._counts[name].restore(counts)
        ids = [p.dedupe for p in parts if p.dedupe is not None]
        whole = ids.pop(0) if snapshot and ids else None
        self._dedupe.restore(whole, ids)
        for part_of in self._parts:
            part_of.advance(self._watermark)

    def _take(self, record: Record) -> str | None:
        """Process one event; why it can't be used, if so."""
        event = self._event
        try:
            event.ParseFromString(record.value or b"")
        except DecodeError as error:
            return f"not a BehaviorEvent: {error}"
        time, ingested = event.event_time, event.ingest_time
        if not event.event_id or not event.user_id or not event.action or time <= 0:
            return "incomplete: event_id, user_id, event_time and action are required"
        if not event.item_id and event.action != _SEARCH:
            return "incomplete: item_id is required"
        if ingested and ingested < time:
            time = ingested
        if time > self._high:
            self._high = time
            if time - self._lateness >= self._watermark + _STEP_MS:
                self._move(time - self._lateness)
        if self._dedupe.seen(event.event_id, self._high):
            return None
        if event.corrects and self._dedupe.seen("corrects:" + event.corrects, self._high):
            return None  # taken back once already, by another event
        for part in self._parts:
            part.add(event)
        return None

    def _move(self, watermark: Millis) -> None:
        self._watermark = watermark
        for part in self._parts:
            part.advance(watermark)
