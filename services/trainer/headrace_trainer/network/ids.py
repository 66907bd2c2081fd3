"""Which row an id has: collisionless tables that admit what comes again and forget what is not used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace_trainer.network.id_index import IdIndex

Ints: TypeAlias = npt.NDArray[np.int64]

_FIRST_SIZE: Final = 1024
#: Share of the rows that is given back at once when a table is full.
_EVICTED: Final = 16


@dataclass(frozen=True, slots=True)
class Policy:
    """When an id gets a row and loses it.

    Attributes:
        admission: it gets one when it was seen so often.
        expiry_ms: it loses it when it was not seen for so long.
        capacity: most rows of a table; when they are used up, those go that were not seen for longest.
    """

    admission: int
    expiry_ms: int
    capacity: int


class Placed(NamedTuple):
    """Rows of a batch.

    Attributes:
        rows: `[u]`, each once.
        at: `[n]`, into `rows`, for each id of the batch.
        fresh: rows that were given to other ids than before; they must be set anew.
        fresh_ids: the ids that have them now.
    """

    rows: Ints
    at: Ints
    fresh: Ints
    fresh_ids: Ints


class IdTable:
    """Rows by id. The first `reserved` rows belong to no id: a table's shared row, a column's missing value, padding.

    The same calls give the same rows: nothing depends on time, randomness or the order inside a hash table.
    """

    def __init__(self, reserved: int, policy: Policy) -> None:
        """Start empty."""
        self.reserved, self._policy = reserved, policy
        self.keys: Ints = np.zeros(reserved + min(_FIRST_SIZE, policy.capacity), np.int64)
        self._used: Ints = np.zeros(len(self.keys), np.int64)
        self._index = IdIndex()
        self._taken = np.zeros(len(self.keys), np.bool_)
        self._free: list[int] = list(range(len(self.keys) - 1, reserved - 1, -1))
        self._seen: dict[int, int] = {}
        self._seen_before: dict[int, int] = {}
        self._rotated = 0

    @property
    def size(self) -> int:
        """Rows that there are, used or not."""
        return len(self.keys)

    def __len__(self) -> int:
        """Ids with a row of their own."""
        return len(self._index)

    def live(self) -> tuple[Ints, Ints]:
        """Ids with a row of their own, ascending, and their rows."""
        rows = np.flatnonzero(self._taken)
        keys = self.keys[rows]
        order = np.argsort(keys)
        return keys[order], rows[order]

    def place(self, ids: Ints, shared: Ints, *, learn: bool, now: int) -> Placed:
        """Rows for ids.

        Args:
            ids: `[n]`; one below `reserved` that is not negative is a reserved row itself.
            shared: `[n]`, the row for an id without one of its own.
            learn: count what is seen, and admit.
            now: event time, ms since the epoch.
        """
        unique, index = np.unique(ids, return_inverse=True)
        rows = self._index.rows(unique)
        own = (unique >= 0) & (unique < self.reserved)
        rows[own] = unique[own]
        fresh: list[int] = []
        missed = np.flatnonzero(rows < 0)
        if learn:  # first, so that none of these makes room for another
            self._used[rows[rows >= 0]] = now
        if len(missed):
            first = np.empty(len(unique), np.int64)
            first[index[::-1]] = np.arange(len(ids) - 1, -1, -1)
            if learn:
                admitted = self._admit(unique[missed], np.bincount(index, minlength=len(unique))[missed], now)
                rows[missed] = admitted
                fresh = admitted[admitted >= 0].tolist()
                missed = missed[admitted < 0]
            rows[missed] = shared[first[missed]]
        if len(missed):
            rows, again = np.unique(rows, return_inverse=True)
            index = again[index]
        fresh_rows = np.array(fresh, np.int64)
        return Placed(rows, index, fresh_rows, self.keys[fresh_rows])

    def expire(self, now: int) -> None:
        """Give back the rows that were not used for too long, and forget what was seen too rarely."""
        live = np.flatnonzero(self._taken)
        self._give_back(live[self._used[live] < now - self._policy.expiry_ms])
        if now - self._rotated > self._policy.expiry_ms // 2 or len(self._seen) > self._policy.capacity:
            self._seen_before, self._seen, self._rotated = self._seen, {}, now

    def _admit(self, ids: Ints, counts: Ints, now: int) -> Ints:
        admission, seen, before = self._policy.admission, self._seen, self._seen_before
        admitted: list[int] = []
        for n, (i, count) in enumerate(zip(ids.tolist(), counts.tolist(), strict=True)):
            total = seen.pop(i, 0) + before.pop(i, 0) + count
            if total < admission:
                seen[i] = total
            else:
                admitted.append(n)
        self._make_room(len(admitted), now)
        rows = np.full(len(ids), -1, np.int64)
        for n in admitted[len(self._free) :]:  # no room: they are admitted when they come again
            seen[int(ids[n])] = admission - 1
        admitted = admitted[: len(self._free)]
        if admitted:
            places = np.array([self._free.pop() for _ in admitted], np.int64)
            self._index.add(ids[admitted], places)
            self.keys[places], self._used[places], self._taken[places] = ids[admitted], now, True
            rows[admitted] = places
        return rows

    def _make_room(self, count: int, now: int) -> None:
        while len(self._free) < count and self._grow():
            pass
        if len(self._free) < count:
            self._evict(count - len(self._free), now)

    def _grow(self) -> bool:
        size = min(2 * self.size, self._policy.capacity + self.reserved)
        if size <= self.size:
            return False
        self._free = [*range(size - 1, self.size - 1, -1), *self._free]
        more = np.zeros(size - self.size, np.int64)
        self.keys, self._used = np.concatenate([self.keys, more]), np.concatenate([self._used, more])
        self._taken = np.concatenate([self._taken, more > 0])
        return True

    def _evict(self, count: int, now: int) -> None:
        """Rows that this very batch uses stay."""
        live = np.flatnonzero(self._taken & (self._used < now))
        oldest = live[np.argsort(self._used[live], kind="stable")]
        self._give_back(oldest[: max(count, len(self) // _EVICTED)])

    def _give_back(self, rows: Ints) -> None:
        if len(rows):
            self._taken[rows], self.keys[rows] = False, 0
            self._free += np.sort(rows)[::-1].tolist()
            live = np.flatnonzero(self._taken)
            self._index.refill(self.keys[live], live)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, to be restored bit for bit."""
        return {
            "keys": self.keys,
            "used": self._used,
            "taken": np.flatnonzero(self._taken),
            "free": np.array(self._free, np.int64),
            "seen": _pairs(self._seen),
            "seen_before": _pairs(self._seen_before),
            "rotated": np.array([self._rotated], np.int64),
        }

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        self.keys, self._used = arrays["keys"].copy(), arrays["used"].copy()
        taken = arrays["taken"]
        self._taken = np.zeros(len(self.keys), np.bool_)
        self._taken[taken] = True
        self._index.refill(self.keys[taken], taken)
        self._free = arrays["free"].tolist()
        self._seen = dict(arrays["seen"].tolist())
        self._seen_before = dict(arrays["seen_before"].tolist())
        self._rotated = int(arrays["rotated"][0])


def _pairs(counts: dict[int, int]) -> Ints:
    return np.array(sorted(counts.items()), np.int64).reshape(-1, 2)


def initial_rows(ids: Ints, width: int, seed: int, scale: float) -> npt.NDArray[np.float32]:
    """First values of rows, uniform in ±scale: splitmix64 of id, place and seed, so that they depend on nothing else."""
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64)[:, None] + np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = x ^ np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    unit = (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    rows: npt.NDArray[np.float32] = (2 * unit - 1) * np.float32(scale)
    return rows


def columns_to_ids(columns: Sequence[Ints], missing: Sequence[int]) -> Ints:
    """Columns side by side, `[n, columns]`, with 0 replaced by the column's reserved row."""
    ids = np.stack(columns, axis=1)
    rows = np.array(missing, np.int64)
    return np.where(ids == 0, rows, ids)
