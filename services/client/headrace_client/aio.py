"""The async client."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import aiohttp
from yarl import URL

from headrace_client import calls
from headrace_client.messages import Event, EventsResult, FeaturesOf, Item, RankedList, Ranking, Readiness, Scalar, User
from headrace_client.retries import Retries

T = TypeVar("T")

#: Nothing of the request had left.
_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class AsyncClient:
    """Calls of a gateway, as many at once as there are tasks.

    429 and 503 are tried again after their Retry-After and a jittered pause; so are lost connections where repeating the call is
    harmless (`headrace_client.calls` tells where, and why). When patience is over the last error is raised: a subclass of
    `ApiError` by the answer's status, or `NoAnswerError`.

    Args:
        url: of the gateway, e.g. http://127.0.0.1:8080.
        api_key: sent as bearer token; a function is asked for it before each try.
        timeout_s: of one try.
        retries: how long and how often a call is tried again.
        connections: at once, at most.

    Attributes:
        lost: tries that were not answered at all so far.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: calls.ApiKey = None,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        connections: int = 100,
    ) -> None:
        self.lost = 0
        self._retries = retries or Retries()
        self._url, self._key, self._timeout, self._connections = url.rstrip("/"), api_key, timeout_s, connections
        self._http: aiohttp.ClientSession | None = None  # made where the loop runs

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def send_events(self, events: Iterable[Event]) -> EventsResult:
        """Send any number of events; returns once each is accepted (Kafka has it) or rejected.

        Raises:
            EventsNotAcceptedError: some were not acknowledged within patience; it names them by index.
        """
        return await self._run(calls.send_events(list(events), self._retries))

    async def recommend(  # noqa: PLR0913  # the fields of the call
        self,
        user_id: str,
        page_id: str,
        *,
        count: int = 10,
        item_type: str | None = None,
        categories: Sequence[str] | None = None,
        context: Mapping[str, Scalar] | None = None,
        exclude: Sequence[str] = (),
    ) -> Ranking:
        """The best available items for a user on a page, `count` at most.

        Raises:
            HeadraceError: as the class says.
        """
        asked = calls.asked(user_id, page_id, count, None, item_type, categories, context, exclude)
        return await self._run(calls.ranked("/v1/recommend", asked, self._retries))

    async def rank(  # noqa: PLR0913  # the fields of the call
        self,
        user_id: str,
        page_id: str,
        candidates: Sequence[str],
        *,
        count: int | None = None,
        item_type: str | None = None,
        categories: Sequence[str] | None = None,
        context: Mapping[str, Scalar] | None = None,
        exclude: Sequence[str] = (),
    ) -> Ranking:
        """The candidates (500 at most), best first; all of them unless `count` is told.

        Raises:
            HeadraceError: as the class says.
        """
        asked = calls.asked(user_id, page_id, count, candidates, item_type, categories, context, exclude)
        return await self._run(calls.ranked("/v1/rank", asked, self._retries))

    async def put_user(self, user: User) -> int:
        """Write a catalog entry; its version, once it can be read.

        Raises:
            HeadraceError: as the class says.
        """
        return await self._run(calls.put_one("users", user.user_id, user, self._retries))

    async def put_item(self, item: Item) -> int:
        """Write a catalog entry; its version, once it is a candidate of recommendations.

        Raises:
            HeadraceError: as the class says.
        """
        return await self._run(calls.put_one("items", item.item_id, item, self._retries))

    async def put_users(self, users: Iterable[User]) -> list[int]:
        """Write any number of catalog entries; the version of each.

        Raises:
            HeadraceError: as the class says; calls of 1,000 before it stand.
        """
        return await self._run(calls.put_all("users", list(users), self._retries))

    async def put_items(self, items: Iterable[Item]) -> list[int]:
        """Write any number of catalog entries; the version of each.

        Raises:
            HeadraceError: as the class says; calls of 1,000 before it stand.
        """
        return await self._run(calls.put_all("items", list(items), self._retries))

    async def user_features(self, user_id: str) -> FeaturesOf:
        """Every current feature value of a user.

        Raises:
            HeadraceError: as the class says.
        """
        return await self._run(calls.features("users", user_id, self._retries))

    async def item_features(self, item_id: str) -> FeaturesOf:
        """Every current feature value of an item.

        Raises:
            HeadraceError: as the class says.
        """
        return await self._run(calls.features("items", item_id, self._retries))

    async def ranked_list(self, feature: str, key: Sequence[str]) -> RankedList:
        """The current ranked list of a key, e.g. ("top_ads_by_segment", ["China", "male", "100"]).

        Raises:
            NotFoundError: no such feature is defined.
            HeadraceError: as the class says.
        """
        return await self._run(calls.ranked_list(feature, key, self._retries))

    async def readiness(self) -> Readiness:
        """Whether something useful can be served; asked once, and told also when it can't.

        Raises:
            NoAnswerError: nobody answered.
        """
        return await self._run(calls.readiness())

    async def _run(self, flow: calls.Flow[T]) -> T:
        outcome: calls.Outcome = None
        try:
            while True:
                step = flow.send(outcome)
                if isinstance(step, calls.Wait):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._send(step)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _send(self, send: calls.Send) -> calls.Outcome:
        if self._http is None:
            self._http = self._session()
        address, headers = URL(self._url + send.path, encoded=True), calls.authorization(self._key)
        try:
            async with self._http.request(send.method, address, data=send.body or None, headers=headers) as answer:
                return calls.Answer(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            self.lost += 1
            return calls.Lost(error, sent=not isinstance(error, _NEVER_SENT))

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=calls.HEADERS,
            # Waiting for a connection to become free is no part of a try.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=self._timeout),
            connector=aiohttp.TCPConnector(limit=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
