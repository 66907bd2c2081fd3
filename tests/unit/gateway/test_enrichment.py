import json

import msgspec
import pytest
from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent, Enrichment
from headrace_gateway.catalog.entries import ItemEntry, UserEntry
from headrace_gateway.catalog.lookup import Known
from headrace_gateway.events.ingest import encode
from headrace_gateway.events.schema import EventIn
from hypothesis import given
from hypothesis import strategies as st

KNOWN = Known(
    {"u": UserEntry({"country": "China", "gender": "male", "tier": "gold"})},
    {"i": ItemEntry(item_type="ad", category="shoes")},
)
COMPLETE = Enrichment.ENRICHMENT_COMPLETE


def an_event(**fields: object) -> EventIn:
    event = {"event_id": "e", "user_id": "u", "event_time": 5, "action": "click", "item_id": "i", **fields}
    return msgspec.convert(event, EventIn)


def on_the_wire(event: EventIn, known: Known = KNOWN) -> BehaviorEvent:
    return BehaviorEvent.FromString(encode(event, 7, known, COMPLETE))


def test_catalog_tells_segment_category_and_type() -> None:
    event = on_the_wire(an_event())

    assert dict(event.segment) == {"country": "China", "gender": "male", "tier": "gold"}
    assert (event.category, event.item_type) == ("shoes", "ad")
    assert (event.ingest_time, event.enrichment) == (7, COMPLETE)


def test_what_the_client_tells_goes_before_the_catalog() -> None:
    event = on_the_wire(an_event(category="boots", item_type="goods", segment={"country": "France"}))

    assert (event.category, event.item_type) == ("boots", "goods")
    assert dict(event.segment) == {"country": "France", "gender": "male", "tier": "gold"}


def test_catalog_entry_is_not_changed_by_an_event() -> None:
    on_the_wire(an_event(segment={"country": "France"}))

    assert KNOWN.users["u"].segment["country"] == "China"


def test_unknown_user_and_item_stay_empty() -> None:
    event = on_the_wire(an_event(user_id="x", item_id="y"))

    assert not event.segment
    assert (event.category, event.item_type) == ("", "")


@pytest.mark.parametrize("action", ACTION_BY_NAME)
def test_every_action_has_its_number(action: str) -> None:
    assert on_the_wire(an_event(action=action)).action == ACTION_BY_NAME[action]


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.fixed_dictionaries(dict.fromkeys(("page_id", "request_id", "view_id", "query", "corrects"), WORDS)),
       st.dictionaries(WORDS, WORDS, max_size=5), st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))  # fmt: skip
def test_what_was_sent_arrives(words: dict[str, str], attributes: dict[str, str], dwell: int, position: int) -> None:
    sent = an_event(**words, attributes=attributes, dwell_ms=dwell, position=position)

    arrived = on_the_wire(msgspec.json.decode(json.dumps(msgspec.to_builtins(sent)), type=EventIn))

    assert {name: getattr(arrived, name) for name in words} == words
    assert dict(arrived.attributes) == attributes
    assert (arrived.dwell_ms, arrived.position) == (dwell, position)
