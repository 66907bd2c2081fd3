import pytest
from headrace_sample_joiner.joiner.state import Shown, request_time
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.joiner.events import START, a_request

BIT_OF_EVENT = {1: 1, 2: 1, 3: 4, 4: 4}
EVENTS = st.lists(st.tuples(st.sampled_from([*BIT_OF_EVENT]), st.booleans()))


def a_shown() -> Shown:
    return Shown(event_time=START, deadline=START, position=0, offset=0)


@given(EVENTS)
def test_label_has_the_bits_with_an_action_that_was_not_cancelled(events: list[tuple[int, bool]]) -> None:
    shown = a_shown()
    for event, cancel in events:
        shown.apply(BIT_OF_EVENT[event], event, cancel=cancel)

    cancelled = {event for event, cancel in events if cancel}
    assert shown.label() == sum({BIT_OF_EVENT[e] for e, _ in events if e not in cancelled})


@given(EVENTS)
def test_history_holds_each_change_once_and_starts_with_a_positive(events: list[tuple[int, bool]]) -> None:
    shown = a_shown()
    for event, cancel in events:
        shown.apply(BIT_OF_EVENT[event], event, cancel=cancel)

    assert all(a != b for a, b in zip([0, *shown.history], shown.history, strict=False))
    assert (shown.history or (0,))[-1] == shown.label()


def test_time_of_a_request_is_in_its_id() -> None:
    assert request_time(a_request(made_at=1_234)) == START + 1_234


@pytest.mark.parametrize(
    "request_id",
    ["", "x" * 36, "018bcfe5-6800-4000-8000-000000000000", "{018bcfe5-6800-7000-8000-0000000000}", a_request().upper()],
)
def test_anything_but_a_canonical_uuid7_has_no_time(request_id: str) -> None:
    assert request_time(request_id) is None
