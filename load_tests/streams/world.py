"""A seeded stream of requests, impressions and clicks whose right outcome is known.

Events come in random order within `disorder_ms`; some clicks come late, some are cancelled, some events come twice, and
some feature logs are missing or late. Times are event times, so a stream can be fed at any speed.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from headrace_core.contracts import Action, BehaviorEvent, FeatureLog, LoggedItem

BEHAVIOR: Final = "behavior-events.v1"
LOGS: Final = "feature-logs.v1"

CITIES: Final = ("Shanghai", "Beijing", "Chengdu")
COUNTRIES: Final = ("China", "Japan")
GENDERS: Final = ("male", "female")
TYPES: Final = ("ad", "goods", "article", "video")


@dataclass(frozen=True, slots=True)
class WorldPlan:
    """What a world is like.

    Attributes:
        requests: how many, spread evenly over `span_ms` from `start`.
        slate: impressions per request.
        start: event time of the first request, ms since the epoch.
        span_ms: event time from first to last request.
        window_ms: attribution window of the joiner under test.
        disorder_ms: an event is written up to so much after its event time.
        clicks, late, cancelled, duplicated: shares (of impressions, clicks, clicks, events).
        lost_logs: share of requests whose log is missing when the window ends; half of these logs come later.
        users, items, categories, pages: how many there are.
        features: values in the user's part and in each item's part of a feature log.
        seed: makes it the same world again.
    """

    requests: int
    start: int
    slate: int = 10
    span_ms: int = 600_000
    window_ms: int = 60_000
    disorder_ms: int = 10_000
    clicks: float = 0.05
    late: float = 0.2
    cancelled: float = 0.1
    duplicated: float = 0.01
    lost_logs: float = 0.005
    users: int = 2_000
    items: int = 2_000
    categories: int = 20
    pages: int = 4
    features: int = 8
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Message:
    """A record to write."""

    topic: str
    key: str
    value: bytes


@dataclass(slots=True)
class World:
    """The stream in the order of writing, and the truth.

    Attributes:
        messages: every record, in order.
        labels: {(request_id, item_id): 1 if clicked and not cancelled, else 0}, for requests whose log came.
        orphans: (request_id, item_id) whose log never comes.
        impressions: impression records written, duplicates included.
        end: highest event time.
    """

    plan: WorldPlan
    messages: list[Message] = field(default_factory=list)
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    orphans: set[tuple[str, str]] = field(default_factory=set)
    impressions: int = 0
    end: int = 0

    def closing(self, partitions: int, ahead_ms: int) -> Iterator[tuple[int, Message]]:
        """A harmless event per partition, far ahead in time, that lets every window close; (partition, message)."""
        time = self.end + ahead_ms
        for n in range(partitions):
            event = BehaviorEvent(
                event_id=f"closing-{self.plan.seed}-{n}", user_id="closing", event_time=time, ingest_time=time,
                action=Action.ACTION_VIEW, item_id="closing", item_type="closing",
            )  # fmt: skip
            yield n, Message(BEHAVIOR, "closing", event.SerializeToString())


def uuid7(time: int, rng: random.Random) -> str:
    """A UUIDv7 of the given time, ms since the epoch."""
    value = time << 80 | 0x7 << 76 | rng.getrandbits(12) << 64 | 0b10 << 62 | rng.getrandbits(62)
    return str(UUID(int=value))


class _Builder:
    def __init__(self, plan: WorldPlan) -> None:
        self.plan, self.rng = plan, random.Random(plan.seed)
        self.world = World(plan)
        self.timed: list[tuple[int, int, Message]] = []
        self.serial = 0

    def write(self, time: int, message: Message) -> None:
        """Place a record in the stream, up to `disorder_ms` after its time."""
        self.serial += 1
        self.timed.append((time + self.rng.randrange(self.plan.disorder_ms + 1), self.serial, message))

    def event(self, action: int, time: int, base: BehaviorEvent, corrects: str = "") -> str:
        event = BehaviorEvent()
        event.CopyFrom(base)
        event.event_id = f"e{self.plan.seed}-{self.serial:08d}"
        event.action = action  # type: ignore[assignment]  # an enum is an int
        event.event_time = event.ingest_time = time
        event.corrects = corrects
        self.world.end = max(self.world.end, time)
        copies = 2 if self.rng.random() < self.plan.duplicated else 1
        for _ in range(copies):
            self.write(time, Message(BEHAVIOR, event.user_id, event.SerializeToString()))
        if action == Action.ACTION_IMPRESSION:
            self.world.impressions += copies
        return event.event_id

    def request(self, number: int) -> None:
        p, rng = self.plan, self.rng
        time = p.start + number * p.span_ms // p.requests
        user = rng.randrange(p.users)
        request_id = uuid7(time, rng)
        page = f"page-{rng.randrange(p.pages)}"
        items = sorted({int(p.items * rng.random() ** 2) for _ in range(p.slate)})
        base = BehaviorEvent(
            user_id=f"u{user:05d}", page_id=page, request_id=request_id,
            segment={"country": COUNTRIES[user % 2], "gender": GENDERS[user // 2 % 2], "city": CITIES[user % 3]},
        )  # fmt: skip
        fate = rng.random()
        lost = fate < p.lost_logs
        comes_late = lost and fate < p.lost_logs / 2
        if not lost or comes_late:
            delay = p.window_ms + 3 * p.disorder_ms if comes_late else 0
            self.write(time + delay, Message(LOGS, base.user_id, self.log(request_id, base, time, items)))
        for position, item in enumerate(items):
            base.item_id = f"i{item:05d}"
            base.item_type = TYPES[item % len(TYPES)]
            base.category = f"c{item % p.categories:02d}"
            base.position = position
            key = (request_id, base.item_id)
            shown = time + 100 + rng.randrange(400)
            self.event(Action.ACTION_IMPRESSION, shown, base)
            label = self.click(shown, base) if rng.random() < p.clicks else 0
            if lost and not comes_late:
                self.world.orphans.add(key)
            else:
                self.world.labels[key] = label

    def click(self, shown: int, base: BehaviorEvent) -> int:
        p, rng = self.plan, self.rng
        if rng.random() < p.late:
            time = shown + p.window_ms + 2 * p.disorder_ms + rng.randrange(p.window_ms)
        else:
            time = shown + 500 + rng.randrange(p.window_ms // 2)
        clicked = self.event(Action.ACTION_CLICK, time, base)
        if rng.random() >= p.cancelled:
            return 1
        self.event(Action.ACTION_CLICK, time + rng.randrange(2 * p.window_ms), base, corrects=clicked)
        return 0

    def log(self, request_id: str, base: BehaviorEvent, time: int, items: list[int]) -> bytes:
        values = ",".join(f'"f{n}":{self.rng.random():.6f}' for n in range(self.plan.features))
        logged = [
            LoggedItem(
                item_id=f"i{item:05d}", position=n, score=1 / (n + 2), propensity=1.0, source="popular",
                features=f'{{"popularity":{self.rng.random():.6f},{values}}}'.encode(),
            )
            for n, item in enumerate(items)
        ]  # fmt: skip
        return FeatureLog(
            request_id=request_id, user_id=base.user_id, event_time=time, page_id=base.page_id, feature_set_version=1,
            user_features=f"{{{values}}}".encode(), context_features=b'{"hour":12}', items=logged,
        ).SerializeToString()  # fmt: skip


def build(plan: WorldPlan) -> World:
    """Make the world of a plan."""
    builder = _Builder(plan)
    for number in range(plan.requests):
        builder.request(number)
    builder.timed.sort(key=lambda t: t[:2])
    builder.world.messages = [m for _, _, m in builder.timed]
    return builder.world
