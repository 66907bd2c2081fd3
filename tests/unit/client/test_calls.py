"""The logic of calls, driven by hand: what is sent, when it is sent again, and what it ends with."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from headrace_client import (
    ApiError,
    BusyError,
    Event,
    EventsNotAcceptedError,
    HeadraceError,
    InvalidError,
    Item,
    NoAnswerError,
    Rejection,
    Retries,
    UnavailableError,
    calls,
)
from headrace_client.calls import Answer, Send, Wait
from headrace_client.errors import retry_after_s
from headrace_client.messages import Asked
from hypothesis import given
from hypothesis import strategies as st

RANKING = {
    "request_id": "r", "items": [{"item_id": "a", "score": 0.1, "position": 0, "source": "candidates"}], "model": "ctr",
    "model_version": 3, "feature_set_version": 1, "degraded": [], "something": "newer",
}  # fmt: skip
LOST = calls.Lost(ConnectionResetError("connection reset"), sent=True)
REFUSED = calls.Lost(ConnectionRefusedError("connection refused"), sent=False)


class Time:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0


def retries(time: Time, patience_s: float = 30.0, chance: float = 0.5) -> Retries:
    return Retries(patience_s, chance=lambda: chance, clock=lambda: time.now)


def answer(status: int, body: Mapping[str, Any], retry_after: str | None = None) -> Answer:
    return Answer(status, {"retry-after": retry_after} if retry_after else {}, json.dumps(body).encode())


def drive(flow: Any, time: Time, outcomes: Sequence[calls.Outcome]) -> tuple[Any, list[Send], list[float]]:
    """(result, what was sent, pauses) of a call that meets these outcomes in turn."""
    sent, pauses, coming = [], [], iter(outcomes)
    outcome: calls.Outcome = None
    try:
        while True:
            step = flow.send(outcome)
            if isinstance(step, Wait):
                pauses.append(step.seconds)
                time.now += step.seconds
                outcome = None
            else:
                sent.append(step)
                outcome = next(coming)
    except StopIteration as stop:
        return stop.value, sent, pauses


def some_events(count: int) -> list[Event]:
    return [Event(event_id=f"e{n}", user_id="u", event_time=n, action="click", item_id="i") for n in range(count)]


def ids(send: Send) -> list[str]:
    return [e["event_id"] for e in json.loads(send.body)["events"]]


def test_ranking_is_read_whatever_a_newer_gateway_adds() -> None:
    asked = Asked(user_id="u", page_id="home", candidates=["a"])

    told, sent, _ = drive(calls.ranked("/v1/rank", asked, Retries()), Time(), [answer(200, RANKING)])

    assert told.items[0].item_id == "a"
    assert told.model_version == 3
    assert json.loads(sent[0].body) == {"user_id": "u", "page_id": "home", "candidates": ["a"]}


def test_retry_after_is_waited_out_and_jittered_beyond() -> None:
    time = Time()
    outcomes = [answer(503, {}, "2"), answer(429, {}, "1"), answer(200, RANKING)]

    _, sent, pauses = drive(calls.ranked("/v1/rank", Asked(user_id="u", page_id="p"), retries(time)), time, outcomes)

    assert pauses == [2 + 0.05, 1 + 0.1]
    assert len(sent) == 3


def test_pauses_double_up_to_the_longest() -> None:
    time = Time()
    outcomes = [*[answer(503, {})] * 8, answer(200, RANKING)]

    _, _, pauses = drive(calls.ranked("/v1/rank", Asked(user_id="u", page_id="p"), retries(time)), time, outcomes)

    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]


def test_patience_ends_with_the_last_error() -> None:
    time = Time()
    problem = {"detail": "Kafka is away", "request_id": "r1"}
    flow = calls.ranked("/v1/rank", Asked(user_id="u", page_id="p"), retries(time, patience_s=3))

    with pytest.raises(UnavailableError, match="Kafka is away") as caught:
        drive(flow, time, [answer(503, problem, "2")] * 2)

    assert caught.value.retry_after_s == 2
    assert caught.value.request_id == "r1"
    assert time.now < 3


def test_lost_connection_is_repeated_for_a_ranking() -> None:
    time = Time()
    flow = calls.ranked("/v1/rank", Asked(user_id="u", page_id="p"), retries(time))

    _, sent, _ = drive(flow, time, [LOST, REFUSED, answer(200, RANKING)])

    assert len(sent) == 3


def test_catalog_entry_is_repeated_only_when_it_was_surely_not_taken() -> None:
    time = Time()
    taken = answer(202, {"accepted": 1, "versions": [7]})

    version, sent, _ = drive(
        calls.put_one("items", "a/b", Item(item_id="a/b"), retries(time)), time, [REFUSED, answer(503, {}), taken]
    )
    with pytest.raises(NoAnswerError, match="connection reset") as caught:
        drive(calls.put_one("items", "a/b", Item(item_id="a/b"), retries(time)), time, [LOST])

    assert version == 7
    assert [s.path for s in sent] == ["/v1/items/a%2Fb"] * 3
    assert caught.value.__cause__ is LOST.cause


def test_problem_becomes_a_typed_error() -> None:
    with pytest.raises(InvalidError) as caught:
        drive(
            calls.ranked("/v1/rank", Asked(user_id="", page_id="p"), Retries()), Time(),
            [answer(422, {"detail": "user_id: too short", "field": "user_id"})],
        )  # fmt: skip

    assert caught.value.field == "user_id"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_answer_without_a_problem_is_an_api_error_all_the_same(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        drive(calls.features("users", "u", Retries()), Time(), [Answer(502, {}, body)])

    assert caught.value.status == 502


def test_good_answer_of_something_else_is_an_error() -> None:
    with pytest.raises(HeadraceError, match="not the gateway's"):
        drive(calls.features("users", "u", Retries()), Time(), [Answer(200, {}, b"hello")])


def test_events_are_split_at_a_thousand() -> None:
    outcomes: list[calls.Outcome] = [answer(202, {"accepted": n, "rejected": []}) for n in (1_000, 1_000, 500)]

    result, sent, _ = drive(calls.send_events(some_events(2_500), Retries()), Time(), outcomes)

    assert result.accepted == 2_500
    assert [len(ids(s)) for s in sent] == [1_000, 1_000, 500]
    assert [i for s in sent for i in ids(s)] == [f"e{n}" for n in range(2_500)]


def test_rejected_events_are_named_by_their_place_among_all() -> None:
    outcomes: list[calls.Outcome] = [
        answer(202, {"accepted": 999, "rejected": [{"index": 7, "reason": "too old"}]}),
        answer(
            422, {"detail": "no event was accepted", "accepted": 0, "rejected": [{"index": 0, "reason": "too big"}]}
        ),
    ]

    result, _, _ = drive(calls.send_events(some_events(1_001), Retries()), Time(), outcomes)

    assert result.accepted == 999
    assert result.rejected == [Rejection(7, "too old"), Rejection(1_000, "too big")]


def test_of_a_partly_acknowledged_call_the_rest_is_sent_again() -> None:
    time = Time()
    outcomes: list[calls.Outcome] = [
        answer(503, {"acknowledged": [0, 3], "rejected": [{"index": 1, "reason": "wrong"}]}, "1"),
        LOST,
        answer(503, {"acknowledged": [1], "rejected": []}, "1"),
        answer(202, {"accepted": 1, "rejected": [{"index": 1, "reason": "old by now"}]}),
    ]

    result, sent, _ = drive(calls.send_events(some_events(6), retries(time)), time, outcomes)

    assert [ids(s) for s in sent] == [
        ["e0", "e1", "e2", "e3", "e4", "e5"], ["e2", "e4", "e5"], ["e2", "e4", "e5"], ["e2", "e5"]
    ]  # fmt: skip
    assert result.accepted == 4
    assert result.rejected == [Rejection(1, "wrong"), Rejection(5, "old by now")]


def test_events_that_could_not_be_sent_are_named() -> None:
    time = Time()
    outcomes: list[calls.Outcome] = [
        answer(202, {"accepted": 1_000, "rejected": []}),
        answer(503, {"acknowledged": [0], "rejected": []}, "1"),
        *[answer(429, {"detail": "too many"}, "1")] * 9,
    ]

    with pytest.raises(EventsNotAcceptedError) as caught:
        drive(calls.send_events(some_events(1_003), retries(time, patience_s=5)), time, outcomes)

    assert caught.value.accepted == 1_001
    assert caught.value.missing == [1_001, 1_002]
    assert isinstance(caught.value.cause, BusyError)


def test_call_that_is_refused_whole_names_its_events_and_those_behind_it() -> None:
    with pytest.raises(EventsNotAcceptedError) as caught:
        drive(calls.send_events(some_events(1_001), Retries()), Time(), [answer(413, {"detail": "body: too large"})])

    assert len(caught.value.missing) == 1_001


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 9), st.integers(1, 120))
def test_chunks_cover_all_in_order_within_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    ranges = list(calls.chunks(sizes, most, most_bytes))

    assert [i for r in ranges for i in r] == list(range(len(sizes)))
    for r in ranges:
        assert 1 <= len(r) <= most
        assert len(r) == 1 or sum(sizes[i] for i in r) <= most_bytes


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, None), ("3", 3.0), (" 12 ", 12.0), ("soon", None),
        ("Wed, 25 Nov 2026 06:00:05 GMT", 5.0), ("Wed, 25 Nov 2026 05:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(told: str | None, seconds: float | None) -> None:
    assert retry_after_s(told, dt.datetime(2026, 11, 25, 6, tzinfo=dt.UTC)) == seconds


def test_key_of_a_ranked_list_is_escaped() -> None:
    flow = calls.ranked_list("top", ["a|b", "50%"], Retries())

    step = next(flow)

    assert isinstance(step, Send)
    assert step.path == "/v1/features/top/top/a%257Cb%7C50%2525"
