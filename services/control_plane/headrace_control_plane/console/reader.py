"""Reads the control plane's own HTTP API, as any other client would.

Pages ask again every few seconds; however many are open, each answer is fetched once and serves all of them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
from headrace_core.control.bearer import BearerAuth
from headrace_core.control.client import ControlClient, ControlError
from headrace_core.control.records import Event, ModelVersion

_KEPT_EVENTS: Final = 1_000
_KEPT_ANSWERS: Final = 500
_PATIENCE_SECONDS: Final = 1.0

Json = Mapping[str, Any]


class AwayError(Exception):
    """The control plane or its store can't be reached; the message tells how."""


class Reader:
    """What the pages show.

    Args:
        url: of the control plane.
        fresh_s: an answer that is younger is good for everyone.
        key: API key of its calls; empty for none.
    """

    def __init__(self, url: str, fresh_s: float = 1.0, key: str = "") -> None:
        auth = BearerAuth(key)
        self._client = ControlClient(url, "console", _PATIENCE_SECONDS, auth=auth)
        self._http = httpx.AsyncClient(base_url=f"{url.rstrip('/')}/api/v1", timeout=5.0, auth=auth)
        self._fresh = fresh_s
        self._locks: dict[str, asyncio.Lock] = {}
        self._answers: dict[str, tuple[float, Any]] = {}
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._after: int | None = None

    async def get(self, path: str, fresh_s: float | None = None) -> Any:
        """An answer.

        Args:
            path: below /api/v1, with its query.
            fresh_s: how old it may be.

        Raises:
            AwayError: nobody answered, or only to say that the store is away.
        """
        async with self._locks.setdefault(path, asyncio.Lock()):
            at, known = self._answers.get(path, (float("-inf"), None))
            if time.monotonic() - at < (self._fresh if fresh_s is None else fresh_s):
                if isinstance(known, AwayError):
                    raise known
                return known
            if len(self._answers) > _KEPT_ANSWERS:
                self._answers.clear()
            try:
                found: Any = await self._fetch(path)
            except AwayError as error:
                self._answers[path] = (time.monotonic(), error)
                raise
            self._answers[path] = (time.monotonic(), found)
            return found

    async def items(self, path: str, fresh_s: float | None = None) -> list[Json]:
        """The items of a list.

        Raises:
            AwayError: as for `get`.
        """
        return list((await self.get(path, fresh_s))["items"])

    async def versions(self, model: str, limit: int) -> list[ModelVersion]:
        """Versions of a model, newest first.

        Raises:
            AwayError: as for `get`.
        """
        return [ModelVersion.from_json(item) for item in await self.items(f"/models/{model}/versions?limit={limit}")]

    async def events(self) -> Sequence[Event]:
        """The last events, oldest first.

        Raises:
            AwayError: as for `get`.
        """
        async with self._locks.setdefault("events", asyncio.Lock()):
            try:
                if self._after is None:
                    self._after = max(0, await self._client.newest() - _KEPT_EVENTS)
                while True:
                    page = await self._client.events(after=self._after)
                    self._events.extend(page.items)
                    self._after = page.next
                    if not page.items:
                        return tuple(self._events)
            except ControlError as error:
                raise AwayError(error.detail) from error

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()
        await self._http.aclose()

    async def _fetch(self, path: str) -> Any:
        try:
            answer = await self._http.get(path)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            raise AwayError(_detail(error.response)) from error
        except (httpx.HTTPError, ValueError) as error:
            raise AwayError(str(error) or type(error).__name__) from error


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {answer.status_code}"
