from typing import Any

import pytest
from headrace_control_plane.rules.conditions import feed
from headrace_control_plane.rules.explain import explain, missing
from headrace_core.workflow import Condition, all_of, any_of, count, event, sequence

from tests.unit.control.test_conditions import happened


def explained(condition: Condition, keys: str, now: int = 0) -> dict[str, Any]:
    state = None
    for one in happened(*keys):
        state, _ = feed(condition.document, state, one)
    return explain(condition.document, state, now)


@pytest.mark.parametrize(
    ("condition", "keys", "lacking"),
    [
        (event("a"), "", ["event a"]),
        (sequence(event("1"), event("2"), event("3")), "1", ["event 2"]),
        (sequence(event("1"), event("2"), event("3")), "132", ["event 3"]),
        (all_of(event("a"), event("b"), event("c")), "b", ["event a", "event c"]),
        (any_of(event("a"), event("b")), "x", ["event a", "event b"]),
        (count(event("a"), 3), "a", ["2 more of 3: event a"]),
        (all_of(event("a"), sequence(event("1"), event("2"))), "1a", ["event 2"]),
    ],
)
def test_names_what_is_missing(condition: Condition, keys: str, lacking: list[str]) -> None:
    assert missing(explained(condition, keys)) == lacking


def test_names_the_events_that_meet_a_part() -> None:
    told = explained(sequence(event("1"), event("2"), event("3")), "x1y2")

    assert [(part["met"], part["events"]) for part in told["of"]] == [(True, [2]), (True, [4]), (False, [])]


def test_sequence_past_its_limit_lacks_its_first_event_again() -> None:
    condition = sequence(event("a"), event("b"), within="10s")

    assert missing(explained(condition, "a", now=9_000)) == ["event b"]
    assert missing(explained(condition, "a", now=10_001)) == ["event a"]
