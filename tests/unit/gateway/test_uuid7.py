import uuid
from collections.abc import Iterator

import pytest
from headrace_gateway.uuid7 import RequestIds, time_of
from hypothesis import given
from hypothesis import strategies as st


def ids(times: Iterator[int]) -> RequestIds:
    return RequestIds(now_ms=lambda: next(times))


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=200))
def test_ids_grow_whatever_the_clock_does(times: list[int]) -> None:
    made = ids(iter(times))

    texts = [made.next() for _ in times]

    assert texts == sorted(set(texts))


@given(st.integers(0, 2**48 - 1))
def test_id_is_a_uuid_of_version_7_and_tells_its_time(now: int) -> None:
    text = ids(iter([now])).next()

    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    assert time_of(text) == now


def test_more_ids_in_a_millisecond_than_the_counter_holds_still_grow() -> None:
    made = RequestIds(now_ms=lambda: 1_000)

    texts = [made.next() for _ in range(10_000)]

    assert texts == sorted(set(texts))
    assert time_of(texts[-1]) - 1_000 <= 10_000 // 2_048 + 1


@pytest.mark.parametrize("text", ["", "nonsense", str(uuid.UUID(int=0)), "01a2108b-e386-4195-9dae-e03b12f84cd1"])
def test_anything_else_has_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no UUIDv7"):
        time_of(text)
