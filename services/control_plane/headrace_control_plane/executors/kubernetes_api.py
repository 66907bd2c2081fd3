"""The API of Kubernetes, as far as runs need it: create, read, apply, delete, and watch what there is.

httpx and six calls rather than a client library: those known bring a model of every kind, and neither server-side apply nor
the resumption of watches, which are what matters here.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from headrace_control_plane.executors.executor import ExecutorError

log = logging.getLogger(__name__)

Object = dict[str, Any]

_TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
#: A watch is asked for anew so often; a connection that died without a word is noticed a little later.
_WATCH_SECONDS: Final = 60
#: Answers that another moment may change: the token is being replaced, a right or a quota is being given, the server is busy.
_PASSING: Final = frozenset({401, 403, 408, 425, 429})
_LONGEST_PAUSE_SECONDS: Final = 15.0


class ApiAwayError(Exception):
    """There is no answer now; what was asked may have been done all the same.

    Attributes:
        status: of HTTP, where there was an answer that another moment may change; else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ApiRefusedError(Exception):
    """The answer is no.

    Attributes:
        status: of HTTP.
        reason: of Kubernetes, such as AlreadyExists.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Pause:
    """How long to leave a server alone that is away: twice as long each time, and not as long as others do."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def failed(self) -> float:
        """Note a failure; seconds to wait."""
        seconds = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2.0 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures += 1
        self._until = time.monotonic() + seconds
        return seconds

    def over(self) -> None:
        """Note a success."""
        self._failures = 0

    @property
    def lasts(self) -> bool:
        """Whether to go on waiting."""
        return time.monotonic() < self._until

    async def all_of(self, work: Iterable[Coroutine[Any, Any, bool]]) -> bool:
        """Do it at once; whether one of them is true. Those that found the server away are left for after a pause."""
        away: list[ApiAwayError] = []

        async def one(coroutine: Coroutine[Any, Any, bool]) -> bool:
            try:
                return await coroutine
            except ApiAwayError as error:
                away.append(error)
                return False

        results = await asyncio.gather(*(one(coroutine) for coroutine in work))
        if away:
            told = {"error": str(away[0]), "pause_s": round(self.failed(), 2)}
            log.warning("Kubernetes does not answer, or not now", extra={"fields": told})
        else:
            self.over()
        return any(results)


class KubernetesApi:
    """Calls with the token of the service account, which is read anew for each call: it is replaced every hour or so."""

    def __init__(self, url: str, account: Path) -> None:
        """Work on the API server at this URL, as the account whose token and CA are in this folder.

        Raises:
            ExecutorError: there is no such CA.
        """
        self._token = account / "token"
        authority = account / "ca.crt"
        try:
            verify = ssl.create_default_context(cafile=str(authority)) if url.startswith("https:") else False
        except OSError as error:
            raise ExecutorError(f"{authority}: {error}") from error
        self._client = httpx.AsyncClient(base_url=url, verify=verify, timeout=_TIMEOUT, trust_env=False)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> Object:
        """What the server answers.

        Raises:
            ApiAwayError: try again later.
            ApiRefusedError: another time it will be the same.
        """
        try:
            answer = await self._client.request(
                method,
                path,
                content=None if body is None else orjson.dumps(body),
                params=params,
                headers=self._headers() | {"content-type": kind},
            )
        except (httpx.RequestError, OSError) as error:
            raise ApiAwayError(f"{method} {path}: {error!r}") from error
        return _read(answer, f"{method} {path}")

    async def apply(self, path: str, manager: str, partial: Mapping[str, Any]) -> Object:
        """Have these fields as they are here, as their manager; all others stay as they are."""
        params = {"fieldManager": manager, "force": "true"}
        return await self.call("PATCH", path, partial, params, "application/apply-patch+yaml")

    async def events(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Object]:
        """The events of a watch, until the server ends it.

        Raises:
            ApiAwayError: the connection was lost.
            ApiRefusedError: 410 when the watch can't begin where it was told to.
        """
        asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS), **params}
        timeout = httpx.Timeout(_WATCH_SECONDS + 15.0, connect=5.0)
        try:
            async with self._client.stream(
                "GET", path, params=asked, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    _read(answer, f"watch {path}")
                rest = b""
                async for part in answer.aiter_bytes():
                    # Not by lines of text, which end at more characters than JSON escapes.
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        yield orjson.loads(line)
        except (httpx.RequestError, OSError, orjson.JSONDecodeError) as error:
            raise ApiAwayError(f"watch {path}: {error!r}") from error

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token.read_text(encoding='ascii').strip()}"}


def _read(answer: httpx.Response, what: str) -> Object:
    try:
        told: Object = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        told = {}
    if answer.status_code in _PASSING or answer.status_code >= 500 or not (answer.is_error or told):
        raise ApiAwayError(f"{what}: {answer.status_code} {told.get('message', '')}", answer.status_code)
    if answer.is_error:
        raise ApiRefusedError(answer.status_code, told.get("reason", ""), told.get("message") or f"{what}: refused")
    return told


def selector(labels: Mapping[str, str]) -> dict[str, str]:
    """The parameter that asks for objects with all of these labels."""
    return {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(labels.items()))}


class Watched:
    """The objects of one kind with some labels, kept as the server has them.

    Attributes:
        objects: by name.
        known: they were read since the watch began. While the server is away they stay as they were last.
    """

    def __init__(self, api: KubernetesApi, path: str, labels: Mapping[str, str]) -> None:
        self._api, self._path = api, path
        self._selector = selector(labels)
        self.objects: dict[str, Object] = {}
        self.known = False

    async def watch(self) -> None:
        """Keep them, for ever."""
        self.objects, self.known = {}, False
        version: str | None = None
        pause = Pause()
        while True:
            try:
                if version is None:
                    version = await self._list()
                began = time.monotonic()
                async for event in self._api.events(self._path, self._selector | {"resourceVersion": version}):
                    version = self._see(event)
                    pause.over()
                if time.monotonic() - began < 1.0:
                    await asyncio.sleep(pause.failed())
            except ApiAwayError as away:
                seconds = pause.failed()
                log.warning("a watch was lost", extra={"fields": {"error": str(away), "pause_s": round(seconds, 2)}})
                await asyncio.sleep(seconds)
            except ApiRefusedError as refused:
                if refused.status != 410:
                    log.warning("a watch was refused", extra={"fields": {"path": self._path, "error": str(refused)}})
                    await asyncio.sleep(pause.failed())
                version = None  # what happened since is no longer told: everything is read anew

    async def _list(self) -> str:
        told = await self._api.call("GET", self._path, params=self._selector)
        self.objects = {item["metadata"]["name"]: item for item in told["items"]}
        self.known = True
        return str(told["metadata"]["resourceVersion"])

    def _see(self, event: Mapping[str, Any]) -> str:
        thing = event["object"]
        if event["type"] == "ERROR":
            raise ApiRefusedError(int(thing.get("code", 500)), thing.get("reason", ""), thing.get("message", ""))
        if event["type"] == "DELETED":
            self.objects.pop(thing["metadata"]["name"], None)
        elif event["type"] != "BOOKMARK":
            self.objects[thing["metadata"]["name"]] = thing
        return str(thing["metadata"]["resourceVersion"])


def nearest(url: str, environment: Mapping[str, str]) -> str:
    """The API server: the one that was told, else the one that every pod is told of.

    Raises:
        ExecutorError: there is none.
    """
    if url:
        return url.rstrip("/")
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ExecutorError("this is no pod of Kubernetes, and HEADRACE_KUBERNETES_API is not set")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"
