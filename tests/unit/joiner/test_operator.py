"""What the operator does in the cases that matter, one at a time."""

from typing import Any

import pytest
from headrace_core.contracts import BehaviorEvent, FeatureLog
from headrace_core.runtime.operator import Batch, Output
from headrace_sample_joiner.joiner.effects import Correction, Counts, Evidence, Revived, Version
from headrace_sample_joiner.joiner.operator import BEHAVIOR, LOGS

from tests.unit.joiner.driver import HORIZON, LATENESS, WINDOW, an_operator, feed, let_pass
from tests.unit.joiner.events import (
    CART,
    CLICK,
    START,
    ARecord,
    a_cancellation,
    a_cart,
    a_click,
    a_log,
    a_request,
    an_impression,
    passing_time,
)
from tests.unit.joiner.naive import hash_of

REQUEST = a_request()
RETIRED = WINDOW + 3 * LATENESS


def versions(effects: list[Any]) -> list[tuple[str, int, int, int]]:
    """(item, previous label, label, version) of each published version."""
    return [(e.item_id, e.previous, e.label, e.version) for e in effects if isinstance(e, Version)]


def told(effects: list[Any], kind: type[Any]) -> list[Any]:
    return [e for e in effects if isinstance(e, kind)]


def test_click_makes_an_impression_positive_at_once() -> None:
    effects = feed(an_operator(), a_log(REQUEST), an_impression(REQUEST), a_click(REQUEST, at=100))

    assert versions(effects) == [("a", 0, CLICK, 1)]


def test_impression_without_action_is_negative_when_its_window_is_over_and_not_before() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST))

    before = let_pass(operator, WINDOW - 1)
    after = let_pass(operator, WINDOW)

    assert versions(before) == []
    assert versions(after) == [("a", 0, 0, 1)]


def test_click_after_the_window_turns_a_published_negative_positive() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST))
    let_pass(operator, WINDOW)

    effects = feed(operator, a_click(REQUEST, at=WINDOW + 1))

    assert versions(effects) == [("a", 0, CLICK, 2)]
    assert told(effects, Counts) == [Counts(positive=1, negative=-1, corrected=1)]


def test_cancellation_takes_a_published_positive_back() -> None:
    operator = an_operator()
    click = a_click(REQUEST, at=100)
    feed(operator, a_log(REQUEST), an_impression(REQUEST), click)

    effects = feed(operator, a_cancellation(click, at=200))

    assert versions(effects) == [("a", CLICK, 0, 2)]
    assert told(effects, Counts) == [Counts(positive=-1, negative=1, corrected=1)]


def test_cancellation_that_overtakes_its_click_cancels_it() -> None:
    operator = an_operator()
    click = a_click(REQUEST, at=100)

    effects = feed(operator, a_log(REQUEST), an_impression(REQUEST), a_cancellation(click, at=200), click)

    assert versions(effects) == []
    assert versions(let_pass(operator, WINDOW)) == [("a", 0, 0, 1)]


def test_bit_stands_as_long_as_one_of_its_clicks_does() -> None:
    first, second = a_click(REQUEST, at=100, name="c1"), a_click(REQUEST, at=200, name="c2")
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST), first, second)

    assert versions(feed(operator, a_cancellation(first, at=300))) == []
    assert versions(feed(operator, a_cancellation(second, at=400))) == [("a", CLICK, 0, 2)]


def test_another_action_sets_its_own_bit_and_moves_no_count_between_the_labels() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST), a_click(REQUEST, at=100))

    effects = feed(operator, a_cart(REQUEST, at=200))

    assert versions(effects) == [("a", CLICK, CLICK | CART, 2)]
    assert told(effects, Counts) == [Counts(corrected=1)]


def test_action_before_its_impression_waits_for_it() -> None:
    effects = feed(an_operator(), a_click(REQUEST, at=100), a_log(REQUEST), an_impression(REQUEST))

    assert versions(effects) == [("a", 0, CLICK, 1)]


def test_page_is_the_impressions_even_if_an_action_of_another_page_came_first() -> None:
    effects = feed(an_operator(), a_click(REQUEST, at=100, page="detail"), a_log(REQUEST), an_impression(REQUEST))

    assert [v.page_id for v in told(effects, Version)] == ["home"]


