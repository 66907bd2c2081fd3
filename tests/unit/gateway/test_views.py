from typing import Any

import msgspec
import pytest
from headrace_core.stores.redis_views import pack
from headrace_gateway.ranking.in_force import Field
from headrace_gateway.ranking.views import FeatureValue, RankedMember, feature_values, ranked_list, trimmed
from hypothesis import given
from hypothesis import strategies as st

FIELDS = (Field("seq", "aa"), Field("mean", "bb"))


def stored(value: Any, version: int = 3, event_time: int = 9) -> bytes:
    return pack(version, event_time, msgspec.msgpack.encode(value))


def test_values_come_with_definition_version_and_time() -> None:
    entries: Any = [{"event_time": 5, "item_id": "i", "action": "click"}]

    values = feature_values(FIELDS, [stored(entries), stored(0.5, 4, 8)])

    assert values == {"seq": FeatureValue("aa", 3, 9, entries), "mean": FeatureValue("bb", 4, 8, 0.5)}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"too short",
        b"x" * 16,
        stored(None)[:-1],
        pack(1, 1, b"\xc1"),
        stored(msgspec.msgpack.Ext(5, b"x")),
        pack(1, 1, b"\x81\x91\x01\x01"),
        stored([[["deep"]]]),
        stored(b"bytes"),
        Exception("WRONGTYPE"),
    ],
)
def test_absent_or_foreign_value_is_left_out_alone(raw: Any) -> None:
    assert feature_values(FIELDS, [raw, stored(1)]).keys() == {"mean"}
    assert ranked_list(raw) is None


def test_answer_that_is_no_list_holds_no_value() -> None:
    assert feature_values(FIELDS, Exception("WRONGTYPE")) == {}


@given(st.binary(max_size=100))
def test_any_bytes_are_a_value_that_json_can_write_or_none(payload: bytes) -> None:
    values = feature_values(FIELDS, [pack(1, 1, payload), None])

    msgspec.json.encode([v.value for v in values.values()])


def test_ranked_list_keeps_order_and_counts() -> None:
    ranked = ranked_list(stored({"items": [["b", 0.5, 3, 6], ["a", 0.25, 1, 4]], "as_of": 9}))

    assert ranked is not None
    assert (ranked.version, ranked.event_time) == (3, 9)
    assert ranked.members == [RankedMember("b", 0.5, 3, 6), RankedMember("a", 0.25, 1, 4)]


TIMES = st.lists(st.integers(0, 100), max_size=20).map(sorted)


@given(TIMES, st.integers(0, 150), st.integers(1, 60))
def test_sequence_holds_what_is_not_older_than_its_window(times: list[int], now: int, window: int) -> None:
    value = FeatureValue("aa", 1, 1, [{"event_time": t} for t in times])

    kept = trimmed({"seq": value, "other": value}, now, {"seq": window})

    assert kept["seq"].value == [{"event_time": t} for t in times if t >= now - window]
    assert kept["other"] == value


def test_entry_without_a_time_and_other_shapes_are_left_alone() -> None:
    values = {"seq": FeatureValue("aa", 1, 1, ["a", {"b": 1}]), "mean": FeatureValue("bb", 1, 1, 0.5)}

    assert trimmed(values, 1_000, {"seq": 10, "mean": 10}) == values
