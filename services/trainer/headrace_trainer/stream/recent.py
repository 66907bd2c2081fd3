"""The newest samples with the scores that they had before they were learned.

An increment carries them: the validator holds them against the scores that these very samples were served with.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from headrace_core.contracts import Sample
from headrace_core.learning.progressive import ProgressiveScores

from headrace_trainer.network.learner import Floats

#: At most so many are kept, about 1 MB.
_MOST: Final = 20_000


class RecentScores:
    """Scores of the newest `window_ms` of event time, of the last `most` samples at most.

    Attributes:
        kept: them; replaced, never written to.
    """

    def __init__(self, window_ms: int, most: int = _MOST) -> None:
        """Start empty."""
        self._window, self._most = window_ms, most
        self.kept = ProgressiveScores.none()

    def add(self, samples: Sequence[Sample], scores: Floats) -> None:
        """Take samples, each for the first time, with their scores."""
        if not samples:
            return
        kept = self.kept
        times = np.concatenate([kept.times, np.array([s.event_time for s in samples], np.int64)])
        at = np.flatnonzero(times > times.max() - self._window)[-self._most :]
        requests = np.array([s.request_id.encode() for s in samples], np.bytes_)
        items = np.array([s.item_id.encode() for s in samples], np.bytes_)
        self.kept = ProgressiveScores(
            np.concatenate([kept.requests, requests])[at],
            np.concatenate([kept.items, items])[at],
            times[at],
            np.concatenate([kept.scores, scores.astype(np.float32)])[at],
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, to be restored."""
        return self.kept.arrays()

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        self.kept = ProgressiveScores.from_arrays(arrays)
