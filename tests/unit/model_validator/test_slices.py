from typing import Any

from headrace_core.definitions.models import SliceBy, parse_path
from headrace_model_validator.slices import Slices

LOG: dict[str, Any] = {
    "user": {"city": "Beijing", "views": [1]},
    "context": {"hour": 7, "device": {"mobile": True}},
    "items": {"i1": {"category": "cars"}},
}
ROW = {"user_id": "u1", "page_id": "100"}


def gathered(*paths: str, items: tuple[str, ...] = ("i1",)) -> dict[str, list[int]]:
    slices = Slices([SliceBy(p, parse_path(p)) for p in paths])
    for item in items:
        slices.add(ROW, item, LOG)
    return {name: at.tolist() for name, at in slices.places().items()}


def test_any_id_and_any_feature_of_user_context_and_item_makes_slices() -> None:
    found = gathered(
        "page_id", "user_id", "item_id", "user.city", "context.hour", "context.device.mobile", "item.category"
    )

    assert list(found) == [
        "context.device.mobile=true", "context.hour=7", "item.category=cars", "item_id=i1", "page_id=100",
        "user.city=Beijing", "user_id=u1",
    ]  # fmt: skip


def test_samples_are_told_apart_by_place_and_those_without_a_value_are_in_no_slice() -> None:
    assert gathered("item.category", "user.city", items=("i0", "i1", "i2", "i1")) == {
        "item.category=cars": [1, 3],
        "user.city=Beijing": [0, 1, 2, 3],
    }


def test_lists_and_what_is_missing_make_none() -> None:
    assert gathered("user.views", "user.country", "context.hour.minute") == {}


def test_features_are_needed_unless_ids_tell() -> None:
    assert not Slices([SliceBy("page_id", parse_path("page_id"))]).need_log
    assert Slices([SliceBy("user.city", parse_path("user.city"))]).need_log
