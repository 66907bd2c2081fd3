"""What stands between the control plane and a real API server, to break what the server does not break by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.cluster.background import Background
from tests.cluster.faults import Faults, cut, refusal
from tests.cluster.server import Server, free_port

_PASSED_ON: Final = ("authorization", "content-type", "accept")


@dataclass(eq=False)
class _Watch:
    deaf: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """By TLS on both sides, with the server's own certificate.

    Attributes:
        url: where it listens.
        faults: what goes wrong.
        requests: every call, as "METHOD path"; a watch as "WATCH path".
    """

    def __init__(self, server: Server, background: Background) -> None:
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.faults = Faults()
        self.requests: list[str] = []
        self._background = background
        self._watches: set[_Watch] = set()
        self._client = httpx.AsyncClient(
            base_url=server.url, verify=server.trust(), timeout=httpx.Timeout(30, read=None)
        )
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])])
        config = uvicorn.Config(
            app, port=port, log_config=None, http="h11", lifespan="off", timeout_graceful_shutdown=1,
            ssl_certfile=server.authority, ssl_keyfile=server.key,
        )  # fmt: skip
        self._server = uvicorn.Server(config)

    def start(self) -> None:
        """Listen."""

        async def begin() -> None:
            self._serving = asyncio.ensure_future(self._server.serve())
            while not self._server.started:
                await asyncio.sleep(0.01)

        self._background.do(begin())

    def close(self) -> None:
        """Listen no more."""

        async def end() -> None:
            for watch in self._watches:
                watch.ended.set()
            self._server.should_exit = True
            await self._serving
            await self._client.aclose()

        self._background.do(end())

    def end_watches(self) -> None:
        """End all watches."""
        self._each(lambda watch: watch.ended.set())

    def deafen(self) -> None:
        """Let the watches that there are hear of nothing more."""
        self._each(lambda watch: setattr(watch, "deaf", True))

    def _each(self, work: Callable[[_Watch], None]) -> None:
        async def all_of_them() -> None:
            for watch in self._watches:
                work(watch)

        self._background.do(all_of_them())

    async def _answer(self, request: Request) -> Response:
        watches = request.query_params.get("watch") == "true"
        self.requests.append(f"{'WATCH' if watches else request.method} {request.url.path}")
        if self.faults.away:
            return cut(request)
        if self.faults.status is not None:
            return JSONResponse(refusal(self.faults.status, "InternalError", "told to"), self.faults.status)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        asked = self._client.build_request(
            request.method, request.url.path, params=str(request.query_params), content=await request.body(),
            headers=headers | {"accept-encoding": "identity"},
        )  # fmt: skip
        try:
            answer = await self._client.send(asked, stream=True)
            kind = answer.headers.get("content-type")
            if watches and answer.status_code == 200:
                return StreamingResponse(self._relay(answer), media_type=kind)
            body = await answer.aread()
        except httpx.TransportError:
            return cut(request)
        if request.method == "POST" and answer.status_code == 201 and self.faults.drop_after_create:
            self.faults.drop_after_create -= 1
            return cut(request)
        return Response(body, answer.status_code, media_type=kind)

    async def _relay(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        watch = _Watch()
        self._watches.add(watch)
        ended = asyncio.ensure_future(watch.ended.wait())
        parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.ensure_future(_read_into(parts, answer))
        try:
            while True:
                part = asyncio.ensure_future(parts.get())
                await asyncio.wait({part, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not part.done() or (told := part.result()) is None:
                    part.cancel()
                    return
                if not watch.deaf:
                    yield told
        finally:
            self._watches.discard(watch)
            ended.cancel()
            reading.cancel()
            await asyncio.gather(reading, ended, return_exceptions=True)
            await answer.aclose()


async def _read_into(parts: "asyncio.Queue[bytes | None]", answer: httpx.Response) -> None:
    try:
        async for part in answer.aiter_raw():
            parts.put_nowait(part)
    except httpx.TransportError:
        pass  # the server has gone, and with it the watch
    finally:
        parts.put_nowait(None)
