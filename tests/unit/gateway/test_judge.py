import json
from typing import Any

import pytest
from headrace_gateway.events.judge import Bounds, Judged, corrected_time, judge
from headrace_gateway.problem import ProblemError
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000_000
BOUNDS = Bounds(max_age_ms=1_000, max_ahead_ms=300, max_skew_ms=10_000)


def an_event(**fields: Any) -> dict[str, Any]:
    return {"event_id": "e", "user_id": "u", "event_time": NOW, "action": "click", "item_id": "i", **fields}


def judged(*events: Any) -> Judged:
    return judge(json.dumps({"events": events}).encode(), NOW, BOUNDS)


@pytest.mark.parametrize(
    ("offset_ms", "kind"), [(300, None), (301, "too_far_ahead"), (-1_000, None), (-1_001, "too_old")]
)
def test_bounds_of_event_time_are_exact(offset_ms: int, kind: str | None) -> None:
    result = judged(an_event(event_time=NOW + offset_ms))

    assert result.kinds == ([kind] if kind else [])
    assert len(result.taken) == (kind is None)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"colour": "red"}, "unknown_field"),
        ({"user_id": 1}, "type"),
        ({"item_id": ""}, "missing_field"),
        ({"action": "buy"}, "value"),
        ({"page_id": "\x00"}, "value"),
        ({"item_id": "i\n"}, "value"),
    ],
)
def test_fault_is_counted_by_its_kind(fault: dict[str, Any], kind: str) -> None:
    result = judged(an_event(**fault))

    assert result.kinds == [kind]
    assert not result.taken


def test_search_needs_no_item() -> None:
    assert judged(an_event(action="search", item_id="")).taken


FAULTS: st.SearchStrategy[Any] = st.sampled_from(
    [an_event(x=1), an_event(event_time=0), an_event(page_id="\x00"), 3, None, [], {}]
)


@given(st.lists(st.one_of(st.just(an_event()), FAULTS), min_size=1, max_size=30))
def test_every_event_is_taken_or_rejected_in_order(events: list[Any]) -> None:
    result = judged(*events)

    good = [n for n, event in enumerate(events) if event == an_event()]
    assert [index for index, _ in result.taken] == good
    assert [r.index for r in result.rejected] == [n for n in range(len(events)) if n not in good]
    assert len(result.kinds) == len(result.rejected)


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1_001, 413)])
@pytest.mark.parametrize("event", [an_event(), {}])
def test_number_of_events_is_bounded_with_and_without_faults(count: int, status: int, event: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as raised:
        judged(*[event] * count)

    assert raised.value.status == status


@given(st.integers(0, 2**62), st.integers(-(10**12), 10**12))
def test_wrong_clock_is_corrected_and_the_way_through_the_network_is_not(event_time: int, skew: int) -> None:
    corrected = corrected_time(event_time, NOW - skew, NOW, max_skew_ms=10_000)

    assert corrected == (event_time + skew if abs(skew) > 10_000 else event_time)


def test_event_of_a_clock_an_hour_ahead_is_taken_at_its_true_time() -> None:
    ahead = NOW + 3_600_000

    result = judged(an_event(event_time=ahead - 500, sent_at=ahead))

    ((_, event),) = result.taken
    assert event.event_time == NOW - 500
