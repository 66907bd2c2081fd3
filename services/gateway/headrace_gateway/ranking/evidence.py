"""What Redis says for one request: the user, his ranked lists, and the items."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from headrace_core.contracts import Millis
from headrace_core.stores.redis_views import item_key, top_key, user_key
from headrace_core.telemetry import STAGE_SECONDS

from headrace_gateway.catalog.cache import MomentCache
from headrace_gateway.catalog.entries import NO_USER, ItemEntry, UserEntry
from headrace_gateway.catalog.lookup import CatalogLookup
from headrace_gateway.ranking.in_force import Field, InForce
from headrace_gateway.ranking.lists import (
    CATEGORY_LIST,
    NOTHING_LISTED,
    SEGMENT_LIST,
    ListedItems,
    Lists,
    of_category,
    of_segment,
)
from headrace_gateway.ranking.views import FeatureValue, feature_values, ranked_list, trimmed
from headrace_gateway.stores.redis_reader import Command, RedisAwayError, RedisReader

# Bound once: finding a label anew costs as much as the observation.
_READ_USER: Final = STAGE_SECONDS.labels("read_user")
_READ_LISTS: Final = STAGE_SECONDS.labels("read_lists")
_READ_ITEMS: Final = STAGE_SECONDS.labels("read_items")


@dataclass(slots=True)
class Request:
    """What is known of who asks.

    Attributes:
        user: his catalog entry.
        views: his feature values.
        missing: (what, why) that had to be replaced by defaults.
        in_force: the feature definitions that the request is answered by.
    """

    user: UserEntry = NO_USER
    views: dict[str, FeatureValue] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)
    in_force: InForce = field(default_factory=InForce)


@dataclass(slots=True)
class Items:
    """The items of a request, as far as Redis could tell.

    Attributes:
        entries: catalog entries by id.
        views: feature values by id and feature.
        missing: (what, why) that had to be replaced by defaults.
    """

    entries: dict[str, ItemEntry] = field(default_factory=dict)
    views: dict[str, dict[str, FeatureValue]] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)


class _Wanted(NamedTuple):
    """A ranked list to be read.

    Attributes:
        definition: in force, the field of its key.
        category: whose list it is; None for that of a segment.
    """

    definition: str
    category: str | None


class EvidenceReader:
    """Reads for requests, each stage in one round trip and under one deadline; ranked lists are kept for a moment."""

    def __init__(
        self,
        redis: RedisReader,
        lookup: CatalogLookup,
        lists: MomentCache[ListedItems],
        deadline_seconds: float,
    ) -> None:
        """Read catalog entries through `lookup`, ranked lists through `lists`."""
        self._redis, self._lookup, self._lists, self._deadline = redis, lookup, lists, deadline_seconds

    async def read_user(self, user_id: str, now: Millis, in_force: InForce) -> Request:
        """The user's catalog entry and views, sequences trimmed to what still counts at `now`."""
        request = Request(in_force=in_force)
        plan = self._lookup.plan([user_id], ())
        fields = in_force.user_fields
        commands = [*plan.commands, *read_fields(fields, [user_key(user_id)])]
        try:
            with _READ_USER.time():
                answers = await self._redis.read(commands, self._deadline)
        except RedisAwayError as error:
            request.user = plan.known.users.get(user_id, NO_USER)
            request.missing.append(("user features", f"redis_unavailable: {error}"))
            return request
        n = len(plan.commands)
        request.user = plan.finish(answers[:n]).users.get(user_id, NO_USER)
        for answer in answers[n:]:
            request.views = trimmed(feature_values(fields, answer), now, in_force.windows)
        return request

    async def read_lists(self, request: Request, page_id: str, categories: Iterable[str]) -> Lists:
        """The list of the user's segment on the page, and those of the categories."""
        ranked, segment = request.in_force.ranked, request.user.segment
        wanted: dict[str, _Wanted] = {}
        if SEGMENT_LIST in ranked and "country" in segment and "gender" in segment:  # no row for an unknown segment
            key = top_key(SEGMENT_LIST, [segment["country"], segment["gender"], page_id])
            wanted[key] = _Wanted(ranked[SEGMENT_LIST], None)
        if CATEGORY_LIST in ranked:
            wanted |= {top_key(CATEGORY_LIST, [c]): _Wanted(ranked[CATEGORY_LIST], c) for c in categories}
        known = await self._lists_of(request, wanted)
        segments = [known[key] for key, w in wanted.items() if w.category is None and key in known]
        return Lists(
            segment=segments[0] if segments else NOTHING_LISTED,
            categories=tuple(known[key] for key, w in wanted.items() if w.category is not None and key in known),
        )

    async def _lists_of(self, request: Request, wanted: Mapping[str, "_Wanted"]) -> dict[str, ListedItems]:
        """Lists by key, as far as Redis tells them."""
        generation = self._lists.generation
        # Kept by definition too: what one set of definitions read is not what another one asks for.
        kept_as = {f"{w.definition}@{key}": key for key, w in wanted.items()}
        kept, lacking = self._lists.pick(set(kept_as))
        known = {kept_as[name]: listed for name, listed in kept.items()}
        if not lacking:
            return known
        unknown = [kept_as[name] for name in lacking]
        commands: list[Command] = [("HGET", key, wanted[key].definition) for key in unknown]
        try:
            with _READ_LISTS.time():
                answers = await self._redis.read(commands, self._deadline)
        except RedisAwayError as error:
            request.missing.append(("ranked lists", f"redis_unavailable: {error}"))
            return known
        read: dict[str, ListedItems] = {}
        for key, answer in zip(unknown, answers, strict=True):
            ranked, category = ranked_list(answer), wanted[key].category
            if ranked is None:
                read[key] = NOTHING_LISTED
            else:
                read[key] = of_segment(ranked.members) if category is None else of_category(category, ranked.members)
        self._lists.put({f"{wanted[key].definition}@{key}": listed for key, listed in read.items()}, generation)
        return known | read

    async def read_items(self, item_ids: Sequence[str], in_force: InForce) -> Items:
        """Catalog entries and views of items."""
        plan = self._lookup.plan((), item_ids)
        fields = in_force.item_fields
        commands = [*plan.commands, *read_fields(fields, [item_key(i) for i in item_ids])]
        try:
            with _READ_ITEMS.time():
                answers = await self._redis.read(commands, self._deadline)
        except RedisAwayError as error:
            return Items(plan.known.items, missing=[("item features", f"redis_unavailable: {error}")])
        n = len(plan.commands)
        views = {i: feature_values(fields, a) for i, a in zip(item_ids, answers[n:], strict=bool(fields))}
        return Items(plan.finish(answers[:n]).items, views)


def read_fields(fields: Sequence[Field], keys: Iterable[str]) -> list[Command]:
    """Commands that read the fields of each key; none where there are no fields, which Redis would not take."""
    names = [f.redis for f in fields]
    return [("HMGET", key, *names) for key in keys] if names else []


def plain(views: dict[str, FeatureValue]) -> dict[str, Any]:
    """Values alone, by feature."""
    return {name: view.value for name, view in views.items()}


def recent_categories(views: dict[str, FeatureValue], limit: int) -> Collection[str]:
    """Categories of what the user did last, newest first, from any sequence among his features."""
    found: dict[str, None] = {}
    for view in views.values():
        if isinstance(view.value, list):
            for entry in reversed(view.value):
                if isinstance(entry, dict) and isinstance(category := entry.get("category"), str) and category:
                    found[category] = None
                    if len(found) >= limit:
                        return found
    return found
