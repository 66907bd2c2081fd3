"""Counts of definitions that this worker does not know: a sibling learned of them earlier, or it has not yet forgotten them."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec
from headrace_core.contracts import FeaturePartial, Millis
from headrace_core.definitions.features import longest_window

#: Counts that one partition keeps so; beyond it those of the oldest slices go, a tenth at once.
MOST_ASIDE: Final = 100_000
#: How often, in the events' time, what has left every window is looked for.
_SWEEP_MS: Final = 10_000


class Key(msgspec.Struct, array_like=True):
    """One ranked list.

    Attributes:
        tiles: by start, (count, denominator) by source and member.
        ranked_at: boundary at which it was emitted last.
    """

    tiles: dict[int, dict[tuple[int, str], tuple[int, int]]] = {}
    ranked_at: int = 0


#: Lists of one definition.
Keys = list[tuple[tuple[str, ...], Key]]


class Aside:
    """Keeps them, the newest of each source, key, slice and member, until they are asked for or no window can hold them."""

    def __init__(self, most: int = MOST_ASIDE) -> None:
        """Keep so many at most."""
        self._most, self._count, self._swept = most, 0, 0
        self._keys: dict[str, dict[tuple[str, ...], Key]] = defaultdict(dict)
        self._tile_ms: dict[str, int] = {}
        #: By feature, what went because there was too much.
        self.dropped: Counter[str] = Counter()

    def keep(self, partial: FeaturePartial, time: Millis) -> None:
        """Take counts, unless by `time` no window holds them any more."""
        if partial.tile_start + partial.tile_ms <= time - longest_window(partial.tile_ms):
            return
        name = f"{partial.feature}@{partial.definition}"
        self._tile_ms[name] = partial.tile_ms
        tile = self._keys[name].setdefault(tuple(partial.key), Key({}, 0)).tiles.setdefault(partial.tile_start, {})
        before = len(tile)
        denominators = partial.denominators or [0] * len(partial.members)
        for member, count, below in zip(partial.members, partial.counts, denominators, strict=True):
            tile[partial.source, member] = (count, below)
        self._count += len(tile) - before
        if self._count > self._most:
            while self._count > self._most * 9 // 10:
                self._drop_oldest()

    def put(self, name: str, tile_ms: int, keys: Keys) -> None:
        """Take what a snapshot holds of a definition, named "<feature>@<definition>"."""
        if found := {values: key for values, key in keys if key.tiles}:
            self._tile_ms[name], self._keys[name] = tile_ms, found
            self._count += sum(len(tile) for key in found.values() for tile in key.tiles.values())

    def advance(self, time: Millis) -> None:
        """Forget the slices that no window holds any more."""
        if time < self._swept + _SWEEP_MS:
            return
        self._swept = time
        for name in list(self._keys):
            tile_ms = self._tile_ms[name]
            self._forget(
                name, [start for start in self._starts(name) if start + tile_ms <= time - longest_window(tile_ms)]
            )

    def everything(self) -> Iterator[tuple[str, int, Keys]]:
        """Name, length of the slices, and lists of each definition."""
        for name, keys in self._keys.items():
            yield name, self._tile_ms[name], list(keys.items())

    def _starts(self, name: str) -> set[Millis]:
        return {start for key in self._keys[name].values() for start in key.tiles}

    def _drop_oldest(self) -> None:
        oldest = {name: min(self._starts(name)) for name in self._keys}
        name = min(oldest, key=lambda n: (oldest[n], n))
        self.dropped[name.partition("@")[0]] += self._forget(name, [oldest[name]])

    def _forget(self, name: str, starts: list[Millis]) -> int:
        gone = 0
        keys = self._keys[name]
        for start in starts:
            gone += sum(len(key.tiles.pop(start, ())) for key in keys.values())
        self._count -= gone
        self._keys[name] = {k: key for k, key in keys.items() if key.tiles}
        if not self._keys[name]:
            del self._keys[name], self._tile_ms[name]
        return gone
