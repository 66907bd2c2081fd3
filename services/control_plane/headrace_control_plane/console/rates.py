"""Rates and quantiles out of what services count. Pure: time is passed in."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

#: Name of a sample and its labels, sorted.
Series = tuple[str, tuple[tuple[str, str], ...]]
#: What one process told.
Page = Mapping[Series, float]
Labels = Mapping[str, str]

_MOST_SECONDS: Final = 300.0
#: What was counted over a longer time than this says nothing of now.
_GAP_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """What grew from one look to the next.

    Attributes:
        at: time of the second look, seconds of any clock that only goes on.
        seconds: between the two.
        increases: by service and series.
    """

    at: float
    seconds: float
    increases: Mapping[tuple[str, Series], float]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of a histogram, interpolated; seconds.

    Attributes:
        count: observations it stands on.
        recent: whether these are of the last minutes; otherwise since the processes began.
    """

    p50: float
    p99: float
    count: float
    recent: bool


def increase(before: float, after: float) -> float:
    """How much a counter grew; one that is lower than before began anew, with its process."""
    return after - before if after >= before else after


def quantile(buckets: Sequence[tuple[float, float]], q: float) -> float | None:
    """A quantile of a histogram as Prometheus' histogram_quantile tells it.

    Linear inside a bucket, the first from 0, and the last finite bound for what lies above it.

    Args:
        buckets: upper bound and cumulative count of each, by bound; the last bound is infinite.
        q: from 0 to 1.

    Returns:
        None without observations.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank = q * total
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= rank and count > below:
            share = (rank - below) / (count - below)
            return lower if math.isinf(upper) else min(upper, lower + (upper - lower) * share)
        lower, below = (lower if math.isinf(upper) else upper), count
    return lower


@dataclass(slots=True)
class Window:
    """The last minutes of all processes.

    A replica that was away is compared with what it told last; one that began anew counts from zero.
    """

    steps: deque[Step] = field(default_factory=deque)
    _last: dict[str, tuple[str, Page]] = field(default_factory=dict)
    _seen_at: float | None = None

    def add(self, at: float, pages: Mapping[str, tuple[str, Page]]) -> None:
        """Take what the processes tell now.

        Args:
            at: the time.
            pages: of each process that answered, by a name of it: its service and what it told.
        """
        if self._seen_at is not None and at - self._seen_at > _GAP_SECONDS:
            self.steps.clear()
            self._last.clear()
            self._seen_at = None
        if self._seen_at is not None:
            grown: dict[tuple[str, Series], float] = {}
            for name, (service, page) in pages.items():
                if name in self._last:
                    before = self._last[name][1]
                    for series, value in page.items():
                        more = increase(before.get(series, 0.0), value)
                        if more:
                            grown[service, series] = grown.get((service, series), 0.0) + more
            self.steps.append(Step(at, at - self._seen_at, grown))
        self._last.update(pages)
        self._seen_at = at
        while self.steps and self.steps[0].at <= at - _MOST_SECONDS:
            self.steps.popleft()

    def rate(self, service: str, name: str, over: float = 10.0, **labels: str) -> float | None:
        """Growth a second of a counter, all replicas together; None as long as nothing can be said."""
        steps = self._recent(over)
        seconds = sum(step.seconds for step in steps)
        if seconds <= 0 or not any(s == service for s, _ in self._last.values()):
            return None
        return sum(self._sums(steps, service, name, labels, lambda _: "").values()) / seconds

    def quantiles(self, name: str, over: float = 60.0, **labels: str) -> Quantiles | None:
        """Of a histogram, all processes together: over the last time, or, when nothing was observed in it, since they began."""
        bucket = f"{name}_bucket"
        whole: dict[str, float] = {}
        for _, page in self._last.values():
            for series, value in page.items():
                if _matches(series, bucket, labels):
                    whole[_bound(series)] = whole.get(_bound(series), 0.0) + value
        # What did not grow is no increase, but its bound is where the next bucket begins.
        recent = dict.fromkeys(whole, 0.0) | self._sums(self._recent(over), None, bucket, labels, _bound)
        return _quantiles(recent, recent=True) or _quantiles(whole, recent=False)

    def gauge(self, service: str, name: str, **labels: str) -> float | None:
        """The highest value of a gauge, None if nobody tells it."""
        values = [
            value
            for told_by, page in self._last.values()
            for series, value in page.items()
            if told_by == service and _matches(series, name, labels)
        ]
        return max(values, default=None)

    def forget(self, names: Iterable[str]) -> None:
        """Leave out processes that are no longer there."""
        for name in names:
            self._last.pop(name, None)

    @property
    def known(self) -> frozenset[str]:
        """Names of the processes that told something."""
        return frozenset(self._last)

    def _recent(self, over: float) -> list[Step]:
        return [step for step in self.steps if step.at > self.steps[-1].at - over] if self.steps else []

    @staticmethod
    def _sums(
        steps: Sequence[Step], service: str | None, name: str, labels: Labels, group: Callable[[Series], str]
    ) -> dict[str, float]:
        sums: dict[str, float] = {}
        for step in steps:
            for (told_by, series), more in step.increases.items():
                if service in {None, told_by} and _matches(series, name, labels):
                    sums[group(series)] = sums.get(group(series), 0.0) + more
        return sums


def _matches(series: Series, name: str, labels: Labels) -> bool:
    return series[0] == name and all((k, v) in series[1] for k, v in labels.items())


def _bound(series: Series) -> str:
    return dict(series[1])["le"]


def _quantiles(by_bound: Mapping[str, float], *, recent: bool) -> Quantiles | None:
    buckets = sorted((float(bound), count) for bound, count in by_bound.items())
    p50, p99 = quantile(buckets, 0.5), quantile(buckets, 0.99)
    return None if p50 is None or p99 is None else Quantiles(p50, p99, buckets[-1][1], recent)
