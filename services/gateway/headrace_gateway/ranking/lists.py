"""Ranked lists as requests use them. Pure.

A list is prepared once, when it is read, and serves every request until it is read again: scoring all members of twenty lists
anew cost a recommendation ten times as much as everything else.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace_gateway.catalog.entries import NO_ITEM, ItemEntry
from headrace_gateway.ranking.popularity import NOTHING_KNOWN, Evidence, score
from headrace_gateway.ranking.views import RankedMember

#: Ranked lists that bring candidates and counts; definitions/features/ ships both.
SEGMENT_LIST: Final = "top_ads_by_segment"
CATEGORY_LIST: Final = "item_click_rate_by_category"

#: The segment's list holds nothing else, see definitions/features/top_ads_by_segment.yaml.
_SEGMENT_LIST_TYPE: Final = "ad"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that may be returned.

    Attributes:
        item_id: which.
        source: who brought it.
        score: probability of a click by popularity.
        implied: what the source itself says of the item, for one the catalog does not know.
    """

    item_id: str
    source: str
    score: float
    implied: ItemEntry = NO_ITEM


@dataclass(frozen=True, slots=True)
class ListedItems:
    """The members of one list.

    Attributes:
        evidence: what the list says of each.
        best: each as a candidate by this list alone, best first.
        features: what a model is told of each.
    """

    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    best: tuple[Candidate, ...] = ()
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NOTHING_LISTED: Final = ListedItems()


def of_segment(members: Sequence[RankedMember]) -> ListedItems:
    """Items by clicks of a segment."""
    evidence = {m.member: Evidence(segment_clicks=m.numerator or m.score) for m in members}
    features = {m.member: {"segment_rank": rank} for rank, m in enumerate(members, start=1)}
    return _listed(evidence, SEGMENT_LIST, ItemEntry(_SEGMENT_LIST_TYPE, known=False), features)


def of_category(category: str, members: Sequence[RankedMember]) -> ListedItems:
    """Items by click rate of a category."""
    evidence = {m.member: Evidence(m.numerator, m.denominator) for m in members}
    features = {
        m.member: {"click_rate": {"rate": m.score, "clicks": m.numerator, "impressions": m.denominator}}
        for m in members
    }
    return _listed(evidence, CATEGORY_LIST, ItemEntry(category=category, known=False), features)


def _listed(
    evidence: dict[str, Evidence], source: str, implied: ItemEntry, features: Mapping[str, Mapping[str, Any]]
) -> ListedItems:
    candidates = (Candidate(item, source, score(e), implied) for item, e in evidence.items())
    return ListedItems(evidence, tuple(sorted(candidates, key=_worse)), features)


def _worse(candidate: Candidate) -> float:
    return -candidate.score


@dataclass(frozen=True, slots=True)
class Lists:
    """The ranked lists of a request.

    Attributes:
        segment: what the user's segment clicks on the page.
        categories: items by click rate, a list for each category.
    """

    segment: ListedItems = NOTHING_LISTED
    categories: tuple[ListedItems, ...] = ()

    def evidence(self, item_id: str) -> Evidence:
        """What the lists say of an item together."""
        rate = NOTHING_KNOWN
        for listed in self.categories:
            if item_id in listed.evidence:
                rate = listed.evidence[item_id]
                break
        segment = self.segment.evidence.get(item_id)
        return rate if segment is None else Evidence(rate.clicks, rate.impressions, segment.segment_clicks)

    def features(self, item_id: str) -> dict[str, Any]:
        """What a model is told of an item from the lists; nothing of one that is not listed."""
        found: dict[str, Any] = {}
        for listed in self.categories:
            if item_id in listed.features:
                found.update(listed.features[item_id])
                break
        found.update(self.segment.features.get(item_id, {}))
        return found

    def candidates(self) -> Iterator[Candidate]:
        """Every listed item once, best first, as far as somebody asks for them."""
        segment = [
            Candidate(c.item_id, c.source, score(self.evidence(c.item_id)), c.implied) for c in self.segment.best
        ]
        seen: set[str] = set()
        known = self.segment.evidence
        for candidate in heapq.merge(sorted(segment, key=_worse), *(c.best for c in self.categories), key=_worse):
            item = candidate.item_id
            if item not in seen and (candidate.source == SEGMENT_LIST or item not in known):
                seen.add(item)
                yield candidate


NO_LISTS: Final = Lists()
