"""How good scores are: area under the ROC curve, log loss, calibration, over all samples or a rolling window."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BINS: Final = 1024
_WIDEST: Final = 16.0
_CLIP: Final = 1e-7
#: Numbers of a window's slice: positives by bin, negatives by bin, then sums.
_WIDTH: Final = 2 * _BINS + 4
_SLICES: Final = 30


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of a set of samples.

    Attributes:
        count: samples.
        positives: of them.
        auc: probability that a positive scores above a negative, ties half; 0.5 while one of them is missing.
        logloss: mean, in nats.
        calibration: mean prediction over mean label; 1 while there is no positive.
    """

    count: int
    positives: int
    auc: float
    logloss: float
    calibration: float

    def as_metrics(self) -> dict[str, float]:
        """By name, as manifests and the control plane have them."""
        return {
            "auc": self.auc, "logloss": self.logloss, "calibration": self.calibration, "count": self.count,
            "positives": self.positives,
        }  # fmt: skip


def tally(scores: Floats, labels: Floats) -> npt.NDArray[np.float64]:
    """Additive statistics of scored samples; the AUC is exact up to scores that share one of 1024 bins of the logit."""
    p = np.clip(scores.astype(np.float64), _CLIP, 1 - _CLIP)
    y = labels.astype(np.float64)
    bins = ((np.log(p / (1 - p)) + _WIDEST) * (_BINS / (2 * _WIDEST))).astype(np.int64).clip(0, _BINS - 1)
    losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return np.concatenate([
        np.bincount(bins, y, _BINS), np.bincount(bins, 1 - y, _BINS), [len(y), y.sum(), losses.sum(), p.sum()],
    ])  # fmt: skip


def quality(tallied: npt.NDArray[np.float64]) -> Quality:
    """Figures of the sum of tallies."""
    positive, negative = tallied[:_BINS], tallied[_BINS : 2 * _BINS]
    count, positives, losses, predicted = tallied[2 * _BINS :].tolist()
    pairs = positives * (count - positives)
    below = np.cumsum(negative) - negative
    auc = float((positive * (below + negative / 2)).sum() / pairs) if pairs else 0.5
    return Quality(
        int(count), int(positives), auc, losses / count if count else 0.0, predicted / positives if positives else 1.0
    )


class RollingQuality:
    """Quality over the newest `window_ms`, forgotten a thirtieth at a time."""

    def __init__(self, window_ms: int) -> None:
        """Start empty."""
        self._window, self._slice = window_ms, max(1, window_ms // _SLICES)
        self._tallies: deque[tuple[int, npt.NDArray[np.float64]]] = deque()

    def add(self, scores: Floats, labels: Floats, time: int) -> None:
        """Take scored samples.

        Args:
            scores: before they were learned.
            labels: 0 or 1.
            time: ms since the epoch.
        """
        at = time // self._slice
        if self._tallies and self._tallies[-1][0] >= at:
            self._tallies[-1][1][:] += tally(scores, labels)
        else:
            self._tallies.append((at, tally(scores, labels)))
        while self._tallies[0][0] <= at - self._window // self._slice:
            self._tallies.popleft()

    def quality(self) -> Quality:
        """Figures of the window."""
        total = np.zeros(_WIDTH)
        for _, one in self._tallies:
            total += one
        return quality(total)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, to be restored."""
        return {
            "times": np.array([t for t, _ in self._tallies], np.int64),
            "tallies": np.array([t for _, t in self._tallies]).reshape(-1, _WIDTH),
        }

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        self._tallies = deque(zip(arrays["times"].tolist(), arrays["tallies"].copy(), strict=True))
