"""Catalog entries by id: from the cache of the process, else from Redis, all of a call in one round."""

from collections.abc import Iterable
from typing import NamedTuple

from headrace_core.stores.redis_views import CATALOG_FIELD, catalog_item_key, catalog_user_key

from headrace_gateway.catalog.cache import MomentCache
from headrace_gateway.catalog.entries import ItemEntry, UserEntry, item_of, user_of
from headrace_gateway.stores.redis_reader import Command, RedisReader


class Known(NamedTuple):
    """What the catalog says of the ids asked for; all of them are there."""

    users: dict[str, UserEntry]
    items: dict[str, ItemEntry]


class CatalogLookup:
    """Reads the catalog.

    Args:
        redis: where it stands.
        keep_seconds: how long an entry may be stale.
        max_entries: kept at most, of users and of items each.
    """

    def __init__(self, redis: RedisReader, keep_seconds: float, max_entries: int) -> None:
        self._redis = redis
        self.users: MomentCache[UserEntry] = MomentCache(keep_seconds, max_entries)
        self.items: MomentCache[ItemEntry] = MomentCache(keep_seconds, max_entries)

    async def find(self, users: Iterable[str], items: Iterable[str], deadline_seconds: float) -> Known:
        """Entries of the ids; NO_USER or NO_ITEM for those the catalog does not have.

        Raises:
            RedisAwayError: something had to be read and could not.
        """
        plan = self.plan(users, items)
        return plan.finish(await self._redis.read(plan.commands, deadline_seconds) if plan.commands else [])

    def plan(self, users: Iterable[str], items: Iterable[str]) -> "Plan":
        """What has to be read, for a caller who sends it together with other commands."""
        return Plan(self, set(users), set(items))


class Plan:
    """One look-up, its commands apart from its answers.

    Attributes:
        commands: to be sent; `finish` takes their answers in this order.
    """

    __slots__ = ("_generations", "_lookup", "_missing_items", "_missing_users", "commands", "known")

    def __init__(self, lookup: CatalogLookup, users: set[str], items: set[str]) -> None:
        self._lookup = lookup
        known_users, self._missing_users = lookup.users.pick(users)
        known_items, self._missing_items = lookup.items.pick(items)
        self.known = Known(known_users, known_items)
        self._generations = (lookup.users.generation, lookup.items.generation)
        self.commands: list[Command] = [
            *(("HGET", catalog_user_key(u), CATALOG_FIELD) for u in self._missing_users),
            *(("HGET", catalog_item_key(i), CATALOG_FIELD) for i in self._missing_items),
        ]

    def finish(self, answers: list[bytes | None]) -> Known:
        """Everything that was asked for; what Redis answered by an error counts as absent."""
        raws = [a if isinstance(a, bytes) else None for a in answers]
        n = len(self._missing_users)
        users = {key: user_of(raw) for key, raw in zip(self._missing_users, raws[:n], strict=True)}
        items = {key: item_of(raw) for key, raw in zip(self._missing_items, raws[n:], strict=True)}
        self._lookup.users.put(users, self._generations[0])
        self._lookup.items.put(items, self._generations[1])
        self.known.users.update(users)
        self.known.items.update(items)
        return self.known
