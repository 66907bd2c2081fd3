import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from headrace_control_plane.rules.conditions import REMEMBERED, Happened, feed
from headrace_core.workflow import Condition, all_of, any_of, at, count, event, sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.control import naive


def happened(*keys: str, times: Sequence[int] | None = None, **fields: str) -> list[Happened]:
    """Events of these keys, a second apart unless told."""
    given_fields = {"value": "", "type": "", "namespace": "default", "sender": ""} | fields
    return [Happened(n + 1, times[n] if times else n * 1_000, key, **given_fields) for n, key in enumerate(keys)]


def fired(condition: Condition | Mapping[str, Any], events: Sequence[Happened]) -> list[list[int]]:
    """Offsets of each firing; the state goes through JSON after every event, as it does in the table."""
    document = condition.document if isinstance(condition, Condition) else condition
    state, found = None, []
    for one in events:
        state, met = feed(document, state, one)
        state = json.loads(json.dumps(state))
        if met is not None:
            assert state is None
            found.append([ref.offset for ref in met])
    return found


IN_ORDER = sequence(event("1"), event("2"), event("3"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("123", [[1, 2, 3]]),
        ("132", []),
        ("1323", [[1, 3, 4]]),
        ("1x2yy3", [[1, 3, 6]]),
        ("11223", [[1, 3, 5]]),
        ("123123", [[1, 2, 3], [4, 5, 6]]),
        ("1233", [[1, 2, 3]]),
        ("321", []),
    ],
)
def test_sequence_is_followed_by(keys: str, expected: list[list[int]]) -> None:
    assert fired(IN_ORDER, happened(*keys)) == expected


@pytest.mark.parametrize(
    ("keys", "times", "expected"),
    [
        ("ab", [0, 10], [[1, 2]]),
        ("ab", [0, 11], []),
        ("aab", [0, 8, 15], [[2, 3]]),
        ("aab", [0, 8, 10], [[1, 3]]),
        ("aaab", [0, 1, 2, 11], [[2, 4]]),
        ("abb", [0, 11, 12], []),
    ],
)
def test_limit_of_a_sequence_counts_from_its_first_event(
    keys: str, times: list[int], expected: list[list[int]]
) -> None:
    assert fired(sequence(event("a"), event("b"), within="10ms"), happened(*keys, times=times)) == expected


def test_same_event_does_not_serve_two_members_of_a_sequence() -> None:
    assert fired(sequence(event("a"), event("a")), happened(*"aaa")) == [[1, 2]]


def test_all_of_is_met_in_any_order_and_begins_anew() -> None:
    assert fired(all_of(event("a"), event("b")), happened(*"bbaab")) == [[1, 3], [4, 5]]


def test_any_of_is_met_by_the_first_and_forgets_the_others() -> None:
    condition = any_of(sequence(event("a"), event("b")), event("c"))

    assert fired(condition, happened(*"acb")) == [[2]]


def test_count_within_looks_at_the_newest() -> None:
    condition = count(event("a"), 3, within="10ms")

    assert fired(condition, happened(*"aaaa", times=[0, 5, 12, 14])) == [[2, 3, 4]]


def test_count_without_limit_begins_anew() -> None:
    assert fired(count(event("a"), 2), happened(*"aaaaa")) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("leaf", "matched"),
    [
        (event("k"), True),
        (event("other"), False),
        (event("k", type="T"), True),
        (event("k", type="t"), False),
        (event("k", namespace="n"), True),
        (event("k", namespace="default"), False),
        (event("k", sender="s"), True),
        (event("k", sender=""), False),
        (event("k", value="17"), True),
        (event("k", value="1"), False),
        (event("k", matches="[0-9]+"), True),
        (event("k", matches="[0-9]"), False),
    ],
)
def test_event_is_told_by_the_fields_that_are_given(leaf: Condition, *, matched: bool) -> None:
    one = happened("k", value="17", type="T", namespace="n", sender="s")

    assert bool(fired(leaf, one)) == matched


@pytest.mark.parametrize(
    ("value", "matched"),
    [
        ("2026-11-25T10:00:59+08:00", True),
        ("2026-11-25T02:00:00", True),
        ("2026-11-25T10:01:00+08:00", False),
        ("1795572000000", True),
        ("1795571999999", False),
        ("ten", False),
        ("", False),
        ("9" * 15, False),
    ],
)
def test_value_at_a_time_of_day(value: str, *, matched: bool) -> None:
    condition = event("k", value=at("10:00", timezone="Asia/Shanghai"))

    assert bool(fired(condition, happened("k", value=value))) == matched


def test_state_of_a_sequence_is_bounded() -> None:
    document = sequence(event("a"), event("b"), within="1d").document
    state = None
    for one in happened(*"a" * (REMEMBERED + 100)):
        state, _ = feed(document, state, one)

    _, met = feed(document, state, Happened(5_000, 3_000_000, "b", "", "", "default", ""))

    assert state is not None
    assert len(state["seen"]) == REMEMBERED
    assert met is not None
    assert [ref.offset for ref in met] == [1, 5_000]


LEAVES = st.sampled_from([event(key).document for key in "abc"])
LIMITS = st.none() | st.integers(1, 12)


def _grown(inner: st.SearchStrategy[Mapping[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)

    def limited(document: dict[str, Any], within: int | None) -> dict[str, Any]:
        return document if within is None else document | {"within_ms": within}

    return st.one_of(
        st.builds(lambda kind, of: {"kind": kind, "of": of}, st.sampled_from(["any_of", "all_of"]), several),
        st.builds(lambda of, w: limited({"kind": "sequence", "of": of}, w), several, LIMITS),
        st.builds(lambda of, n, w: limited({"kind": "count", "of": [of], "n": n}, w), inner, st.integers(1, 3), LIMITS),
    )


CONDITIONS = st.recursive(LEAVES, _grown, max_leaves=5)
HISTORIES = st.lists(st.tuples(st.sampled_from("abcx"), st.integers(0, 6)), max_size=14)


@settings(max_examples=600, deadline=None)
@given(CONDITIONS, HISTORIES)
def test_any_condition_fires_as_the_naive_model_says(
    condition: Mapping[str, Any], history: list[tuple[str, int]]
) -> None:
    time, times = 0, []
    for _, gap in history:
        times.append(time := time + gap)
    events = happened(*(key for key, _ in history), times=times)

    assert fired(condition, events) == naive.firings(condition, events)
