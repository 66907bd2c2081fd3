"""Writes catalog entries: to Kafka first, then to Redis under the offset as version.

The catalog loader of the feature worker writes the same values under the same versions, so whoever comes second changes
nothing, and an entry whose Redis write failed here still arrives.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from headrace_core.contracts import Item, Millis, User
from headrace_core.stores.redis_views import CATALOG_FIELD, ViewStore, ViewWrite, catalog_item_key, catalog_user_key
from headrace_core.telemetry import EVENTS, STAGE_SECONDS
from redis.exceptions import RedisError

from headrace_gateway.catalog.lookup import CatalogLookup
from headrace_gateway.catalog.schema import ItemIn, UserIn
from headrace_gateway.catalog.snapshot import ItemSnapshot
from headrace_gateway.problem import ProblemError, invalid
from headrace_gateway.stores.kafka_writer import KafkaWriter, NotAcknowledgedError, OverloadedError, Record
from headrace_gateway.text import as_text

USERS_TOPIC: Final = "users.v1"
ITEMS_TOPIC: Final = "items.v1"

#: Of one entry on the wire. A ranked answer reads and logs the entries of up to 500 items.
MAX_ENTRY_BYTES: Final = 65_536


class _Entry(NamedTuple):
    id: str
    redis_key: str
    value: bytes


class CatalogWriter:
    """Takes users and items.

    Args:
        users: writer of users.v1.
        items: writer of items.v1.
        views: Redis.
        lookup: whose cache forgets what is overwritten.
        snapshot: which sees own items at once.
        redis_deadline_seconds: how long Redis may take.
        now_ms: the clock.
    """

    def __init__(  # noqa: PLR0913  # each is a collaborator of its own
        self,
        users: KafkaWriter,
        items: KafkaWriter,
        views: ViewStore,
        lookup: CatalogLookup,
        snapshot: ItemSnapshot,
        *,
        redis_deadline_seconds: float,
        now_ms: Callable[[], Millis] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._users, self._items, self._views = users, items, views
        self._lookup, self._snapshot = lookup, snapshot
        self._deadline, self._now_ms = redis_deadline_seconds, now_ms

    async def put_users(self, users: Sequence[UserIn]) -> list[int]:
        """Versions of the entries, once Kafka has them and Redis shows them.

        Raises:
            ProblemError: 422 without an id, 413 for an entry that is too large, 429 and 503 as the stores tell.
        """
        now = self._now_ms()
        entries = [
            _Entry(id_, catalog_user_key(id_), _user(u, id_, now).SerializeToString())
            for u, id_ in ((u, _id(u.user_id, "users", n)) for n, u in enumerate(users))
        ]
        _check_sizes("users", entries)
        versions = await self._produce(self._users, entries)
        try:
            await self._show(entries, versions, now)
        finally:
            self._lookup.users.invalidate([e.id for e in entries])
        return versions

    async def put_items(self, items: Sequence[ItemIn]) -> list[int]:
        """Likewise for items; they are candidates of recommendations at once."""
        now = self._now_ms()
        messages = [_item(i, _id(i.item_id, "items", n), now) for n, i in enumerate(items)]
        entries = [_Entry(m.item_id, catalog_item_key(m.item_id), m.SerializeToString()) for m in messages]
        _check_sizes("items", entries)
        versions = await self._produce(self._items, entries)
        for message, version in zip(messages, versions, strict=True):
            self._snapshot.apply(message.item_id, message, version)
        try:
            await self._show(entries, versions, now)
        finally:
            self._lookup.items.invalidate([e.id for e in entries])
        return versions

    async def _produce(self, writer: KafkaWriter, entries: Sequence[_Entry]) -> list[int]:
        try:
            with STAGE_SECONDS.labels("produce_catalog").time():
                versions = await writer.write([Record(e.id.encode(), e.value) for e in entries])
        except OverloadedError as error:
            raise ProblemError(429, f"{error}; nothing was sent", retry_after_seconds=1.0) from error
        except NotAcknowledgedError as error:
            raise ProblemError(
                503, f"Kafka did not take every entry ({error}); send all again", retry_after_seconds=2.0
            ) from error
        if min(versions) < 0:
            raise ProblemError(
                503, "Kafka took the entries but did not tell their offsets; send all again", retry_after_seconds=1.0
            )
        EVENTS.labels("gateway", writer.topic).inc(len(entries))
        return versions

    async def _show(self, entries: Sequence[_Entry], versions: Sequence[int], now: Millis) -> None:
        writes = [
            ViewWrite(e.redis_key, CATALOG_FIELD, version, now, e.value)
            for e, version in zip(entries, versions, strict=True)
        ]
        try:
            with STAGE_SECONDS.labels("show_catalog").time():
                async with asyncio.timeout(self._deadline):
                    await self._views.write(writes)
        except (RedisError, OSError, TimeoutError) as error:
            raise ProblemError(
                503,
                f"Kafka has the entries and they will be shown later, but Redis is away ({error!r}); sending again is "
                "harmless",
                retry_after_seconds=2.0,
            ) from error


def _id(told: str | None, where: str, index: int) -> str:
    if told is None:
        field = f"{where}[{index}].{where[:-1]}_id"
        raise invalid(f"{field}: is required", field=field)
    return told


def _check_sizes(where: str, entries: Sequence[_Entry]) -> None:
    for index, entry in enumerate(entries):
        if (size := len(entry.value)) > MAX_ENTRY_BYTES:
            raise ProblemError(
                413,
                f"{where}[{index}]: {size} bytes on the wire, at most {MAX_ENTRY_BYTES} are taken; nothing was written",
            )


def _user(u: UserIn, user_id: str, now: Millis) -> User:
    return User(
        user_id=user_id,
        country=u.country,
        gender=u.gender,
        city=u.city,
        attributes={k: as_text(v) for k, v in u.attributes.items()},
        update_time=now,
    )


def _item(i: ItemIn, item_id: str, now: Millis) -> Item:
    return Item(
        item_id=item_id,
        item_type=i.item_type,
        category=i.category,
        title=i.title,
        available=i.available,
        created_at=i.created_at,
        attributes={k: as_text(v) for k, v in i.attributes.items()},
        update_time=now,
    )
