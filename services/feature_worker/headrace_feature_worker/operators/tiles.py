"""Counts per key, member and slice of event time: the first stage of aggregates over users."""

from collections import defaultdict
from collections.abc import Iterator

from headrace_core.contracts import BehaviorEvent, Millis
from headrace_core.definitions.features import Feature, Top

from headrace_feature_worker.operators.effects import Partial

#: (values of `by`, start of the tile)
TileKey = tuple[tuple[str, ...], int]
#: Count and, for a rate, denominator of a member.
Members = dict[str, tuple[int, int]]


class TileCounts:
    """What one ranked feature counts at a source partition.

    A cancelled event is taken off its own tile: the cancelling event repeats its fields, the time among them.
    """

    def __init__(self, feature: Feature, shape: Top) -> None:
        """Start without state."""
        self.feature, self._shape = feature, shape
        self._tiles: dict[TileKey, Members] = {}
        self._by_start: dict[int, set[TileKey]] = defaultdict(set)
        self._oldest = 0
        self._dirty: dict[TileKey, set[str]] = defaultdict(set)
        self._changed: dict[TileKey, set[str]] = defaultdict(set)
        self._gone: set[TileKey] = set()
        self.expired = 0

    def add(self, event: BehaviorEvent) -> None:
        """Count an event, if it counts."""
        feature, shape = self.feature, self._shape
        above = feature.where(event)
        below = shape.denominator is not None and shape.denominator(event)
        if not above and not below:
            return
        key, member = feature.key(event), shape.member(event)
        if key is None or member is None:
            return
        start = event.event_time - event.event_time % feature.tile_ms
        if start < self._oldest:
            self.expired += 1
            return
        tile_key = (key, start)
        tile = self._tiles.get(tile_key)
        if tile is None:
            tile = self._tiles[tile_key] = {}
            self._by_start[start].add(tile_key)
        count, total = tile.get(member[0], (0, 0))
        step = -1 if event.corrects else 1
        tile[member[0]] = (count + step * above, total + step * below)
        self._dirty[tile_key].add(member[0])

    def advance(self, watermark: Millis) -> None:
        """Forget the tiles that have left the window."""
        oldest = oldest_tile(watermark, self.feature)
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for start in [s for s in self._by_start if s < oldest]:
            for tile_key in self._by_start.pop(start):
                del self._tiles[tile_key]
                self._dirty.pop(tile_key, None)
                self._changed.pop(tile_key, None)
                self._gone.add(tile_key)

    def flush(self) -> Iterator[Partial]:
        """Absolute counts that changed."""
        f, by_rate = self.feature, self._shape.by_rate
        for tile_key, names in self._dirty.items():
            tile = self._tiles[tile_key]
            counts = [tile[m] for m in names]
            yield Partial(
                f.name, f.definition, tile_key[0], tile_key[1], f.tile_ms, list(names), [c for c, _ in counts],
                [d for _, d in counts] if by_rate else [],
            )  # fmt: skip
            self._changed[tile_key] |= names
        self._dirty = defaultdict(set)

    def changes(self) -> list[tuple[tuple[str, ...], int, Members | None]]:
        """Counts that changed since the last call, by tile; None for a tile that was forgotten."""
        parts: list[tuple[tuple[str, ...], int, Members | None]] = [(*k, None) for k in self._gone]
        parts += [(*k, {m: self._tiles[k][m] for m in names}) for k, names in self._changed.items()]
        self._changed, self._gone = defaultdict(set), set()
        return parts

    def snapshot(self) -> list[tuple[tuple[str, ...], int, Members | None]]:
        """Everything."""
        self._changed, self._gone = defaultdict(set), set()
        return [(*k, members) for k, members in self._tiles.items()]

    def restore(self, parts: list[tuple[tuple[str, ...], int, Members | None]]) -> None:
        """Take over a snapshot or changes."""
        for key, start, members in parts:
            tile_key = (key, start)
            if members is None:
                if self._tiles.pop(tile_key, None) is not None:
                    self._by_start[start].discard(tile_key)
            else:
                self._tiles.setdefault(tile_key, {}).update(members)
                self._by_start[start].add(tile_key)


def oldest_tile(time: Millis, feature: Feature) -> Millis:
    """Start of the oldest tile that the window, which ends at `time`, still touches."""
    since = time - feature.window_ms
    return since - since % feature.tile_ms
