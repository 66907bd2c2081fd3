"""Whatever the batches, crashes and order: what the stream shows equals a naive computation over all events."""

from pathlib import Path
from typing import Any

from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent
from headrace_core.definitions.features import load_features
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.streams.naive_features import click_rates, distinct, last_minutes, top_ads
from tests.unit.feature_worker.pipeline import LATENESS_MS, Pipeline

FEATURES = load_features(Path(__file__).parents[3] / "definitions" / "features")
START = 1_790_000_000_000
ITEMS = [
    ("a1", "ad", "shoes"),
    ("a2", "ad", "shoes"),
    ("a3", "ad", "hats"),
    ("g1", "goods", "hats"),
    ("g2", "goods", ""),
]


@st.composite
def events(draw: st.DrawFn) -> list[BehaviorEvent]:
    """Events in the order of arrival: mostly in order, some late, some twice, some cancelled, looks told again."""
    made: list[BehaviorEvent] = []
    time = START
    for n in range(draw(st.integers(1, 60))):
        time += draw(st.sampled_from([0, 1, 300, 1_000, 9_999, 30_000, 120_000]))
        late = draw(st.sampled_from([0, 0, 0, 500, LATENESS_MS, 60_000, 700_000]))
        kind = draw(st.sampled_from(["new", "new", "new", "new", "again", "cancel", "longer"]))
        if kind == "again" and made:
            made.append(made[-1 - draw(st.integers(0, min(4, len(made) - 1)))])
            continue
        if kind == "cancel" and (old := [e for e in made if not e.corrects]):
            event = BehaviorEvent.FromString(draw(st.sampled_from(old)).SerializeToString())
            event.corrects, event.event_id = event.event_id, f"e{n}"
            made.append(event)
            continue
        views = [e for e in made if e.view_id and not e.corrects]
        if kind == "longer" and views:
            event = BehaviorEvent.FromString(draw(st.sampled_from(views)).SerializeToString())
            step = draw(st.integers(1, 20_000))
            event.event_id, event.event_time, event.dwell_ms = f"e{n}", event.event_time + step, event.dwell_ms + step
            made.append(event)
            continue
        item, item_type, category = draw(st.sampled_from(ITEMS))
        user = draw(st.integers(0, 3))
        action = draw(st.sampled_from(["impression", "impression", "click", "click", "view", "cart", "search"]))
        known = draw(st.booleans()) or draw(st.booleans())
        made.append(
            BehaviorEvent(
                event_id=f"e{n}",
                user_id=f"u{user}",
                event_time=time - late,
                ingest_time=time,
                item_id=item,
                action=ACTION_BY_NAME[action],  # type: ignore[arg-type]  # an enum is an int
                item_type=item_type,
                category=category,
                page_id=draw(st.sampled_from(["100", "200"])),
                segment={"country": "China", "gender": "male"} if known else {},
                view_id=f"v{n}" if action == "view" else "",
                dwell_ms=1_000 if action == "view" else 0,
            )
        )
    return made


@settings(max_examples=150, deadline=None)
@given(events(), st.randoms(use_true_random=False))
def test_stream_equals_naive_batch_through_any_crashes(stream: list[BehaviorEvent], rng: Any) -> None:
    pipeline = Pipeline(FEATURES)
    for event in stream:
        pipeline.send(event)
        while rng.random() > 0.6:
            stage = rng.choice(pipeline.sources + pipeline.owners)
            stage.feed(rng.randint(1, 10))
            if rng.random() > 0.4:
                crash = rng.random() > 0.7
                pipeline.checkpoint(stage, whole=rng.random() > 0.8, crash=crash, delayed=crash and rng.random() > 0.5)
            elif rng.random() > 0.8:
                stage.claim()
        if rng.random() > 0.9:
            pipeline.arrive()
    end = max(min(e.event_time, e.ingest_time) for e in stream)
    pipeline.settle(end)
    pipeline.arrive()
    pipeline.settle(end + 60_000)

    truth = distinct(stream)
    lists = pipeline.lists()
    for page in ("100", "200"):
        value = lists.get(f"top:top_ads_by_segment:China|male|{page}", {"items": []})
        known = [e for e in truth if e.segment]
        assert as_rows(value["items"]) == top_ads(known, "China", "male", page, pipeline.as_of)
    for category in ("shoes", "hats"):
        value = lists.get(f"top:item_click_rate_by_category:{category}", {"items": []})
        assert as_rows(value["items"]) == click_rates(truth, category, pipeline.as_of)
    shown = pipeline.sequences()
    for user in ("u0", "u1", "u2", "u3"):
        since = end - 300_000
        assert [e for e in shown.get(user, []) if e["event_time"] >= since] == last_minutes(truth, user, end)


def as_rows(items: list[list[Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in items]


def a_click(event_id: str, time: int = START, user: str = "u0", page: str = "100") -> BehaviorEvent:
    return BehaviorEvent(
        event_id=event_id, user_id=user, event_time=time, ingest_time=time, action=ACTION_BY_NAME["click"],  # type: ignore[arg-type]  # an enum is an int
        item_id="a1", item_type="ad", category="shoes", page_id=page, segment={"country": "China", "gender": "male"},
    )  # fmt: skip


def test_counts_of_a_dead_worker_that_arrive_late_replace_nothing() -> None:
    pipeline = Pipeline(FEATURES)
    source = pipeline.sources[0]
    pipeline.send(a_click("e1"))
    pipeline.send(a_click("e2", page="200"))
    source.feed(2)
    pipeline.checkpoint(source, crash=True, delayed=True)
    pipeline.send(a_click("e3"))
    pipeline.send(a_click("e4", page="200"))
    pipeline.settle(START)

    pipeline.arrive()
    pipeline.settle(START + 1_000)

    lists = pipeline.lists()
    assert [lists[f"top:top_ads_by_segment:China|male|{page}"]["items"][0][2] for page in ("100", "200")] == [2, 2]


def test_list_is_empty_once_its_window_has_passed() -> None:
    pipeline = Pipeline(FEATURES)
    pipeline.send(a_click("e1"))
    pipeline.settle(START)
    assert pipeline.lists()["top:top_ads_by_segment:China|male|100"]["items"] == [["a1", 1.0, 1, 0]]

    pipeline.settle(START + 700_000)

    assert pipeline.lists()["top:top_ads_by_segment:China|male|100"]["items"] == []
