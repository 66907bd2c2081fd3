"""Steady traffic that remembers what it was told."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Self

import httpx


@dataclass
class Traffic:
    """Events, recommendations and rankings, over and over, until the `async with` ends.

    Attributes:
        url: of the gateway.
        name: unique prefix of every id.
        events_per_call: size of a call of events.
        sent: ids of every event of a call that was started.
        accepted: ids of the events that the gateway said it took.
        unknown: ids of those whose answer never came.
        statuses: how often each status came, by route.
        answers: of recommend and rank, newest last.
        refused: 503 answers to events, newest last.
    """

    url: str
    name: str
    events_per_call: int = 20
    sent: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    statuses: dict[tuple[str, int], int] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)
    _calls: int = 0
    _ending: bool = False
    _tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(base_url=self.url, timeout=30)
        work = [self._send_events(), self._send_events(), self._ask("/v1/recommend"), self._ask("/v1/rank")]
        self._tasks = [asyncio.create_task(w) for w in work]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def count(self, path: str, status: int) -> int:
        """How often a route answered so."""
        return self.statuses.get((path, status), 0)

    async def _send_events(self) -> None:
        while not self._ending:
            self._calls += 1
            ids = [f"{self.name}-{self._calls}-{n}" for n in range(self.events_per_call)]
            now = time.time_ns() // 1_000_000
            events = [
                {
                    "event_id": i,
                    "user_id": f"{self.name}-u{n}",
                    "event_time": now,
                    "action": "click",
                    "item_id": f"i{n}",
                }
                for n, i in enumerate(ids)
            ]
            self.sent.update(ids)
            answer = await self._post("/v1/events", {"events": events})
            if answer is None:
                self.unknown.update(ids)
            elif answer.status_code == 202:
                self.accepted.update(ids)
            elif answer.status_code == 503:
                self.refused.append(answer)
                self.accepted.update(ids[n] for n in answer.json()["acknowledged"])

    async def _ask(self, path: str) -> None:
        body: dict[str, Any] = {"user_id": f"{self.name}-u0", "page_id": "100"}
        if path == "/v1/rank":
            body["candidates"] = [f"{self.name}-i{n}" for n in range(20)]
        while not self._ending:
            answer = await self._post(path, body)
            if answer is not None and answer.status_code == 200:
                self.answers.append(answer.json())

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response | None:
        try:
            answer = await self._client.post(path, json=body)
        except httpx.TransportError:  # the gateway is gone
            await asyncio.sleep(0.05)
            return None
        key = (path, answer.status_code)
        self.statuses[key] = self.statuses.get(key, 0) + 1
        await asyncio.sleep(0.01)
        return answer
