"""Positives wait for the end of their window, as negatives do.

A click is published at once, the lack of one when the attribution window is over. Learned as they come, the newest stretch of the
stream would be clicks alone: a model that forgets quickly would be too sure of them. So a positive is held until a negative of its
source tells that the windows of its time are over, and then learned with the label that it has by then.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from headrace_core.contracts import Millis, SampleChange

_Key = tuple[str, str]


class Waiting:
    """First versions that are held.

    Attributes:
        settled: per source, event time of its newest negative, ms since the epoch.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self.settled: dict[int, Millis] = {}
        self._held: dict[int, dict[_Key, SampleChange]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def hold(self, source: int, change: SampleChange) -> None:
        """Hold a first version."""
        self._held.setdefault(source, {})[_key(change)] = change

    def correct(self, source: int, change: SampleChange) -> bool:
        """Take the label of a correction; whether its sample is held."""
        held = self._held.get(source, {}).get(_key(change))
        if held is None:
            return False
        held.sample.label = change.sample.label
        return True

    def settle(self, source: int, event_time: Millis) -> None:
        """A negative of this time was published."""
        self.settled[source] = max(self.settled.get(source, 0), event_time)

    def release(self) -> list[SampleChange]:
        """Those whose windows are over, oldest first; they are held no more."""
        free: list[SampleChange] = []
        for source, held in self._held.items():
            until = self.settled.get(source, -1)
            keys = [k for k, change in held.items() if change.sample.event_time <= until]
            free += [held.pop(k) for k in keys]
        return sorted(free, key=lambda c: (c.sample.event_time, *_key(c)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, to be restored."""
        rows = [(source, change.SerializeToString()) for source, held in self._held.items() for change in held.values()]
        return {
            "sources": np.array([source for source, _ in rows], np.int64),
            "lengths": np.array([len(data) for _, data in rows], np.int64),
            "bytes": np.frombuffer(b"".join(data for _, data in rows), np.uint8),
            "settled": np.array(sorted(self.settled.items()), np.int64).reshape(-1, 2),
        }

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        data, at = arrays["bytes"].tobytes(), 0
        for source, length in zip(arrays["sources"].tolist(), arrays["lengths"].tolist(), strict=True):
            self.hold(source, SampleChange.FromString(data[at : at + length]))
            at += length
        self.settled = {int(source): int(time) for source, time in arrays["settled"]}


def _key(change: SampleChange) -> _Key:
    return change.sample.request_id, change.sample.item_id
