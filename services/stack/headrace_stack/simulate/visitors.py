"""People who visit: they ask for recommendations, look, click, and tell it all to the gateway."""

import asyncio
import contextlib
import heapq
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from headrace_client import (
    ApiError,
    AsyncClient,
    BusyError,
    Event,
    EventsNotAcceptedError,
    Item,
    Retries,
    UnavailableError,
    User,
)
from headrace_core.control.bearer import BearerAuth

from headrace_stack.simulate.world import Person, World, best_list, clicks_expected, looked_at

_SEND_EVERY_S: Final = 0.05
_MAX_EVENTS: Final = 1_000
_PAUSE_S: Final = 0.5
#: Visits at once. A client that has more requests waiting than connections spends its time on looking through them.
MOST_AT_ONCE: Final = 50
#: Visits that are later than this, on a machine or platform that stood still, do not take place.
_LATE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Habits:
    """What people and their clients are like.

    Attributes:
        count: items asked for in a visit.
        late: share of clicks that come after `late_s`; the others after about a second.
        late_s: how late these are.
        cancelled: share of clicks that are taken back some seconds later.
        duplicated: share of events that are sent twice.
    """

    count: int = 3
    late: float = 0.02
    late_s: float = 40.0
    cancelled: float = 0.005
    duplicated: float = 0.01


@dataclass(slots=True)
class Tally:
    """What happened so far.

    Attributes:
        visits, impressions, clicks, late_clicks, cancelled, duplicates: counts of what was sent.
        failed: requests that were not answered well, by status.
        degraded: answers by what they lacked.
        expected: clicks that the shown lists were worth by the world's probabilities.
        best: clicks that an oracle's lists would have been worth.
        versions: answers by model version.
    """

    visits: int = 0
    impressions: int = 0
    clicks: int = 0
    late_clicks: int = 0
    cancelled: int = 0
    duplicates: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    expected: float = 0.0
    best: float = 0.0
    versions: Counter[int] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(v) if isinstance(v, Counter) else v for name, v in counts.items()} | {"regret": self.regret}

    @property
    def regret(self) -> float:
        """Share of the oracle's clicks that was missed, by probabilities; 0 is perfect."""
        return 1.0 - self.expected / self.best if self.best else 0.0


