"""Which events were seen already, within a window of event time."""

from array import array
from collections.abc import Sequence
from typing import Final

import msgspec
import xxhash

from headrace_core.contracts.time import Millis

_BUCKET_MS: Final = 60_000


class Dedupe:
    """64-bit hashes of event ids in buckets of one minute.

    Two ids share a hash with a probability of n² / 2⁶⁵: 10 million ids in a window lose an event once in 370,000
    windows. Beyond the window nothing is promised.
    """

    __slots__ = ("_buckets", "_fresh", "_known", "_minute", "_window")

    def __init__(self, window_ms: int) -> None:
        """Remember ids for `window_ms`, rounded up to whole minutes; 0 remembers nothing."""
        self._window = -(-window_ms // _BUCKET_MS)
        self._known: set[int] = set()
        self._buckets: dict[int, array[int]] = {}
        self._fresh: dict[int, array[int]] = {}
        self._minute = -1

    def seen(self, event_id: str, now: Millis) -> bool:
        """Whether the id was there before; it is from now on.

        Args:
            event_id: the id.
            now: time of the stream, e.g. its watermark; a step back counts as standing still.
        """
        digest = xxhash.xxh3_64_intdigest(event_id.encode())
        if digest in self._known:
            return True
        if not self._window:
            return False
        minute = now // _BUCKET_MS
        if minute > self._minute:
            self._turn(minute)
        minute = self._minute
        self._known.add(digest)
        self._bucket(self._fresh, minute).append(digest)
        return False

    def changes(self) -> bytes | None:
        """Ids since the last `changes` or `snapshot`, None if there were none."""
        if not self._fresh:
            return None
        data = msgspec.msgpack.encode({m: b.tobytes() for m, b in self._fresh.items()})
        self._seal()
        return data

    def snapshot(self) -> bytes:
        """All ids of the window."""
        self._seal()
        return msgspec.msgpack.encode({m: b.tobytes() for m, b in self._buckets.items()})

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """Take over a snapshot and the changes after it."""
        for data in ([snapshot] if snapshot else []) + list(changes):
            for minute, raw in sorted(msgspec.msgpack.decode(data, type=dict[int, bytes]).items()):
                if minute > self._minute:  # forget as the original did, before an id that came again is added again
                    self._turn(minute)
                hashes = array("Q", raw)
                self._known.update(hashes)
                self._bucket(self._buckets, minute).extend(hashes)

    @staticmethod
    def _bucket(buckets: "dict[int, array[int]]", minute: int) -> "array[int]":
        bucket = buckets.get(minute)
        if bucket is None:
            bucket = buckets[minute] = array("Q")
        return bucket

    def _seal(self) -> None:
        for minute, fresh in self._fresh.items():
            self._bucket(self._buckets, minute).extend(fresh)
        self._fresh = {}

    def _turn(self, minute: int) -> None:
        self._minute = minute
        for buckets in (self._buckets, self._fresh):
            for old in [m for m in buckets if m < minute - self._window]:
                self._known.difference_update(buckets.pop(old))
