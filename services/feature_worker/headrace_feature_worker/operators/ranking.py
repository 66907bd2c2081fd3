"""Second stage: the owner of an aggregate key sums what the sources counted and ranks its members."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from headrace_core.contracts import FeaturePartial, Millis
from headrace_core.definitions.features import Feature, Top
from headrace_core.runtime.operator import Batch, Output, Record
from headrace_core.stores.redis_views import top_key

from headrace_feature_worker.operators.aside import Aside, Key, Keys
from headrace_feature_worker.operators.effects import Dropped, Expired, Show
from headrace_feature_worker.operators.tiles import oldest_tile

PARTIALS: Final = "feature-partials.v1"

_GRACE_MS: Final = 60_000
_encode = msgspec.msgpack.Encoder().encode


class _Source(msgspec.Struct, array_like=True):
    """What is known of one partition of behavior-events.v1.

    Attributes:
        version: of its newest mark or partial.
        watermark: told by its newest mark, ms since the epoch.
        offset: first one that is not counted, told by its newest mark.
        waiting: partials of `version` whose mark has not come yet, as they came.
    """

    version: int = 0
    watermark: int = 0
    offset: int = 0
    waiting: list[bytes] = []


class _State(msgspec.Struct, array_like=True):
    """A snapshot; changes are the records themselves.

    Attributes:
        as_of: end of the windows, ms since the epoch.
        sources: by partition of behavior-events.v1.
        keys: lists by "<feature>@<definition>", those of definitions that are not known included.
        tile_ms: length of their slices, by the same names.
    """

    as_of: int
    sources: dict[int, _Source]
    keys: dict[str, Keys]
    tile_ms: dict[str, int] = {}


_decode_state = msgspec.msgpack.Decoder(_State).decode
_decode_records = msgspec.msgpack.Decoder(list[bytes]).decode


class _Ranking:
    """All ranked lists of one feature whose keys are in this partition."""

    def __init__(self, feature: Feature, shape: Top) -> None:
        self.feature, self._shape = feature, shape
        self.keys: dict[tuple[str, ...], Key] = {}
        self._totals: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}
        self._by_start: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        self._oldest = 0
        self._dirty: set[tuple[str, ...]] = set()
        self.expired = 0

    def apply(self, partial: FeaturePartial) -> None:
        """Replace what a source said of a tile's members."""
        start = partial.tile_start
        if start < self._oldest:
            self.expired += 1
            return
        key = tuple(partial.key)
        state = self.keys.get(key)
        if state is None:
            state = self.keys[key] = Key({}, 0)
            self._totals[key] = {}
        tile = state.tiles.get(start)
        if tile is None:
            tile = state.tiles[start] = {}
            self._by_start[start].add(key)
        source = partial.source
        denominators = partial.denominators or [0] * len(partial.members)
        totals = self._totals[key]
        for member, count, below in zip(partial.members, partial.counts, denominators, strict=True):
            old = tile.get((source, member), (0, 0))
            tile[source, member] = (count, below)
            sums = totals.get(member, (0, 0))
            totals[member] = (sums[0] + count - old[0], sums[1] + below - old[1])
        self._dirty.add(key)

    def advance(self, time: Millis) -> None:
        """Slide: what the window has left counts no more."""
        oldest = oldest_tile(time, self.feature)
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for start in [s for s in self._by_start if s < oldest]:
            for key in self._by_start.pop(start):
                totals = self._totals[key]
                for (_, member), (count, below) in self.keys[key].tiles.pop(start).items():
                    sums = totals.get(member, (0, 0))  # gone before if all of it was taken back
                    totals[member] = (sums[0] - count, sums[1] - below)
                self._totals[key] = {m: s for m, s in totals.items() if s != (0, 0)}
                self._dirty.add(key)

    def flush(self, as_of: Millis, newest: Millis, offsets: dict[int, int], out: Output) -> None:
        """Emit the lists that changed, each at most once per boundary of `every`.

        Args:
            as_of: end of the window, ms since the epoch.
            newest: time of the foremost source: it goes on when another source stands still.
            offsets: by source, the first one that is not counted.
            out: where to.
        """
        every = self.feature.every_ms
        boundary = newest - newest % every
        for key in [k for k in self._dirty if self.keys[k].ranked_at < boundary]:
            self._dirty.discard(key)
            state = self.keys[key]
            state.ranked_at = boundary
            payload = _encode({"items": self._ranked(self._totals[key]), "as_of": as_of, "offsets": offsets})
            ttl = self.feature.window_ms + _GRACE_MS
            name = top_key(self.feature.name, key)
            out.emit(Show(name, self.feature.definition, as_of, payload, ttl, newest=newest))
            if not state.tiles:
                del self.keys[key], self._totals[key]

    def restore(self, keys: Keys) -> None:
        """Take over a snapshot."""
        for key, state in keys:
            self.keys[key] = state
            totals = self._totals[key] = {}
            for start, tile in state.tiles.items():
                self._by_start[start].add(key)
                for (_, member), (count, below) in tile.items():
                    sums = totals.get(member, (0, 0))
                    totals[member] = (sums[0] + count, sums[1] + below)
            self._dirty.add(key)

    def _ranked(self, totals: dict[str, tuple[int, int]]) -> list[tuple[str, float, int, int]]:
        """The best k: by count, or by the mean of the Beta posterior of the rate; equal ones by name."""
        shape = self._shape
        rows = []
        for member, (count, below) in totals.items():
            if shape.by_rate:
                if below > 0:
                    clicks = min(max(count, 0), below)  # at the window's edge a click may be in without its impression
                    score = (clicks + shape.alpha) / (below + shape.alpha + shape.beta)
                    rows.append((member, score, clicks, below))
            elif count > 0:
                rows.append((member, float(count), count, 0))
        return heapq.nsmallest(shape.k, rows, key=lambda r: (-r[1], r[0]))


