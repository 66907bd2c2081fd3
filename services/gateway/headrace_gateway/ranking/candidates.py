"""Which items are looked at for a request, and which of them may be returned. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from headrace_gateway.catalog.entries import ItemEntry
from headrace_gateway.catalog.snapshot import ItemSnapshot
from headrace_gateway.ranking.lists import Candidate, Lists
from headrace_gateway.ranking.popularity import NOTHING_KNOWN, score

CATALOG: Final = "catalog"
CANDIDATES: Final = "candidates"

_NEW: Final = score(NOTHING_KNOWN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for.

    Attributes:
        item_type: only this; None for any.
        categories: only these; None for any.
        exclude: never these.
    """

    item_type: str | None
    categories: frozenset[str] | None
    exclude: Collection[str]


def gather(lists: Lists, snapshot: ItemSnapshot, wanted: Wanted, count: int) -> list[Candidate]:
    """Candidates, best first: those of the ranked lists, then new items of the catalog to fill up.

    More than `count` come back, since some may prove unavailable: bounded by 4 * count + 20.
    """
    fitting = (
        c
        for c in lists.candidates()
        if c.item_id not in wanted.exclude and snapshot.may_be(c.item_id, wanted.item_type, wanted.categories)
    )
    listed = list(islice(fitting, 3 * count + 20))
    taken = {c.item_id for c in listed}
    fresh = (
        Candidate(item, CATALOG, _NEW)
        for item in snapshot.newest(wanted.item_type, wanted.categories)
        if item not in taken and item not in wanted.exclude
    )
    return [*listed, *islice(fresh, count)]


def fits(entry: ItemEntry, wanted: Wanted) -> bool:
    """Whether a recommendation may hold the item: available, and known to be of the wanted type and category."""
    return (
        entry.available
        and wanted.item_type in (None, entry.item_type)
        and (wanted.categories is None or entry.category in wanted.categories)
    )


def is_ruled_out(entry: ItemEntry, wanted: Wanted) -> bool:
    """Whether a caller's own candidate is left out: only when the catalog says that it is of another type or category."""
    return entry.known and not (
        wanted.item_type in (None, entry.item_type)
        and (wanted.categories is None or entry.category in wanted.categories)
    )


def best(candidates: Iterable[Candidate], count: int | None) -> list[Candidate]:
    """The best by score; equal ones stay in the order they came, so an answer is the same each time."""
    return sorted(candidates, key=lambda c: -c.score)[:count]
