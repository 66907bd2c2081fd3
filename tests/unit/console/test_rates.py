import math

import pytest
from headrace_control_plane.console.rates import Page, Window, increase, quantile
from headrace_control_plane.console.scrape import parse
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BOUNDS = (0.1, 0.5, 1.0, math.inf)


class Service:
    """A process that counts, as the platform's do."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.events = Counter("headrace_events_total", "…", ["topic"], registry=self._registry)
        self.seconds = Histogram(
            "headrace_freshness_seconds", "…", ["stage"], buckets=BOUNDS[:-1], registry=self._registry
        )
        self.loaded = Gauge("headrace_loaded", "…", registry=self._registry)

    def page(self) -> Page:
        return parse(generate_latest(self._registry).decode())


@pytest.mark.parametrize(("before", "after", "grown"), [(5, 8, 3), (5, 5, 0), (5, 2, 2), (0, 7, 7)])
def test_a_counter_that_fell_began_anew(before: float, after: float, grown: float) -> None:
    assert increase(before, after) == grown


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ((0, 10, 10, 10), 0.5, 0.3),  # half of the way through the second bucket
        ((10, 10, 10, 10), 0.5, 0.05),  # the first bucket begins at 0
        ((0, 0, 10, 10), 0.99, 0.995),
        ((0, 0, 0, 10), 0.5, 1.0),  # above the last bound: that bound
        ((5, 5, 10, 10), 0.75, 0.75),  # an empty bucket between
    ],
)
def test_quantiles_are_linear_inside_a_bucket(counts: tuple[int, ...], q: float, expected: float) -> None:
    assert quantile(list(zip(BOUNDS, counts, strict=True)), q) == pytest.approx(expected)


def test_a_histogram_without_observations_has_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([(0.1, 0), (math.inf, 0)], 0.5) is None


@example([0.0] * 6 + [1.0] + [0.5] * 3, 0.9)  # a rounding error past the bucket's bound
@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], q: float) -> None:
    buckets = [(bound, float(sum(v <= bound for v in values))) for bound in BOUNDS]
    nth = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    found = quantile(buckets, q)

    upper = next(bound for bound in BOUNDS if nth <= bound)
    lower = max((bound for bound in BOUNDS if bound < upper), default=0.0)
    assert found is not None
    assert lower <= found <= min(upper, BOUNDS[-2])


def test_a_rate_is_the_growth_of_all_replicas_over_the_time() -> None:
    first, second, window = Service(), Service(), Window()
    first.events.labels("a").inc(1000)
    for at in (0.0, 2.0, 4.0):
        window.add(at, {"joiner-0": ("joiner", first.page()), "joiner-1": ("joiner", second.page())})
        first.events.labels("a").inc(10)
        second.events.labels("b").inc(4)

    assert window.rate("joiner", "headrace_events_total") == pytest.approx(7.0)
    assert window.rate("joiner", "headrace_events_total", topic="b") == pytest.approx(2.0)
    assert window.rate("gateway", "headrace_events_total") is None


def test_nothing_is_said_of_a_rate_after_a_single_look() -> None:
    window, service = Window(), Service()
    service.events.labels("a").inc(5)
    window.add(0.0, {"joiner-0": ("joiner", service.page())})

    assert window.rate("joiner", "headrace_events_total") is None


def test_a_replica_that_began_anew_or_was_away_makes_no_jump() -> None:
    window, service = Window(), Service()
    service.events.labels("a").inc(1000)
    window.add(0.0, {"joiner-0": ("joiner", service.page())})
    window.add(2.0, {})
    reborn = Service()
    reborn.events.labels("a").inc(6)
    window.add(4.0, {"joiner-0": ("joiner", reborn.page())})

    assert window.rate("joiner", "headrace_events_total") == pytest.approx(6 / 4)


def test_what_nobody_looked_at_for_long_says_nothing_of_now() -> None:
    window, service = Window(), Service()
    window.add(0.0, {"joiner-0": ("joiner", service.page())})
    service.events.labels("a").inc(1_000_000)
    window.add(3_600.0, {"joiner-0": ("joiner", service.page())})

    assert window.rate("joiner", "headrace_events_total") is None


def test_quantiles_are_of_the_last_time_if_there_is_any() -> None:
    window, service = Window(), Service()
    for _ in range(100):
        service.seconds.labels("feature").observe(0.9)
    window.add(0.0, {"worker-0": ("worker", service.page())})
    since_start = window.quantiles("headrace_freshness_seconds", stage="feature")
    for _ in range(10):
        service.seconds.labels("feature").observe(0.2)
    window.add(2.0, {"worker-0": ("worker", service.page())})
    recent = window.quantiles("headrace_freshness_seconds", stage="feature")

    assert since_start is not None
    assert not since_start.recent
    assert since_start.p50 == pytest.approx(0.75)
    assert recent is not None
    assert recent.recent
    assert recent.count == 10
    assert recent.p50 == pytest.approx(0.3)
    assert window.quantiles("headrace_freshness_seconds", stage="model") is None


def test_a_gauge_is_the_highest_of_the_replicas() -> None:
    window, low, high = Window(), Service(), Service()
    low.loaded.set(1)
    high.loaded.set(3)
    window.add(0.0, {"server-0": ("server", low.page()), "server-1": ("server", high.page())})

    assert window.gauge("server", "headrace_loaded") == 3
    assert window.gauge("other", "headrace_loaded") is None


def test_a_process_that_is_gone_leaves_no_rate_behind() -> None:
    window, service = Window(), Service()
    for at in (0.0, 2.0):
        window.add(at, {"joiner-0": ("joiner", service.page())})
        service.events.labels("a").inc(10)

    window.forget(["joiner-0"])

    assert window.rate("joiner", "headrace_events_total") is None