def test_log_gates_publication_and_the_whole_history_is_told_when_it_comes() -> None:
    operator = an_operator()
    click = a_click(REQUEST, at=100)
    silent = feed(operator, an_impression(REQUEST), click, a_cancellation(click, at=200))

    effects = feed(operator, a_log(REQUEST))

    assert versions(silent) == []
    assert versions(effects) == [("a", 0, CLICK, 1), ("a", CLICK, 0, 2)]


def test_impression_without_log_is_an_orphan_until_a_late_log_repairs_it() -> None:
    operator = an_operator()
    feed(operator, an_impression(REQUEST))

    orphaned = let_pass(operator, 10 * WINDOW)
    repaired = feed(operator, a_log(REQUEST))

    assert told(orphaned, Counts) == [Counts(pending=-1, orphaned=1)]
    assert versions(repaired) == [("a", 0, 0, 1)]
    assert told(repaired, Counts) == [Counts(orphaned=-1, joined=1, negative=1)]


def test_log_input_that_lags_loses_nothing_however_far_the_events_lead() -> None:
    operator = an_operator()
    feed(operator, an_impression(REQUEST), passing_time(3 * HORIZON), logs_lag=True)

    effects = feed(operator, a_log(REQUEST), logs_lag=True)

    assert versions(effects) == [("a", 0, 0, 1)]


def test_orphan_is_forgotten_at_the_horizon() -> None:
    operator = an_operator()
    feed(operator, an_impression(REQUEST))
    let_pass(operator, HORIZON)

    effects = feed(operator, a_log(REQUEST))

    assert versions(effects) == []


def test_log_whose_items_were_never_shown_expires_counted() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST))

    assert told(let_pass(operator, WINDOW + 2 * LATENESS), Counts) == [Counts(expired_logs=1)]


def test_item_shown_long_after_the_request_still_gets_its_whole_window() -> None:
    shown_at = WINDOW // 2
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST, "a"), an_impression(REQUEST, "b", at=shown_at))

    assert versions(let_pass(operator, shown_at + WINDOW - 1)) == [("a", 0, 0, 1)]
    assert versions(let_pass(operator, 10 * WINDOW)) == [("b", 0, 0, 1)]


def test_impression_behind_the_watermark_still_gets_its_grace() -> None:
    operator = an_operator()
    now = WINDOW + LATENESS
    feed(operator, a_log(REQUEST), passing_time(now + LATENESS), an_impression(REQUEST))

    assert versions(let_pass(operator, now + LATENESS - 1)) == []
    assert versions(let_pass(operator, now + LATENESS)) == [("a", 0, 0, 1)]


def test_repeated_event_and_repeated_impression_are_counted_as_duplicates() -> None:
    operator = an_operator()

    effects = feed(
        operator,
        an_impression(REQUEST, name="e1"),
        an_impression(REQUEST, name="e1"),
        an_impression(REQUEST, name="e2"),
    )

    assert told(effects, Counts) == [Counts(impressions=3, duplicate=2, pending=1)]


def test_retired_request_leaves_what_backs_its_labels_to_the_store() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST), a_click(REQUEST, at=100))

    effects = let_pass(operator, RETIRED)

    assert told(effects, Evidence) == [Evidence(REQUEST, "a", CLICK, hash_of("click"), cancelled=False)]


def test_action_after_retirement_is_for_the_store_to_decide() -> None:
    operator = an_operator()
    feed(operator, a_log(REQUEST), an_impression(REQUEST))
    let_pass(operator, RETIRED)

    effects = feed(operator, a_click(REQUEST, at=RETIRED))

    evidence = Evidence(REQUEST, "a", CLICK, hash_of("click"), cancelled=False)
    assert told(effects, Correction) == [Correction(evidence, START + RETIRED)]
    assert told(effects, Counts) == []


def test_action_that_waited_in_vain_for_its_impression_goes_to_the_store() -> None:
    operator = an_operator()
    feed(operator, a_click(REQUEST, at=100))

    effects = let_pass(operator, RETIRED)

    evidence = Evidence(REQUEST, "a", CLICK, hash_of("click"), cancelled=False)
    assert told(effects, Correction) == [Correction(evidence, START + 100)]