class Visitors:
    """Plays a world against a gateway. Deterministic but for the platform's answers and the wall clock."""

    def __init__(self, gateway: str, world: World, habits: Habits | None = None, seed: int = 1) -> None:
        """Visit the gateway at this address."""
        self.world, self.habits, self.tally = world, habits or Habits(), Tally()
        self._rng = random.Random(seed)  # noqa: S311  # a seeded world
        bearer = BearerAuth.from_environment()
        self._http = httpx.AsyncClient(base_url=gateway, timeout=10.0, auth=bearer)
        once = Retries(patience_s=0.0)  # failures are counted, then tried again
        self._client = AsyncClient(gateway, api_key=bearer.key, retries=once)
        self._due: list[tuple[float, int, Event]] = []
        self._serial = itertools.count()
        self._began = time.monotonic()

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()
        await self._client.aclose()

    async def introduce(self, others: Sequence[Person] = ()) -> None:
        """Put everybody and everything into the catalogs.

        Raises:
            HeadraceError: the gateway refused, or is away.
        """
        people = [*self.world.people, *others]
        await self._client.put_users(
            User(user_id=p.user_id, country=p.country, gender=p.gender, city=p.city) for p in people
        )
        await self._client.put_items(
            Item(item_id=t.item_id, item_type=t.item_type, category=t.category) for t in self.world.things
        )

    async def ask(self, person: Person, count: int) -> dict[str, Any]:
        """A recommendation that nobody looks at.

        Raises:
            httpx.HTTPError: no good answer.
        """
        body = {"user_id": person.user_id, "page_id": self.world.page_id, "count": count}
        answer = await self._http.post("/v1/recommend", json=body)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    async def come(self, rate: Callable[[], float], until: asyncio.Event) -> None:
        """Visit `rate()` times a second until told, or as often as answers come.

        Clicks that were still to come by then are not sent.
        """
        sender = asyncio.create_task(self._send(until))
        visits: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not until.is_set():
            if len(visits) >= MOST_AT_ONCE:
                await asyncio.wait(visits, return_when=asyncio.FIRST_COMPLETED)
            due = max(due, time.monotonic() - _LATE_S)
            if (ahead := due - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), ahead)
            due += 1 / rate()
            visits.add(task := asyncio.create_task(self._visit()))
            task.add_done_callback(visits.discard)
        if visits:
            await asyncio.wait(visits)
        await sender

    async def _visit(self) -> None:
        rng, habits = self._rng, self.habits
        person = rng.choice(self.world.people)
        try:
            told = await self.ask(person, habits.count)
        except httpx.HTTPStatusError as error:
            self.tally.failed[str(error.response.status_code)] += 1
            return
        except httpx.HTTPError as error:
            self.tally.failed[type(error).__name__] += 1
            return
        at_s = time.monotonic() - self._began
        items = [i["item_id"] for i in told["items"]]
        tally = self.tally
        tally.visits += 1
        tally.versions[told["model_version"]] += 1
        tally.degraded.update(told["degraded"])
        tally.expected += clicks_expected(self.world, person, items, at_s)
        tally.best += clicks_expected(self.world, person, best_list(self.world, person, habits.count, at_s), at_s)
        kinds = {t.item_id: t.item_type for t in self.world.things} if len(self.world.things) < 50 else {}
        for position, item in enumerate(items):
            event = {
                "user_id": person.user_id, "item_id": item, "page_id": self.world.page_id, "position": position,
                "request_id": told["request_id"],
            }  # fmt: skip
            if item in kinds:
                event["item_type"] = kinds[item]
            tally.impressions += 1
            self._later(0.05, {**event, "action": "impression"})
            if rng.random() < looked_at(position) * self.world.taste(person, item, at_s):
                self._click(event)

    def _click(self, event: dict[str, Any]) -> None:
        rng, habits = self._rng, self.habits
        delay = 0.2 + rng.expovariate(1.0)
        if rng.random() < habits.late:
            self.tally.late_clicks += 1
            delay += habits.late_s
        self.tally.clicks += 1
        clicked = self._later(delay, {**event, "action": "click"})
        if rng.random() < habits.cancelled:
            self.tally.cancelled += 1
            self._later(delay + 2.0, {**event, "action": "click", "corrects": clicked})

    def _later(self, delay_s: float, event: dict[str, Any]) -> str:
        """Send an event when its time has come; its id."""
        event_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        due = time.monotonic() + delay_s
        told = Event(**event, event_id=event_id, event_time=int((time.time() + delay_s) * 1000))
        heapq.heappush(self._due, (due, next(self._serial), told))
        if self._rng.random() < self.habits.duplicated:
            self.tally.duplicates += 1
            heapq.heappush(self._due, (due + 0.5, next(self._serial), told))
        return event_id

    async def _send(self, until: asyncio.Event) -> None:
        while not until.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), _SEND_EVERY_S)
            now = time.monotonic()
            events: list[Event] = []
            while self._due and self._due[0][0] <= now and len(events) < _MAX_EVENTS:
                events.append(heapq.heappop(self._due)[2])
            if events:
                await self._deliver(events)

    async def _deliver(self, events: list[Event]) -> None:
        """Send until they are taken; a repeated event_id counts once."""
        while events:
            try:
                await self._client.send_events(events)
            except EventsNotAcceptedError as error:
                cause = error.cause
                self.tally.failed[str(cause.status) if isinstance(cause, ApiError) else "no answer"] += 1
                if isinstance(cause, ApiError) and not isinstance(cause, BusyError | UnavailableError):
                    return
                events = [events[n] for n in error.missing]
                await asyncio.sleep(_PAUSE_S)
            else:
                return
