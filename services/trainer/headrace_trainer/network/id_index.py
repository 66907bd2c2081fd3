"""A hash table from 64-bit ids to rows in numpy: a whole batch is looked up at once, a million ids take 32 MB."""

from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Fibonacci hashing: crosses and hashes are mixed already, ids that people count up are not.
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SMALLEST_BITS: Final = 10


class IdIndex:
    """Open addressing with linear probing, at most half full. Nothing is ever removed: `refill` it with what is left."""

    def __init__(self) -> None:
        """Start empty."""
        self._count = 0
        self._clear(_SMALLEST_BITS)

    def __len__(self) -> int:
        """Ids that are in it."""
        return self._count

    def rows(self, ids: Ints) -> Ints:
        """The row of each id, -1 where it has none."""
        at = self._home(ids)
        found = self._rows[at]
        wrong = np.flatnonzero((found >= 0) & (self._ids[at] != ids))
        while len(wrong):
            at[wrong] = (at[wrong] + 1) & self._mask
            found[wrong] = self._rows[at[wrong]]
            wrong = wrong[(found[wrong] >= 0) & (self._ids[at[wrong]] != ids[wrong])]
        return found

    def add(self, ids: Ints, rows: Ints) -> None:
        """Put ids in that are not there yet, each once."""
        if 2 * (self._count + len(ids)) > self._mask:
            taken = self._rows >= 0
            ids, rows = np.concatenate([self._ids[taken], ids]), np.concatenate([self._rows[taken], rows])
            self.refill(ids, rows)
        else:
            self._count += len(ids)
            self._put(ids, rows)

    def refill(self, ids: Ints, rows: Ints) -> None:
        """Hold these instead of what was held, each once."""
        self._clear(max(_SMALLEST_BITS, (4 * len(ids)).bit_length()))
        self._count = len(ids)
        self._put(ids, rows)

    def _clear(self, bits: int) -> None:
        self._bits, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        self._ids: Ints = np.zeros(1 << bits, np.int64)
        self._rows: Ints = np.full(1 << bits, -1, np.int64)

    def _home(self, ids: Ints) -> Ints:
        return ((ids.view(np.uint64) * _GOLDEN) >> self._bits).view(np.int64)

    def _put(self, ids: Ints, rows: Ints) -> None:
        at = self._home(ids)
        while len(ids):
            # Of those that want the same empty place, the first gets it; the others look at the next one.
            _, first = np.unique(at, return_index=True)
            first = first[self._rows[at[first]] < 0]
            self._ids[at[first]], self._rows[at[first]] = ids[first], rows[first]
            left = np.ones(len(ids), np.bool_)
            left[first] = False
            ids, rows, at = ids[left], rows[left], (at[left] + 1) & self._mask