class RankingOperator:
    """One partition of the job `feature-ranking`.

    The partials of a source's checkpoint count from its mark on, as a whole, so a list is always made of all events of
    each source up to one offset. What a dead owner of a source had sent is replaced by its successor, whose versions are
    higher: the successor counts the same events again.

    Counts of a definition that is not known wait aside: workers learn of a new one at different moments, and the one that
    does later goes on with what its siblings sent meanwhile.
    """

    def __init__(self, features: Sequence[Feature], *, lateness_ms: int) -> None:
        """Make an operator without state.

        Args:
            features: definitions in force.
            lateness_ms: how far the sources' watermarks stay behind their newest events.
        """
        self._lateness = lateness_ms
        self._rankings = {
            (f.name, f.definition): _Ranking(f, f.shape) for f in features if isinstance(f.shape, Top)
        }  # fmt: skip
        self._aside = Aside()
        self._sources: dict[int, _Source] = {}
        self._log: list[bytes] = []
        self._as_of = self._newest = 0

    @property
    def as_of(self) -> Millis:
        """End of the windows, ms since the epoch; 0 before the first mark."""
        return self._as_of

    def process(self, batch: Batch, out: Output) -> None:
        """Take the next partials and marks."""
        for record in batch.records:
            fault = self._take(record)
            if fault is not None:
                out.reject(batch.topic, record, fault)
        if self._newest:
            out.observe(self._newest)

    def advance(self, watermark: Millis, out: Output) -> None:
        """Time comes from the sources' marks alone."""

    def flush(self, out: Output) -> None:
        """Emit the lists that changed."""
        offsets = {n: s.offset for n, s in self._sources.items()}
        for ranking in self._rankings.values():
            ranking.flush(self._as_of, self._newest, offsets, out)
            if ranking.expired:
                out.emit(Expired(ranking.feature.name, ranking.expired))
                ranking.expired = 0
        for feature, count in self._aside.dropped.items():
            out.emit(Dropped(feature, count))
        self._aside.dropped.clear()

    def changes(self) -> bytes | None:
        """The records taken since the last call: taking them again makes the same state."""
        if not self._log:
            return None
        log, self._log = self._log, []
        return msgspec.msgpack.encode(log)

    def snapshot(self) -> bytes:
        """Everything."""
        self._log = []
        parts = [(f"{r.feature.name}@{r.feature.definition}", r.feature.tile_ms, list(r.keys.items()))
                 for r in self._rankings.values()]  # fmt: skip
        parts += self._aside.everything()
        keys, tile_ms = {name: keys for name, _, keys in parts}, {name: tile for name, tile, _ in parts}
        return msgspec.msgpack.encode(_State(self._as_of, self._sources, keys, tile_ms))

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """Take over a snapshot and the records after it."""
        if snapshot:
            state = _decode_state(snapshot)
            self._as_of, self._sources = state.as_of, state.sources
            for (name, definition), ranking in self._rankings.items():
                ranking.restore(state.keys.pop(f"{name}@{definition}", []))
                ranking.advance(self._as_of)
            for unknown, keys in state.keys.items():
                if unknown in state.tile_ms:
                    self._aside.put(unknown, state.tile_ms[unknown], keys)
            self._aside.advance(self._as_of)
        for change in changes:
            for raw in _decode_records(change):
                self._apply(raw, FeaturePartial.FromString(raw))

    def _take(self, record: Record) -> str | None:
        raw = record.value or b""
        try:
            partial = FeaturePartial.FromString(raw)
        except DecodeError as error:
            return f"not a FeaturePartial: {error}"
        if partial.version <= 0 or partial.tile_start < 0:
            return "incomplete: a partial carries a version"
        if len(partial.counts) != len(partial.members) or len(partial.denominators) not in {0, len(partial.members)}:
            return "incomplete: a count for each member is required"
        self._log.append(raw)
        self._apply(raw, partial)
        return None

    def _apply(self, raw: bytes, partial: FeaturePartial) -> None:
        source = self._sources.setdefault(partial.source, _Source())
        if partial.version < source.version:
            return  # of a dead owner
        if partial.version > source.version:
            source.version, source.waiting = partial.version, []  # what waits was left unfinished and is counted anew
        if partial.members:
            source.waiting.append(raw)
            return
        for waiting in source.waiting:
            counted = FeaturePartial.FromString(waiting)
            ranking = self._rankings.get((counted.feature, counted.definition))
            if ranking is not None:
                ranking.apply(counted)
            else:
                self._aside.keep(counted, self._as_of)
        source.waiting = []
        source.watermark, source.offset = max(source.watermark, partial.watermark), partial.source_offset
        self._slide()

    def _slide(self) -> None:
        times = [s.watermark for s in self._sources.values() if s.watermark]
        if not times:
            return
        self._newest = max(times) + self._lateness
        as_of = min(times) + self._lateness
        if as_of > self._as_of:
            self._as_of = as_of
            for ranking in self._rankings.values():
                ranking.advance(self._as_of)
            self._aside.advance(self._as_of)
