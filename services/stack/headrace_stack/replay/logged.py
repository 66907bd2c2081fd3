"""Whether the feature logs of answers have left the gateway.

A gateway logs what served in the background, and one that is killed takes the logs of its last moments along; their impressions
would be orphans. Its own figures tell exactly how far it is: rankings it answered, and logs that Kafka has (or that it gave up).
The time at which its process began tells whether it still is the one that answered.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import httpx
from headrace_client import AsyncClient, NoAnswerError

_EVERY_S: Final = 0.1
_TIMEOUT_S: Final = 30.0
_FIGURES: Final = re.compile(
    r'^(?:(?P<began>process_start_time_seconds)'
    r'|(?P<answered>headrace_request_seconds_count\{route="/v1/(?:rank|recommend)",status="200"\})'
    r'|(?P<logged>headrace_events_total\{service="gateway",topic="feature-logs\.v1"\}'
    r'|headrace_degraded_total\{reason="feature_log_(?:dropped|too_large)"\})) (?P<value>\S+)$',
    re.MULTILINE,
)  # fmt: skip


class Reading(NamedTuple):
    """Figures of all gateways at one time.

    Attributes:
        began: when each process began; another one has taken its place when it changes.
        answered: rankings, sums over all.
        logged: feature logs that are in Kafka or were given up.
    """

    began: tuple[float, ...]
    answered: int
    logged: int


def reading_of(texts: Sequence[str]) -> Reading:
    """Figures out of the gateways' metrics, one text each."""
    began: list[float] = []
    sums = {"answered": 0.0, "logged": 0.0}
    for text in texts:
        for found in _FIGURES.finditer(text):
            if found["began"]:
                began.append(float(found["value"]))
            else:
                sums["answered" if found["answered"] else "logged"] += float(found["value"])
    return Reading(tuple(began), int(sums["answered"]), int(sums["logged"]))


class Watch(Protocol):
    """Tells whether what was ranked meanwhile is logged."""

    def mark(self) -> object:
        """Before the first ranking."""

    async def logged(self, mark: object) -> bool:
        """After the last: True as soon as all is logged; False when a gateway was lost and may have taken logs along."""


class FiguresWatch:
    """By the figures of gateways that are known one by one.

    Args:
        addresses: of their metrics.
        patience_s: how long no answer is waited out.
    """

    def __init__(self, addresses: Sequence[str], patience_s: float) -> None:
        self._addresses, self._patience = [f"{a}/metrics" for a in addresses], patience_s
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        self._latest: Reading | None = None
        self._next: asyncio.Future[Reading] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._reading()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._http.aclose()

    def mark(self) -> object:
        """The processes of now."""
        return self._latest and self._latest.began

    async def logged(self, mark: object) -> bool:
        """As the protocol says.

        Raises:
            NoAnswerError: a gateway gave no figures for longer than patience.
        """
        first = reading = await self._reading()
        while reading.began == mark and reading.logged < first.answered:
            reading = await self._reading()
        return reading.began == mark

    async def _reading(self) -> Reading:
        """Figures asked for from now on; one question at a time serves all who wait."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._ask())
        return await asyncio.shield(self._next)

    async def _ask(self) -> None:
        while self._next is not None:
            await asyncio.sleep(_EVERY_S)  # whoever comes meanwhile waits for the same answer
            waiting, self._next = self._next, None
            try:
                self._latest = await self._asked()
            except Exception as error:  # noqa: BLE001  # whatever it is, those who wait end with it
                waiting.set_exception(error)
                return
            waiting.set_result(self._latest)

    async def _asked(self) -> Reading:
        end = time.monotonic() + self._patience
        while True:
            try:
                answers = await asyncio.gather(*(self._http.get(address) for address in self._addresses))
                return reading_of([answer.raise_for_status().text for answer in answers])
            except httpx.HTTPError as error:
                if time.monotonic() > end:
                    raise NoAnswerError(f"no figures of the gateway: {error or type(error).__name__}") from error
                await asyncio.sleep(_EVERY_S)


class HoldWatch:
    """By a moment's wait, where gateways are not known one by one: it should be longer than logs take to leave.

    Args:
        client: whose lost connections tell of a lost gateway.
        hold_s: the moment.
    """

    def __init__(self, client: AsyncClient, hold_s: float = 1.0) -> None:
        self._client, self._hold_s = client, hold_s

    def mark(self) -> object:
        """Connections lost so far."""
        return self._client.lost

    async def logged(self, mark: object) -> bool:
        """As the protocol says."""
        await asyncio.sleep(self._hold_s)
        try:
            await self._client.readiness()
        except NoAnswerError:
            return False
        return self._client.lost == mark
