"""What serves beside the frozen base, as the console tells it."""

from typing import Any

import pytest
from headrace_control_plane.console.frozen import Beside, measurements, words
from headrace_control_plane.console.models import beside, points

from tests.unit.console.test_models import a_version


def a_measurement(time: int, live: float, frozen: float, **more: float) -> list[dict[str, Any]]:
    told = {"live_logloss": live, "frozen_logloss": frozen, "live_auc": 0.8, **more}
    return [{"name": name, "value": value, "time": time, "slice": ""} for name, value in told.items()]


def test_measurements_are_in_the_order_of_time_whichever_version_served() -> None:
    recorded = {
        2: a_measurement(3_000, 0.30, 0.36, gap_low=0.01, gap_high=0.09),
        1: [*a_measurement(2_000, 0.33, 0.35), *a_measurement(4_000, 0.31, 0.37)],
    }

    found = measurements(recorded)

    assert [(one.time, one.version, one.live, one.frozen) for one in found] == [
        (2_000, 1, 0.33, 0.35), (3_000, 2, 0.30, 0.36), (4_000, 1, 0.31, 0.37),
    ]  # fmt: skip
    assert (found[1].low, found[1].high) == (0.01, 0.09)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_half_a_measurement_is_none(value: float | None) -> None:
    items = a_measurement(1_000, 0.3, 0.4)
    items[1]["value"] = value

    assert measurements({1: items}) == []


@pytest.mark.parametrize(
    ("live", "low", "high", "verdict"),
    [
        (0.30, 0.02, 0.08, "better;"),
        (0.34, -0.02, 0.04, "not told apart from it yet;"),
        (0.40, -0.09, -0.01, "worse;"),
        (0.30, None, None, "better;"),
    ],
)
def test_the_newest_gap_is_told_with_what_its_interval_allows(
    live: float, low: float | None, high: float | None, verdict: str
) -> None:
    told = words([Beside(1_000, 1, 0.9, 0.1), Beside(2_000, 2, live, 0.35, low, high)])

    assert f'data-gap="{0.35 - live:.4f}"' in told
    assert verdict in told


def test_the_chart_has_both_lines_and_the_other_charts_neither() -> None:
    recorded = {1: a_measurement(2_000, 0.30, 0.36)}

    drawn = beside("ctr", measurements(recorded), dark=False)

    assert [(s["name"], s["data"][0]["value"]) for s in drawn["series"]] == [
        ("ctr, what serves", [2_000, 0.30]), ("ctr_base, frozen", [2_000, 0.36]),
    ]  # fmt: skip
    assert [point.series for point in points("auc", [a_version(1)], recorded)] == [""]
