"""The subset of SQL, against its documented meaning: NULL is unknown, and only what is true counts."""

import pytest
from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent
from headrace_core.definitions.expressions import ExpressionError, compile_key, compile_predicate


def an_event(action: str = "click", **fields: object) -> BehaviorEvent:
    return BehaviorEvent(action=ACTION_BY_NAME[action], **fields)  # type: ignore[arg-type]  # fields of the message


SHOES = an_event(
    category="shoes", item_type="ad", dwell_ms=1_500, segment={"country": "China"}, attributes={"os": "ios"}
)
BARE = an_event("search", query="boots")


@pytest.mark.parametrize(
    ("text", "of_shoes", "of_bare"),
    [
        ("action = 'click'", True, False),
        ("action <> 'click'", False, True),
        ("action IN ('click', 'search')", True, True),
        ("action NOT IN ('impression', 'search')", True, False),
        ("category = 'shoes'", True, False),
        ("'shoes' = category", True, False),
        ("category <> 'shoes'", False, False),  # of NULL nothing is known
        ("NOT category = 'shoes'", False, False),
        ("NOT (category = 'hats')", True, False),
        ("category <> ''", True, False),
        ("category = ''", False, False),
        ("category IS NULL", False, True),
        ("category IS NOT NULL", True, False),
        ("category IN ('shoes', 'hats')", True, False),
        ("category NOT IN ('hats')", True, False),
        ("segment.country = 'China'", True, False),
        ("segment.country <> 'Japan'", True, False),
        ("attributes.os = 'ios' AND item_type = 'ad'", True, False),
        ("category = 'hats' OR query = 'boots'", False, True),
        ("NOT (category = 'hats' OR query = 'boots')", False, False),
        ("dwell_ms >= 1500", True, False),
        ("1000 < dwell_ms", True, False),
        ("NOT dwell_ms > 1000", False, True),
        ("dwell_ms IS NULL", False, False),
        ("TRUE", True, True),
        ("NOT TRUE", False, False),
    ],
)
def test_condition_counts_what_is_true(text: str, *, of_shoes: bool, of_bare: bool) -> None:
    holds = compile_predicate(text)

    assert (holds(SHOES), holds(BARE)) == (of_shoes, of_bare)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("action = 'clack'", "no such action: clack"),
        ("colour = 'red'", "no such column: colour"),
        ("segment.a-b = 'x'", "want a column"),
        ("action > 'click'", "actions have no order"),
        ("category = 5", "want a text"),
        ("dwell_ms = 'long'", "want a number"),
        ("category = item_id", "want a literal"),
        ("category LIKE 's%'", "not supported here"),
        ("lower(category) = 'shoes'", "want a column"),
        ("category IN (SELECT 1)", "want"),
        ("category = ", "not SQL"),
        ("action = 'click' AND", "not SQL"),
        ("__import__('os') = 'x'", "want a column"),
        ("segment.__class__ = 'x'", None),
    ],
)
def test_text_outside_of_the_subset_is_refused_with_its_reason(text: str, reason: str | None) -> None:
    if reason is None:  # a key like any other: it is looked up, never executed
        assert not compile_predicate(text)(SHOES)
        return
    with pytest.raises(ExpressionError, match=reason):
        compile_predicate(text)


def test_literal_is_never_executed() -> None:
    holds = compile_predicate("category = '''); raise SystemExit('")

    assert not holds(SHOES)


def test_key_is_nothing_when_a_column_is_null() -> None:
    key = compile_key(["segment.country", "category"])

    assert (key(SHOES), key(BARE)) == (("China", "shoes"), None)


def test_key_of_one_column_is_a_tuple() -> None:
    key = compile_key(["category"])

    assert (key(SHOES), key(BARE)) == (("shoes",), None)


@pytest.mark.parametrize("columns", [["colour"], ["dwell_ms"], ["action"]])
def test_key_is_made_of_texts(columns: list[str]) -> None:
    with pytest.raises(ExpressionError):
        compile_key(columns)
