"""A route from bytes to bytes: no request object, no validation by reflection, every error a problem document."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from headrace_gateway.problem import MEDIA_TYPE, ProblemError

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """One request.

    Attributes:
        body: as it came.
        request_id: made by the gateway.
        path_id: the id in the path, where the route has one.
    """

    body: bytes
    request_id: str
    path_id: str


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes


class BodyLimits(NamedTuple):
    """What a body may be.

    Attributes:
        bytes: a larger one is answered 413.
        seconds: one that is longer on its way is answered 408.
    """

    bytes: int
    seconds: float


class ClientLeftError(Exception):
    """The client closed the connection before its request was read."""


class Endpoint:
    """An ASGI app for one path.

    Args:
        path: its pattern, the label of its figures.
        handle: answers a call, or raises ProblemError.
        limits: of its body.
    """

    def __init__(self, path: str, handle: Callable[[Call], Awaitable[Answer]], limits: BodyLimits) -> None:
        self.path, self._handle, self._limits = path, handle, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await _in_time(scope, receive, self._limits)
            path_id = scope.get("path_params", {}).get("id", "")
            answer = await self._handle(Call(body, scope.get("request_id", ""), path_id))
        except ClientLeftError:
            return
        except Exception as error:  # noqa: BLE001  # the edge: what nobody foresaw is logged and answered 500
            await send_problem(as_problem(error), scope, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def _in_time(scope: Scope, receive: Receive, limits: BodyLimits) -> bytes:
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read(scope, receive, limits.bytes)
    except TimeoutError:
        # The rest of it would be taken for the next request.
        raise ProblemError(
            408, f"body: did not come within {limits.seconds:g} s", headers={"connection": "close"}
        ) from None


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, f"body: at most {limit} bytes are taken")


def as_problem(error: Exception) -> ProblemError:
    """Any error as a problem; one that nobody foresaw is logged and told as 500."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):
        return ProblemError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    log.error("a request failed", exc_info=error)
    return ProblemError(500, "the gateway failed; its log names the fault by request_id")


async def send_problem(problem: ProblemError, scope: Scope, send: Send) -> None:
    """Answer with a problem document."""
    body = problem.body(scope.get("request_id"))
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
