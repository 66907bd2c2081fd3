import random
from typing import NamedTuple

from headrace_core.contracts import Item
from headrace_gateway.catalog.snapshot import ItemSnapshot
from hypothesis import given
from hypothesis import strategies as st


class Entry(NamedTuple):
    item: str
    kind: str
    category: str
    available: bool
    removed: bool

    def message(self) -> Item | None:
        if self.removed:
            return None
        return Item(item_id=self.item, item_type=self.kind, category=self.category, available=self.available)


WORDS = st.sampled_from("abc")
HISTORIES = st.lists(st.builds(Entry, WORDS, WORDS, WORDS, st.booleans(), st.booleans()), max_size=30)


def in_order(snapshot: ItemSnapshot, kind: str | None = None, categories: set[str] | None = None) -> list[str]:
    return list(snapshot.newest(kind, categories))


@given(HISTORIES, st.integers(0, 10_000))
def test_snapshot_holds_the_newest_entries_whatever_order_they_come_in(history: list[Entry], seed: int) -> None:
    snapshot = ItemSnapshot(100)
    arrivals = list(enumerate(history)) * 2
    random.Random(seed).shuffle(arrivals)

    for version, entry in arrivals:
        snapshot.apply(entry.item, entry.message(), version)

    last = {entry.item: entry for entry in history}
    available = {e.item: e for e in last.values() if e.available and not e.removed}
    assert len(snapshot) == len(available)
    for kind in (None, *"abc"):
        for categories in (None, {"a"}, {"a", "b"}, set[str]()):
            wanted = {
                e.item
                for e in available.values()
                if kind in {None, e.kind} and (categories is None or e.category in categories)
            }
            found = in_order(snapshot, kind, categories)
            assert (set(found), len(found)) == (wanted, len(wanted))
    for item, entry in last.items():
        standing = snapshot.standing(item)
        assert standing is not None
        assert standing.available == (item in available)
        if item in available:
            assert (standing.item_type, standing.category) == (entry.kind, entry.category)


def test_newest_come_first_and_no_group_crowds_out_another() -> None:
    snapshot = ItemSnapshot(100)
    for n in range(5):
        snapshot.apply(f"ad{n}", Item(item_type="ad", category="c", available=True), n)
    snapshot.apply("video", Item(item_type="video", category="c", available=True), 9)

    assert in_order(snapshot) == ["ad4", "video", "ad3", "ad2", "ad1", "ad0"]


def test_full_snapshot_leaves_new_items_out_and_still_follows_the_others() -> None:
    snapshot = ItemSnapshot(1)
    snapshot.apply("a", Item(item_type="x", available=True), 1)

    snapshot.apply("b", Item(item_type="x", available=True), 2)
    snapshot.apply("a", Item(item_type="y", available=True), 3)

    assert in_order(snapshot) == ["a"]
    assert snapshot.standing("b") is None
    assert in_order(snapshot, "y") == ["a"]


def test_categories_come_by_size_without_the_nameless() -> None:
    snapshot = ItemSnapshot(100)
    for n, category in enumerate(["b", "a", "c", "c", "", "", ""]):
        snapshot.apply(str(n), Item(item_type="x", category=category, available=True), n)

    assert snapshot.categories(None, 10) == ["c", "a", "b"]
    assert snapshot.categories("x", 1) == ["c"]
    assert snapshot.categories("other", 10) == []
