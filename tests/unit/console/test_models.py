from typing import Any

import pytest
from headrace_control_plane.console import own_address
from headrace_control_plane.console.markup import duration, per_second
from headrace_control_plane.console.models import chart, points, preferred, series_names, story, table
from headrace_core.control.records import ModelVersion

FINDINGS = [
    {"check": "auc", "passed": True, "value": 0.71, "threshold": "≥ 0.5", "slice": "", "note": ""},
    {
        "check": "logloss_increase",
        "passed": False,
        "value": 0.03125,
        "threshold": "≤ 0.02",
        "slice": "city=<x>",
        "note": "n",
    },
]


def a_version(number: int, stage: str = "DEPLOYED", auc: float | None = 0.7, **details: Any) -> ModelVersion:
    history = [
        {"stage": "GENERATED", "time": number * 1_000, "by": "trainer", "why": "registered", "details": {}},
        {
            "stage": stage,
            "time": number * 1_000 + 500,
            "by": "model-validator",
            "why": f"why <{number}>",
            "details": details,
        },
    ]
    metrics: dict[str, Any] = {"auc": auc}
    return ModelVersion("ctr", number, stage, "stable", None, f"file:///{number}", {}, metrics, history)


def recorded(name: str, value: float | None, time: int = 9_000, where: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "time": time, "slice": where}


def test_points_are_registered_and_recorded_values_of_all_samples() -> None:
    found = points(
        "auc",
        [a_version(2, "REJECTED"), a_version(1)],
        {2: [recorded("held_out_auc", 0.66), recorded("held_out_auc", 0.1, where="city=x"), recorded("gauc", 0.5),
             recorded("held_out_logloss", 0.3), recorded("auc", 0.7, time=2_400, where="all")]},
    )  # fmt: skip

    told = [(p.series, p.version, p.value, p.stage) for p in found]
    assert told == [("", 1, 0.7, "DEPLOYED"), ("", 2, 0.7, "REJECTED"), ("held_out", 2, 0.66, "REJECTED")]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_left_out(value: float | None) -> None:
    assert points("auc", [a_version(1, auc=value)], {1: [recorded("held_out_auc", value)]}) == []


def test_a_chart_has_one_value_a_version_or_all_over_time() -> None:
    versions = [a_version(2, "REJECTED"), a_version(1)]
    of_auc = points("auc", versions, {1: [recorded("held_out_auc", 0.6, 5_000), recorded("held_out_auc", 0.8, 6_000)]})
    names = series_names([of_auc])

    by_version = chart("AUC", of_auc, names, "version", dark=False)
    over_time = chart("AUC", of_auc, names, "time", dark=True)

    assert names == ["", "held_out"]
    assert by_version["xAxis"]["data"] == ["1", "2"]
    assert [item["value"] for item in by_version["series"][1]["data"]] == [["1", 0.8]]
    assert [item["value"] for item in over_time["series"][1]["data"]] == [[5_000, 0.6], [6_000, 0.8]]
    assert by_version["series"][0]["data"][1]["symbol"] == "diamond"  # rejected


def test_a_table_escapes_what_people_wrote_and_opens_one_version() -> None:
    html = table([a_version(2), a_version(1)], opened=1)

    assert "why &lt;2&gt;" in html
    assert "<2>" not in html
    assert html.count('aria-expanded="true"') == 1
    assert html.count('class="story"') == 1


def test_a_story_tells_the_checks_that_fail_first() -> None:
    html = story(a_version(1, "REJECTED", findings=FINDINGS))

    assert html.index("fails") < html.index("holds")
    assert "0.03125" in html
    assert "city=&lt;x&gt;" in html


@pytest.mark.parametrize("details", [{"findings": "none"}, {"findings": [3]}, {"seen": "<b>"}, {}])
def test_other_details_are_told_as_they_are(details: dict[str, Any]) -> None:
    html = story(a_version(1, "REJECTED", **details))

    assert "<b>" not in html.replace("<b ", "")
    assert all(key in html for key in details)


def test_the_model_that_serves_is_shown_first() -> None:
    assert (
        preferred([{"model": "base", "versions": 9, "deployed": {}}, {"model": "ctr", "deployed": {"stable": 1}}])
        == "ctr"
    )
    assert not preferred([])


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (None, "\N{EN DASH}"),
        (0, "0/s"),
        (7.25, "7.2/s"),
        (9.96, "10/s"),
        (994, "994/s"),
        (1234, "1.2k/s"),
        (25_000, "25k/s"),
    ],
)
def test_rates_are_short(rate: float | None, words: str) -> None:
    assert per_second(rate) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "\N{EN DASH}"), (0.0015, "1.5 ms"), (0.25, "250 ms"), (1.234, "1.2 s"), (42, "42 s"), (600, "10 min")],
)
def test_time_spans_are_short(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("cp", "http://cp:1"),
    ],
)
def test_the_console_reaches_what_its_process_listens_on(host: str, url: str) -> None:
    assert own_address(host, 1) == url