def test_impression_after_retirement_is_for_the_store_to_decide_with_what_backs_it() -> None:
    operator = an_operator()
    let_pass(operator, RETIRED)
    feed(operator, an_impression(REQUEST), a_click(REQUEST, at=100))

    effects = let_pass(operator, RETIRED + LATENESS)

    [revived], [correction] = told(effects, Revived), told(effects, Correction)
    assert (revived.version.label, revived.version.log, revived.repairs) == (CLICK, b"", False)
    assert correction.evidence == Evidence(REQUEST, "a", CLICK, hash_of("click"), cancelled=False)


def test_log_after_a_revived_impression_is_told_as_its_repair() -> None:
    operator = an_operator()
    let_pass(operator, RETIRED)
    feed(operator, an_impression(REQUEST))
    let_pass(operator, RETIRED + LATENESS)
    log = a_log(REQUEST)

    effects = feed(operator, log)

    [revived] = told(effects, Revived)
    assert (revived.version.log, revived.repairs) == (log.SerializeToString(), True)


@pytest.mark.parametrize("request_id", ["", "not-a-uuid", "018bcfe5-6800-4000-8000-000000000000", REQUEST.upper()])
def test_impression_of_no_request_of_ours_is_an_orphan_for_good(request_id: str) -> None:
    effects = feed(an_operator(), an_impression(request_id, name="e1"))

    assert told(effects, Counts) == [Counts(impressions=1, orphaned=1)]


def test_action_without_a_request_is_organic() -> None:
    assert told(feed(an_operator(), a_click("", at=1)), Counts) == [Counts(organic=1)]


def test_action_further_from_its_request_than_the_horizon_is_unattributed() -> None:
    assert told(feed(an_operator(), a_click(REQUEST, at=HORIZON + 1)), Counts) == [Counts(unattributed=1)]


def test_client_with_a_wrong_clock_closes_no_window() -> None:
    operator = an_operator()
    wrong = passing_time(100 * WINDOW)
    wrong.ingest_time = START + 1

    effects = feed(operator, a_log(REQUEST), an_impression(REQUEST), wrong)

    assert versions(effects) == []


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (BEHAVIOR, b"\xff", "not a BehaviorEvent"),
        (BEHAVIOR, BehaviorEvent(event_id="e1").SerializeToString(), "incomplete"),
        (BEHAVIOR, an_impression(REQUEST, "a\0b").SerializeToString(), "incomplete"),
        (LOGS, b"\xff", "not a FeatureLog"),
        (LOGS, a_log("r1").SerializeToString(), "incomplete"),
        (LOGS, a_log(REQUEST, user=b'{"age":').SerializeToString(), "not JSON"),
        (LOGS, a_log(REQUEST, user=b'{"name":"\xff"}').SerializeToString(), "not JSON"),
        (LOGS, a_log(REQUEST, user=b"[1]").SerializeToString(), "not JSON"),
        (LOGS, a_log(REQUEST, user=b'{"name":"\\u0000"}').SerializeToString(), "not JSON"),
    ],
)
def test_record_that_nobody_can_use_is_rejected_with_a_reason(topic: str, value: bytes, reason: str) -> None:
    out = Output()

    an_operator().process(Batch(topic, 0, [ARecord(value)]), out)

    assert [r.reason.split(":")[0] for r in out.rejected] == [reason]


@pytest.mark.parametrize(
    ("topic", "message"), [(BEHAVIOR, passing_time(1_234)), (LOGS, a_log(a_request(made_at=1_234)))]
)
def test_each_input_tells_its_time(topic: str, message: BehaviorEvent | FeatureLog) -> None:
    out = Output()

    an_operator().process(Batch(topic, 0, [ARecord(message.SerializeToString())]), out)

    assert out.observed == START + 1_234


def test_action_on_a_revived_orphan_is_for_the_store_to_decide() -> None:
    operator = an_operator()
    let_pass(operator, RETIRED)
    feed(operator, an_impression(REQUEST))
    let_pass(operator, RETIRED + LATENESS)

    effects = feed(operator, a_click(REQUEST, at=RETIRED))

    evidence = Evidence(REQUEST, "a", CLICK, hash_of("click"), cancelled=False)
    assert told(effects, Correction) == [Correction(evidence, START + RETIRED)]
