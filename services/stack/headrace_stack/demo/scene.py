"""What the demo looks at: a user's answer, the top list, how fresh features, samples and weights are. All from outside."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import httpx
from headrace_core.contracts import Operation, SampleChange
from headrace_core.control.bearer import BearerAuth
from headrace_core.control.client import ControlClient

from headrace_stack.simulate.story import PAGE
from headrace_stack.simulate.world import Person

_POLL_S: Final = 0.02
_GIVE_UP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody is shown.

    Attributes:
        request_id: of the answer.
        items: best first.
        version: of the model that ranked them, 0 for popularity.
        degraded: what was missing.
    """

    request_id: str
    items: list[str]
    version: int
    degraded: list[str]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 99th percentile of some seconds; None where nothing was measured."""

    p50: float | None
    p99: float | None
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Of these values, by the nearest rank."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(None, None, 0)
        last = len(ordered) - 1
        return cls(ordered[last // 2], ordered[min(last, round(0.99 * last))], len(ordered))

    def __str__(self) -> str:
        """As a person reads it."""
        return "-" if self.p50 is None or self.p99 is None else f"{self.p50:.2f} s / {self.p99:.2f} s"


class Scene:
    """The running platform."""

    def __init__(self, stack: dict[str, Any]) -> None:
        """Look at the stack that this stack.json describes."""
        self.postgres: str = stack["postgres"]
        self._http = httpx.AsyncClient(base_url=stack["gateway"], timeout=10.0, auth=BearerAuth.from_environment())
        self.control = ControlClient(stack["control"], "demo")

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()
        await self.control.aclose()

    async def shown_to(self, person: Person, count: int = 3) -> Shown:
        """What a person would be shown now.

        Raises:
            httpx.HTTPError: no good answer.
        """
        body = {"user_id": person.user_id, "page_id": PAGE, "count": count}
        told = (await self._http.post("/v1/recommend", json=body)).raise_for_status().json()
        items = [i["item_id"] for i in told["items"]]
        return Shown(told["request_id"], items, told["model_version"], told["degraded"])

    async def top_ads(self) -> list[tuple[str, int]]:
        """The most clicked ads of Chinese men on the page, with their clicks."""
        path = f"/v1/features/top/top_ads_by_segment/China|male|{PAGE}"
        told = (await self._http.get(path)).raise_for_status().json()
        return [(i["item_id"], int(i["numerator"])) for i in told["items"]]

    async def click_until_feature(self, person: Person) -> tuple[float, str, str]:
        """Let a person see and click what he is shown; (seconds until his features show it, request_id, item).

        Raises:
            httpx.HTTPError: no good answer.
        """
        shown = await self.shown_to(person)
        item, now = shown.items[-1], time.time()
        event = {
            "user_id": person.user_id, "item_id": item, "item_type": "ad", "page_id": PAGE, "event_time": int(now * 1000),
            "request_id": shown.request_id, "position": len(shown.items) - 1,
        }  # fmt: skip
        events = [{**event, "event_id": str(uuid.uuid4()), "action": a} for a in ("impression", "click")]
        (await self._http.post("/v1/events", json={"events": events})).raise_for_status()
        while (waited := time.time() - now) < _GIVE_UP_S:
            told = (await self._http.get(f"/v1/features/users/{person.user_id}")).raise_for_status().json()
            entries = [e for f in told["items"] if isinstance(f["value"], list) for e in f["value"]]
            if any(e["event_time"] == event["event_time"] for e in entries):
                break
            await asyncio.sleep(_POLL_S)
        return waited, shown.request_id, item


async def click_to_sample(postgres: str, probes: Sequence[tuple[str, str]]) -> Spread:
    """From click to stored sample, of probes that were shown and clicked at the same moment: (request_id, item)."""
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch(
            "SELECT s.event_time, s.joined_at FROM samples.current s "
            "JOIN unnest($1::uuid[], $2::text[]) p(request_id, item_id) USING (request_id, item_id) WHERE s.version = 1",
            [r for r, _ in probes], [i for _, i in probes],
        )  # fmt: skip
    finally:
        await connection.close()
    return Spread.of([r["joined_at"].timestamp() - r["event_time"] / 1000 for r in rows])


async def click_to_weights(scene: Scene, model: str, since_ms: int) -> Spread:
    """From the publication of a click's sample to the first deployed version that has learned it.

    Args:
        scene: the platform.
        model: whose versions.
        since_ms: publications after it, ms since the epoch; those that no deployed version has learned yet are left out.
    """
    deployed: list[tuple[int, dict[int, int]]] = []
    for version in await scene.control.versions(model, limit=500):
        times = [h["time"] for h in version.history if h["stage"] == "DEPLOYED"]
        if times:
            settled = version.manifest["samples"]["settled"]
            deployed.append((min(times), {int(source): time for source, time in settled.items()}))
    deployed.sort(key=lambda d: d[0])
    connection = await asyncpg.connect(scene.postgres)
    try:
        rows = await connection.fetch(
            "SELECT source, value FROM samples.changes WHERE created_at > to_timestamp($1)", since_ms / 1000
        )
    finally:
        await connection.close()
    seconds = []
    for row in rows:
        change = SampleChange.FromString(row["value"])
        if change.operation != Operation.OPERATION_INSERT or not change.sample.label:
            continue
        event_time = change.sample.event_time
        learned = next((at for at, settled in deployed if settled.get(row["source"], 0) >= event_time), None)
        if learned is not None:
            seconds.append((learned - change.change_time) / 1000)
    return Spread.of(seconds)
