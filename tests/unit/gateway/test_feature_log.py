import json
from typing import Any

import msgspec
import pytest
from headrace_core.contracts import FeatureLog, Item, User
from headrace_core.stores.redis_views import pack
from headrace_gateway.catalog.entries import ItemEntry, UserEntry, item_of, user_of
from headrace_gateway.decode import decode_body
from headrace_gateway.problem import ProblemError
from headrace_gateway.ranking.evidence import Items, Request
from headrace_gateway.ranking.feature_log import Served, encode
from headrace_gateway.ranking.features import Features
from headrace_gateway.ranking.schema import RankedAnswer, RankedItem, RecommendIn
from headrace_gateway.ranking.views import FeatureValue
from hypothesis import given
from hypothesis import strategies as st

EVENT_TIME = 1_800_000_000_000
DECODER = msgspec.json.Decoder(RecommendIn)


def served(**parts: Any) -> Served:
    ranked = RankedItem("i", 0.25, 0, "catalog")
    answer = RankedAnswer("r", [ranked], "", 0, 7, ["no_model"])
    request = parts.get("request", Request())
    features = Features(parts.get("context", {}), "p", EVENT_TIME, request, parts.get("items", Items()))
    return Served(answer, "u", "p", EVENT_TIME, features, request.missing)


def logged(whole: Served) -> FeatureLog:
    record = encode(whole)
    assert record.key == whole.user_id.encode()
    return FeatureLog.FromString(record.value)


def test_features_are_those_that_were_read() -> None:
    request = Request(UserEntry({"country": "China"}), {"f": FeatureValue("d", 1, 1, [{"item_id": "x"}])})
    items = Items(
        {"i": ItemEntry("ad", "shoes", attributes={"price": "3"})}, {"i": {"g": FeatureValue("d", 1, 1, 0.5)}}
    )

    log = logged(served(request=request, items=items))

    assert json.loads(log.user_features) == {"country": "China", "f": [{"item_id": "x"}]}
    assert json.loads(log.items[0].features) == {"price": "3", "item_type": "ad", "category": "shoes", "g": 0.5}


def test_item_nobody_knows_has_no_features() -> None:
    assert logged(served()).items[0].features == b"{}"


def test_page_and_hour_of_the_request_can_not_be_told_otherwise() -> None:
    log = logged(served(context={"page_id": "x", "hour": 99, "device": "tv"}))

    assert json.loads(log.context_features) == {"page_id": "p", "hour": 8, "device": "tv"}


def test_what_was_missing_is_told_with_its_reason() -> None:
    request = Request(missing=[("user features", "redis_unavailable: x")])

    log = logged(served(request=request))

    assert [(f.what, f.reason) for f in log.fallbacks] == [
        ("model", "no_model"),
        ("user features", "redis_unavailable: x"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_context_that_is_taken_can_be_logged(context: dict[str, Any]) -> None:
    body = json.dumps({"user_id": "u", "page_id": "p", "context": context}).encode()
    try:
        asked = decode_body(DECODER, body)
    except ProblemError:
        return

    assert json.loads(logged(served(context=asked.context)).context_features).keys() == {*context, "page_id", "hour"}


@pytest.mark.parametrize("number", [2**70, -(2**70), 1e308, 5e-324])
def test_numbers_of_any_size_can_be_logged(number: float) -> None:
    assert json.loads(logged(served(context={"n": number})).context_features)["n"] == number


@given(st.binary(max_size=60))
def test_any_bytes_are_a_catalog_entry_or_none(payload: bytes) -> None:
    user, item = user_of(pack(1, 1, payload)), item_of(pack(1, 1, payload))

    logged(served(request=Request(user), items=Items({"i": item})))


@pytest.mark.parametrize("raw", [None, b"", b"x" * 16])
def test_absent_entry_is_unknown(raw: bytes | None) -> None:
    assert user_of(raw).segment == {}
    assert not item_of(raw).known


def test_entries_are_read_as_the_catalog_writes_them() -> None:
    user = User(user_id="u", country="China", attributes={"tier": "1", "country": "no"}).SerializeToString()
    item = Item(item_id="i", item_type="ad", category="c", available=False, attributes={"a": "b"}).SerializeToString()

    assert user_of(pack(1, 1, user)).segment == {"country": "China", "tier": "1"}
    assert item_of(pack(1, 1, item)) == ItemEntry("ad", "c", available=False, attributes={"a": "b"})
