"""What was read from Redis a moment ago."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class MomentCache(Generic[V]):
    """Values by key, each kept for a moment; bounded.

    Whoever fills it takes `generation` before reading the store and gives it back with `put`: a value read before an
    invalidation, but arriving after it, is not kept.

    Args:
        keep_seconds: how long a value may be stale.
        max_entries: beyond it everything is dropped, which costs one round of reading, as a moment does.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_entries", "_keep", "_max", "generation")

    def __init__(self, keep_seconds: float, max_entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep, self._max, self._clock = keep_seconds, max_entries, clock
        self._entries: dict[str, tuple[float, V]] = {}
        self.generation = 0

    def pick(self, keys: set[str]) -> tuple[dict[str, V], list[str]]:
        """(values that are known, keys that are not)."""
        now, entries = self._clock(), self._entries
        known: dict[str, V] = {}
        unknown: list[str] = []
        for key in keys:
            entry = entries.get(key)
            if entry is not None and entry[0] > now:
                known[key] = entry[1]
            else:
                unknown.append(key)
        return known, unknown

    def put(self, values: dict[str, V], generation: int) -> None:
        """Keep what was just read."""
        if generation != self.generation or self._keep <= 0:
            return
        if len(self._entries) + len(values) > self._max:
            self._entries.clear()
        until = self._clock() + self._keep
        for key, value in values.items():
            self._entries[key] = (until, value)

    def invalidate(self, keys: list[str]) -> None:
        """Forget what has just been overwritten."""
        self.generation += 1
        for key in keys:
            self._entries.pop(key, None)
