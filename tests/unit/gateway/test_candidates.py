from headrace_core.contracts import Item
from headrace_gateway.catalog.entries import NO_ITEM, ItemEntry
from headrace_gateway.catalog.snapshot import ItemSnapshot
from headrace_gateway.ranking.candidates import Wanted, best, fits, gather, is_ruled_out
from headrace_gateway.ranking.lists import Candidate, Lists, of_category, of_segment
from headrace_gateway.ranking.popularity import Evidence, score
from headrace_gateway.ranking.views import RankedMember
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = Wanted(None, None, ())
IDS = st.integers(0, 30).map(str)


def member(item: str, clicks: float, impressions: float = 0) -> RankedMember:
    return RankedMember(item, clicks, clicks, impressions)


def the_lists(segment: list[RankedMember], *categories: list[RankedMember]) -> Lists:
    return Lists(of_segment(segment), tuple(of_category("c", members) for members in categories))


def a_snapshot(*items: str, category: str = "c") -> ItemSnapshot:
    snapshot = ItemSnapshot(1_000)
    for version, item in enumerate(items):
        snapshot.apply(item, Item(item_id=item, item_type="ad", category=category, available=True), version)
    return snapshot


def test_listed_items_come_by_score_and_new_ones_fill_up() -> None:
    lists = the_lists([member("s", 3)], [member("r", 30, 60), member("x", 0, 1_000)])

    found = gather(lists, a_snapshot("old", "s", "new"), ANYTHING, 10)

    assert [c.item_id for c in found] == ["r", "s", "x", "new", "old"]
    assert [c.source for c in found] == [
        "item_click_rate_by_category", "top_ads_by_segment", "item_click_rate_by_category", "catalog", "catalog",
    ]  # fmt: skip


def test_item_in_both_lists_counts_by_both() -> None:
    lists = the_lists([member("s", 3)], [member("s", 30, 60)])

    (found,) = gather(lists, a_snapshot(), ANYTHING, 10)

    assert found.score == score(Evidence(30, 60, segment_clicks=3))
    assert found.source == "top_ads_by_segment"


@given(
    st.lists(IDS, unique=True), st.lists(IDS, unique=True), st.lists(IDS, unique=True), st.sets(IDS), st.integers(1, 20)
)
def test_candidates_are_bounded_distinct_and_never_excluded(
    segment: list[str], category: list[str], catalog: list[str], exclude: set[str], count: int
) -> None:
    lists = the_lists([member(i, 1) for i in segment], [member(i, 1, 2) for i in category])

    found = [c.item_id for c in gather(lists, a_snapshot(*catalog), Wanted(None, None, exclude), count)]

    assert len(set(found)) == len(found) <= 4 * count + 20
    assert set(found) <= {*segment, *category, *catalog} - exclude
    assert len(found) >= min(count, len({*segment, *category, *catalog} - exclude))


COUNTS = st.integers(0, 1_000)
MEMBERS = st.lists(
    st.builds(RankedMember, IDS, st.just(0.0), COUNTS, COUNTS), max_size=20, unique_by=lambda m: m.member
)


@given(MEMBERS, st.lists(MEMBERS, max_size=4))
def test_listed_items_come_once_and_by_the_score_of_all_lists_together(
    segment: list[RankedMember], categories: list[list[RankedMember]]
) -> None:
    lists = the_lists(segment, *categories)

    found = list(lists.candidates())

    every = {m.member for members in (segment, *categories) for m in members}
    assert {c.item_id for c in found} == every
    assert len(found) == len(every)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    for candidate in found:
        alone = [li.evidence[candidate.item_id] for li in lists.categories if candidate.item_id in li.evidence]
        clicks = next((m.numerator for m in segment if m.member == candidate.item_id), 0.0)
        rates = [Evidence(e.clicks, e.impressions, clicks) for e in alone or [Evidence()]]
        assert candidate.score in [score(rate) for rate in rates]


def test_listed_item_of_another_type_makes_room_for_one_that_fits() -> None:
    snapshot = a_snapshot("new")
    snapshot.apply("film", Item(item_id="film", item_type="video", category="c", available=True), 99)
    ads = [member(f"ad{n}", 50, 60) for n in range(100)]
    for n in range(100):
        snapshot.apply(f"ad{n}", Item(item_id=f"ad{n}", item_type="ad", category="c", available=True), n)

    found = gather(the_lists([], [*ads, member("film", 1, 60)]), snapshot, Wanted("video", None, ()), 5)

    assert [(c.item_id, c.source) for c in found] == [("film", "item_click_rate_by_category")]


def test_only_what_is_known_to_fit_is_recommended() -> None:
    wanted = Wanted("ad", frozenset({"shoes"}), ())

    assert fits(ItemEntry("ad", "shoes"), wanted)
    assert not fits(ItemEntry("ad", "shoes", available=False), wanted)
    assert not fits(ItemEntry("ad", "hats"), wanted)
    assert not fits(ItemEntry("goods", "shoes"), wanted)
    assert not fits(NO_ITEM, wanted)
    assert fits(NO_ITEM, ANYTHING)


def test_only_what_is_known_not_to_fit_is_left_out_of_a_ranking() -> None:
    wanted = Wanted("ad", frozenset({"shoes"}), ())

    assert not is_ruled_out(NO_ITEM, wanted)
    assert not is_ruled_out(ItemEntry("ad", "shoes", available=False), wanted)
    assert is_ruled_out(ItemEntry("ad", "hats"), wanted)
    assert is_ruled_out(ItemEntry("goods", "shoes"), wanted)


@given(st.lists(st.tuples(IDS, st.floats(0, 1)), max_size=30), st.one_of(st.none(), st.integers(1, 10)))
def test_best_are_the_highest_in_stable_order(scored: list[tuple[str, float]], count: int | None) -> None:
    candidates = [Candidate(item, "x", value) for item, value in scored]

    chosen = best(candidates, count)

    assert chosen == sorted(candidates, key=lambda c: -c.score)[:count]
    assert len(chosen) == min(len(candidates), count or len(candidates))
