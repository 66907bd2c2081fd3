"""Figures of quality, and their uncertainty. Pure.

Samples of one request stand and fall together, so requests are drawn anew, not samples: the percentile bootstrap over clusters
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = NDArray[np.int64]

_CLIP: Final = 1e-7
_RESAMPLES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate.

    Attributes:
        value: of the samples.
        low, high: bounds of its interval.
    """

    value: float
    low: float
    high: float


def losses(scores: Floats, labels: Floats) -> Floats:
    """Log loss of each sample, nats."""
    p = np.clip(scores, _CLIP, 1 - _CLIP)
    return np.asarray(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def auc(scores: Floats, labels: Floats) -> float | None:
    """Probability that a positive scores above a negative, ties half; None while one of them is missing."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def user_aucs(scores: Floats, labels: Floats, users: Groups) -> tuple[Groups, Floats, Floats]:
    """AUC within each user who has both labels: (user, AUC, number of his samples)."""
    found = [(users[at[0]], v, len(at)) for at in _members(users) if (v := auc(scores[at], labels[at])) is not None]
    who, values, counts = zip(*found, strict=True) if found else ((), (), ())
    return np.array(who, np.int64), np.array(values, np.float64), np.array(counts, np.float64)


def grouped_auc(scores: Floats, labels: Floats, users: Groups) -> float | None:
    """AUC within each user, weighted by his samples; None where no user has both labels."""
    _, values, counts = user_aucs(scores, labels, users)
    return float(np.average(values, weights=counts)) if len(values) else None


def request_ndcgs(scores: Floats, labels: Floats, requests: Groups) -> tuple[Groups, Floats]:
    """NDCG of each request that has both labels: (request, NDCG).

    Gains are the labels; items of equal score share the mean of their places' discounts (McSherry and Najork, Computing
    Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores, 2008).
    """
    which: list[int] = []
    values: list[float] = []
    for at in _members(requests):
        clicked = labels[at]
        positives = int(clicked.sum())
        if 0 < positives < len(at):
            discounts = 1 / np.log2(np.arange(len(at)) + 2.0)
            _, place, counts = np.unique(-scores[at], return_inverse=True, return_counts=True)
            ends = np.cumsum(counts)
            shared = np.add.reduceat(discounts, ends - counts) / counts
            which.append(int(requests[at[0]]))
            values.append(float((clicked * shared[place]).sum() / discounts[:positives].sum()))
    return np.array(which, np.int64), np.array(values, np.float64)


def ndcg(scores: Floats, labels: Floats, requests: Groups) -> float | None:
    """Mean NDCG of the requests that have both labels; None where none has."""
    _, values = request_ndcgs(scores, labels, requests)
    return float(values.mean()) if len(values) else None


def _members(groups: Groups) -> list[NDArray[np.intp]]:
    """Places of each group's samples."""
    if not len(groups):
        return []
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def calibration(scores: Floats, labels: Floats) -> float | None:
    """Mean prediction over mean label; None while there is no positive."""
    return float(scores.sum() / labels.sum()) if labels.any() else None


def mean_interval(values: Floats, groups: Groups, confidence: float, seed: int) -> Interval:
    """The mean of values and its interval, two-sided at the confidence.

    Args:
        values: one a sample.
        groups: the request of each.
        confidence: e.g. 0.95.
        seed: of the draws, so that a validation done again says the same.
    """
    return ratio_interval(values, np.ones(len(values)), groups, confidence, seed)


def ratio_interval(above: Floats, below: Floats, groups: Groups, confidence: float, seed: int) -> Interval:
    """The sum of `above` over the sum of `below`, and its interval.

    Args:
        above: one a sample.
        below: likewise; the sum is not 0.
        groups: what is drawn anew together.
        confidence: e.g. 0.95.
        seed: of the draws.
    """
    _, place = np.unique(groups, return_inverse=True)
    tops, bottoms = np.bincount(place, above), np.bincount(place, below)
    drawn = np.empty(_RESAMPLES)
    for k, counts in enumerate(_draws(len(tops), seed)):
        bottom = counts @ bottoms
        drawn[k] = counts @ tops / bottom if bottom else np.nan
    return _interval(float(above.sum() / below.sum()), drawn, confidence)


def auc_interval(scores: Sequence[Floats], labels: Floats, groups: Groups, confidence: float, seed: int) -> Interval:
    """The AUC of one model's scores, or the first one's less the second one's, and its interval.

    Args:
        scores: of one model or of two.
        labels: of both kinds.
        groups: what is drawn anew together.
        confidence: e.g. 0.95.
        seed: of the draws.
    """
    _, request = np.unique(groups, return_inverse=True)
    places = [np.unique(s, return_inverse=True)[1] for s in scores]
    signs = (1.0, -1.0)[: len(scores)]

    def of(weights: Floats) -> float:
        ups, downs = weights * labels, weights * (1 - labels)
        return sum(sign * _weighted_auc(place, ups, downs) for sign, place in zip(signs, places, strict=True))

    drawn = np.array([of(counts[request]) for counts in _draws(int(request.max()) + 1, seed)])
    return _interval(of(np.ones(len(labels))), drawn, confidence)


def binomial_intervals(
    area: float, calibrated: float, count: int, positives: int, confidence: float
) -> tuple[Interval, Interval]:
    """Of an AUC and a calibration of which the samples are not at hand, by the normal approximation.

    The AUC's variance is Hanley and McNeil's (The Meaning and Use of the Area under a ROC Curve, 1982), the calibration's that of
    the number of positives. Both take samples for independent, which makes them a little too narrow.

    Args:
        area: the AUC.
        calibrated: mean prediction over mean label.
        count: samples.
        positives: of them; neither none nor all.
        confidence: e.g. 0.95.
    """
    z, negatives = NormalDist().inv_cdf((1 + confidence) / 2), count - positives
    above, below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (above - area**2) + (negatives - 1) * (below - area**2)
    of_area = z * math.sqrt(variance / (positives * negatives))
    of_calibrated = z * calibrated * math.sqrt(negatives / (count * positives))
    return (
        Interval(area, area - of_area, area + of_area),
        Interval(calibrated, calibrated - of_calibrated, calibrated + of_calibrated),
    )


def _weighted_auc(place: Groups, ups: Floats, downs: Floats) -> float:
    """AUC of samples by the rank of their score, each counted so often as a positive and as a negative."""
    up, down = np.bincount(place, ups), np.bincount(place, downs)
    pairs = up.sum() * down.sum()
    return float((up * (np.cumsum(down) - down / 2)).sum() / pairs) if pairs else float("nan")


def _draws(groups: int, seed: int) -> Iterator[Floats]:
    """How often each group is drawn, resample by resample."""
    rng = np.random.default_rng(seed)
    for _ in range(_RESAMPLES):
        yield np.bincount(rng.integers(0, groups, groups), minlength=groups).astype(np.float64)


def _interval(value: float, drawn: Floats, confidence: float) -> Interval:
    told = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(told):
        return Interval(value, value, value)
    low, high = np.quantile(told, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))
