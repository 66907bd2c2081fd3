"""Columns: the same from a request and from its samples, and as docs/learning.md tells them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headrace_core.contracts import Sample
from headrace_core.definitions.models import load_models
from headrace_core.learning.inputs import Columns, InputColumns, hash_id, held_out
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

MODEL = load_models(Path(__file__).resolve().parents[3] / "definitions" / "models")["ctr"]
COLUMNS = InputColumns(MODEL.inputs)
USER = {"country": "China", "city": "Shanghai", "gender": "male",
        "user_last_5_minutes": [{"item_id": "2001", "action": "view"}, {"item_id": "2002", "action": "click"}]}  # fmt: skip
CONTEXT = {"page_id": "100", "hour": 7}
ITEM = {
    "category": "cars",
    "item_type": "ad",
    "click_rate": {"rate": 0.25, "clicks": 5, "impressions": 20},
    "segment_rank": 1,
}


def of_one(user: dict[str, Any] = USER, context: dict[str, Any] = CONTEXT, item: dict[str, Any] = ITEM) -> Columns:
    return COLUMNS.from_request(user, context, "4", "100", [("2002", item)])


def samples(user: Any, context: Any, items: list[tuple[str, Any]], request_id: str = "r") -> list[Sample]:
    return [
        Sample(
            request_id=request_id, user_id="4", page_id="100", item_id=item_id,
            features=json.dumps({"user": user, "context": context, "item": features}).encode(),
        )
        for item_id, features in items
    ]  # fmt: skip


def assert_equal(one: Columns, other: Columns) -> None:
    assert list(one) == list(other)
    for name, column in one.items():
        assert column.dtype == other[name].dtype, name
        np.testing.assert_array_equal(column, other[name], err_msg=name)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text()),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.sampled_from(["rate", "item_id", "x"]), v, max_size=3),
    max_leaves=6,
)
USERS = st.dictionaries(st.sampled_from(["country", "city", "gender", "user_last_5_minutes"]), VALUES)
ITEMS = st.lists(
    st.tuples(
        st.text(min_size=1), st.dictionaries(st.sampled_from(["category", "click_rate", "segment_rank"]), VALUES)
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(USERS, st.dictionaries(st.just("hour"), VALUES), ITEMS)
def test_request_and_its_samples_give_the_same(
    user: dict[str, Any], context: dict[str, Any], items: list[tuple[str, Any]]
) -> None:
    user, context, items = json.loads(json.dumps([user, context, items]).replace("NaN", "0.5").replace("Infinity", "7"))

    served = COLUMNS.from_request(user, context, "4", "100", [(i, f) for i, f in items])

    assert_equal(served, COLUMNS.from_samples(samples(user, context, items)))


def test_samples_of_several_requests_keep_their_order_and_their_own_users() -> None:
    first, second = (
        samples(USER, CONTEXT, [("1", ITEM), ("2", ITEM)], "a"),
        samples({"city": "Beijing"}, CONTEXT, [("3", {})], "b"),
    )

    columns = COLUMNS.from_samples([first[0], second[0], first[1]])

    cities = [hash_id("city", c) for c in ("Shanghai", "Beijing", "Shanghai")]
    assert columns["city"].tolist() == cities
    assert columns["item_id"].tolist() == [hash_id("item_id", i) for i in ("1", "3", "2")]


def test_id_is_the_signed_hash_of_table_and_text() -> None:
    column = of_one()["city"]

    assert column.dtype == np.int64
    assert column.view(np.uint64).tolist() == [xxh3_64_intdigest(b"city=Shanghai")]


@pytest.mark.parametrize("value", [None, "", [], {}, ["Shanghai"]])
def test_value_that_is_missing_or_no_scalar_is_0(value: Any) -> None:
    assert of_one(user={"city": value})["city"].tolist() == [0]


def test_numbers_that_json_does_not_tell_apart_are_one_id() -> None:
    assert hash_id("hour", 7) == hash_id("hour", 7.0) == hash_id("hour", "7") != hash_id("hour", 7.5)


def test_list_is_newest_first_padded_and_shares_its_table() -> None:
    column = of_one()["recent_items"]

    assert column.shape == (1, 20)
    assert column[0, :2].tolist() == [hash_id("item_id", "2002"), hash_id("item_id", "2001")]
    assert not column[0, 2:].any()


def test_long_list_keeps_its_newest() -> None:
    column = of_one(user={"user_last_5_minutes": [{"item_id": str(n)} for n in range(30)]})["recent_items"]

    assert column[0].tolist() == [hash_id("item_id", str(n)) for n in range(29, 9, -1)]


def test_number_that_is_missing_or_not_finite_is_its_default() -> None:
    for rate in (None, "0.5", float("nan"), float("inf"), 1e300):
        assert of_one(item={"click_rate": {"rate": rate}})["click_rate"].tolist() == [np.float32(0.02)]
    assert of_one()["click_rate"].tolist() == [0.25]


def test_cross_tells_its_parts_and_their_order_apart_and_is_0_without_one() -> None:
    here, there = of_one()["city_item"][0], of_one(user=USER | {"city": "Beijing"})["city_item"][0]

    assert here
    assert here != there
    assert of_one(user={})["city_item"].tolist() == [0]
    swapped = COLUMNS.from_request({"city": "2002"}, {}, "4", "100", [("Shanghai", {})])["city_item"][0]
    assert swapped != here


def test_user_part_is_the_same_for_every_item() -> None:
    columns = COLUMNS.from_request(USER, CONTEXT, "4", "100", [("1", ITEM), ("2", {}), ("3", {})])

    assert columns["city"].tolist() == [hash_id("city", "Shanghai")] * 3
    assert columns["recent_items"].shape == (3, 20)
    assert columns["item_type"].tolist() == [hash_id("item_type", "ad"), 0, 0]


def test_no_items_give_empty_columns() -> None:
    assert {len(c) for c in COLUMNS.from_request(USER, CONTEXT, "4", "100", []).values()} == {0}
    assert {len(c) for c in COLUMNS.from_samples([]).values()} == {0}


def test_one_request_in_twenty_is_held_out() -> None:
    share = sum(held_out(f"request-{n}", 20) for n in range(20_000)) / 20_000

    assert 0.045 < share < 0.055
