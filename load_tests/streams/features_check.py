"""Whether Redis holds what a naive program computes from the same stream."""

import random
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import msgspec
from headrace_core.contracts import Action, BehaviorEvent
from headrace_core.stores.redis_views import top_key, unpack, user_key
from redis.asyncio import Redis

from load_tests.streams.naive_features import click_rates, distinct, last_minutes, top_ads
from load_tests.streams.world import BEHAVIOR, COUNTRIES, GENDERS, Message, World

_SEQUENCE_MS: Final = 300_000


def add_views(world: World, share: float, seed: int = 5) -> None:
    """Let some impressions be looked at: each look is told three times as it lasts, in any order."""
    rng = random.Random(seed)
    messages: list[Message] = []
    waiting: list[tuple[int, Message]] = []
    for n, message in enumerate(world.messages):
        messages.append(message)
        while waiting and waiting[0][0] <= n:
            messages.append(waiting.pop(0)[1])
        if message.topic != BEHAVIOR or rng.random() >= share:
            continue
        event = BehaviorEvent.FromString(message.value)
        if event.action != Action.ACTION_IMPRESSION:
            continue
        event.action, event.view_id = Action.ACTION_VIEW, f"v{n}"
        for dwell in (1_000, 2_000, 5_000):
            event.event_id, event.event_time, event.dwell_ms = f"view{n}-{dwell}", event.event_time + 1_000, dwell
            event.ingest_time = event.event_time
            waiting.append((n + rng.randrange(200), Message(BEHAVIOR, event.user_id, event.SerializeToString())))
        waiting.sort(key=lambda w: w[0])
    world.messages = messages + [m for _, m in waiting]


@dataclass(frozen=True, slots=True)
class Truth:
    """What every list and sequence has to be.

    Attributes:
        events: of the stream, each once.
    """

    events: list[BehaviorEvent]
    by_user: dict[str, list[BehaviorEvent]]
    by_category: dict[str, list[BehaviorEvent]]

    @classmethod
    def of(cls, world: World) -> "Truth":
        """Decode the world's behaviour events."""
        events = distinct(BehaviorEvent.FromString(m.value) for m in world.messages if m.topic == BEHAVIOR)
        by_user: dict[str, list[BehaviorEvent]] = {}
        by_category: dict[str, list[BehaviorEvent]] = {}
        for e in events:
            by_user.setdefault(e.user_id, []).append(e)
            by_category.setdefault(e.category, []).append(e)
        return cls(events, by_user, by_category)


@dataclass(slots=True)
class Report:
    """How Redis compares.

    Attributes:
        lists, users: how many were compared.
        rows: how many ranked members they held.
        wrong: keys that differ, with what was expected and found.
    """

    lists: int = 0
    users: int = 0
    rows: int = 0
    wrong: list[tuple[str, Any, Any]] = field(default_factory=list)

    def compare(self, key: str, expected: Any, found: Any) -> None:
        """Note a difference."""
        if expected != found:
            self.wrong.append((key, expected, found))


async def check(world: World, truth: Truth, redis_url: str) -> Report:
    """Compare every list and every user's sequence; each list at the time up to which it says it was made."""
    redis = Redis.from_url(redis_url)
    report = Report()
    try:
        ads = [e for e in truth.events if e.item_type == "ad" and e.action == Action.ACTION_CLICK]
        for country, gender, page in product(COUNTRIES, GENDERS, [f"page-{n}" for n in range(world.plan.pages)]):
            key = top_key("top_ads_by_segment", [country, gender, page])
            items, as_of = await _list(redis, key)
            report.compare(key, top_ads(ads, country, gender, page, as_of), items)
            report.lists, report.rows = report.lists + 1, report.rows + len(items)
        for category, events in truth.by_category.items():
            key = top_key("item_click_rate_by_category", [category])
            items, as_of = await _list(redis, key)
            report.compare(key, click_rates(events, category, as_of), items)
            report.lists, report.rows = report.lists + 1, report.rows + len(items)
        for user, events in truth.by_user.items():
            shown = await _sequence(redis, user)
            found = [e for e in shown if e["event_time"] >= world.end - _SEQUENCE_MS]
            report.compare(user, last_minutes(events, user, world.end), found)
            report.users += 1
    finally:
        await redis.aclose()
    return report


async def _list(redis: "Redis", key: str) -> tuple[list[tuple[Any, ...]], int]:
    values = await _values(redis, key)
    if not values:
        return [], 0
    return [tuple(row) for row in values[0]["items"]], values[0]["as_of"]


async def _sequence(redis: "Redis", user: str) -> list[dict[str, Any]]:
    values = await _values(redis, user_key(user))
    return values[0] if values else []


async def _values(redis: "Redis", key: str) -> list[Any]:
    stored: dict[bytes, bytes] = await redis.hgetall(key)  # type: ignore[assignment]  # the client does not decode
    return [msgspec.msgpack.decode(unpack(raw).payload) for raw in stored.values()]
