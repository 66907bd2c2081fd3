from typing import Any

from headrace_control_plane.console.events import chosen, tail
from headrace_control_plane.console.workflows import condition, flow, runs
from headrace_core.control.records import Event, Run

FLOW = {"workflow": "orders", "snapshot": 2, "paused": False, "applied_at": 1_000}
TASK = {"task": "pack", "kind": "batch", "service": "", "run": ["pack", "--all"], "status": "INIT", "last_run": None}
PAID = {"offset": 7, "key": "paid", "value": "<42>", "create_time": 5_000}
LEAF = {"condition": "event picked", "met": False, "events": [], "missing": "event picked"}
SEQUENCE = {
    "condition": "in this order within 60 s: event paid; then event picked", "met": False, "events": [7],
    "time_left_ms": 30_000, "of": [{"condition": "event paid", "met": True, "events": [7]}, LEAF],
}  # fmt: skip


def a_why(conditions: dict[str, Any] = SEQUENCE, **more: Any) -> dict[str, Any]:
    return {
        "rule": "pack.start", "task": "pack", "action": "start", "words": "…", "conditions": conditions,
        "missing": ["event picked"], "events": {"7": PAID}, "firings": [], "set_aside": [],
    } | more  # fmt: skip


def an_event(offset: int, key: str, kind: str = "", value: str = "") -> Event:
    return Event(offset, key, value, kind, 1, "default", "me", 1_000)


def test_a_condition_ticks_what_is_met_by_which_event_and_says_how_long_it_waits() -> None:
    html = condition(SEQUENCE, {"7": PAID})

    assert html.count('class="met"') == 1
    assert "#7 paid = &lt;42&gt;" in html
    assert "30 s left" in html
    assert "in this order within 60 s" in html


def test_a_rule_names_what_is_missing_once() -> None:
    whole, single = flow(FLOW, [TASK], [a_why()]), flow(FLOW, [TASK], [a_why(LEAF)])

    assert "Missing: event picked" in whole
    assert single.count("event picked") == 1  # the condition itself says it


def test_a_rule_that_rests_or_whose_workflow_is_paused_says_so() -> None:
    html = flow(FLOW | {"paused": True}, [TASK], [a_why(LEAF, missing=["the workflow is paused", "event picked"])])

    assert "Missing: the workflow is paused" in html
    assert ">paused<" in html


def test_firings_and_events_set_aside_are_told() -> None:
    firing = {"time": 6_000, "events": [PAID], "effect": "started", "run_id": "r"}
    aside = {"time": 6_000, "event": PAID, "error": "there is no field <to>"}

    html = flow(FLOW, [TASK], [a_why(firings=[firing], set_aside=[aside])])

    assert "Fired" in html
    assert "there is no field &lt;to&gt;" in html
    assert "Has not fired yet" not in html


def test_a_rule_by_the_clock_tells_its_next_time_and_a_task_without_rule_is_shown() -> None:
    clock = {
        "rule": "night",
        "task": "pack",
        "action": "start",
        "words": "0 4 * * * (UTC)",
        "next": 9_000,
        "missing": [],
    }

    html = flow(FLOW, [TASK, TASK | {"task": "by_hand"}], [clock])

    assert 'data-ms="9000"' in html
    assert "No rule acts on it" in html


def test_runs_tell_cause_and_error() -> None:
    cause = {"rule": "pack.start", "events": [PAID]}
    run = Run("r1", "orders", "pack", "", ["pack"], "FAILED", 2, cause, 1_000, 2_000, 4_500, {}, "<broken>")

    html = runs([run])

    assert "pack.start" in html
    assert "#7 paid" in html
    assert "&lt;broken&gt;" in html
    assert "attempt 2" in html
    assert "2.5 s" in html


def test_of_many_events_the_first_and_the_last_are_named_and_figures_are_short() -> None:
    marks = [{"offset": n, "key": "samples", "value": str(n), "create_time": n} for n in range(3, 17)]
    cause = {"rule": "pack.start", "events": marks}
    run = Run(
        "r1", "orders", "pack", "", ["pack"], "SUCCEEDED", 1, cause, 1_000, 2_000, 4_500, {"gap": 0.0123456789}, ""
    )

    html = runs([run])

    assert "#3 samples = 3" in html
    assert "and 12 more, up to" in html
    assert "#16 samples = 16" in html
    assert "#4 " not in html
    assert "gap 0.01235" in html


def test_the_newest_events_with_every_word_are_chosen() -> None:
    events = [an_event(1, "ctr", "MODEL_GENERATED"), an_event(2, "paid"), an_event(3, "ctr", "MODEL_DEPLOYED", "7")]

    assert [event.offset for event in chosen(events, "")] == [3, 2, 1]
    assert [event.offset for event in chosen(events, "CTR model")] == [3, 1]
    assert [event.offset for event in chosen(events, "", most=2)] == [3, 2]


def test_an_opened_event_shows_its_context_escaped() -> None:
    event = Event(1, "k", "v", "", 1, "other", "me", 1_000, {"why": "<script>"})

    html = tail([event], opened=1)

    assert "&lt;script&gt;" in html
    assert "other/k" in html
