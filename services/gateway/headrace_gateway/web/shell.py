"""Around every request: its id, its key, its limit, its figures. Plain ASGI, since it is on the hot path."""

import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from headrace_core.telemetry import REQUEST_SECONDS
from headrace_core.web.guard import REFUSED, Guard
from prometheus_client import Histogram  # noqa: TC002  # names the type of a dict at run time
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_gateway.problem import ProblemError
from headrace_gateway.uuid7 import RequestIds
from headrace_gateway.web.access import OPERATIONS, needed
from headrace_gateway.web.endpoint import send_problem

#: Id of the request that is being answered; part of every log line made for it.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_CLIENT_LEFT: Final = 499


class RequestIdFilter(logging.Filter):
    """Adds request_id to the fields of a log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        if request_id := REQUEST_ID.get():
            record.fields = {**getattr(record, "fields", {}), "request_id": request_id}
        return True


class Shell:
    """The outermost layer.

    Args:
        app: what answers.
        direct: endpoints of POST by path, called without the app's routing and layers, which cost a call of one event a fifth.
        ids: makes request ids.
        guard: lets requests in.
        max_requests: more at once are answered 429.
    """

    def __init__(
        self, app: ASGIApp, direct: Mapping[str, ASGIApp], ids: RequestIds, guard: Guard, max_requests: int
    ) -> None:
        self._app, self._direct, self._ids, self._guard, self._max = app, direct, ids, guard, max_requests
        self._needs = {path: needed("POST", path) for path in direct}
        self._open = 0
        # Bound once for each route and status: finding a label anew costs as much as the observation.
        self._seconds: dict[tuple[str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = self._ids.next()
        token = REQUEST_ID.set(request_id)
        started = time.perf_counter()
        status = _CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        self._open += 1
        try:
            method, path = scope["method"], scope["path"]
            endpoint = self._direct.get(path) if method == "POST" else None
            needs = self._needs[path] if endpoint is not None else needed(method, path)
            if endpoint is not None:
                scope["endpoint"] = endpoint
            try:
                self._admit(scope, needs)
            except ProblemError as refused:
                await send_problem(refused, scope, send_with_id)
            else:
                await (endpoint or self._app)(scope, receive, send_with_id)
        finally:
            self._open -= 1
            self._observe(_route(scope), status, time.perf_counter() - started)
            REQUEST_ID.reset(token)

    def _admit(self, scope: Scope, needs: str | None) -> None:
        if self._open > self._max and scope["path"] not in OPERATIONS:
            REFUSED.labels("too_many").inc()
            raise ProblemError(429, f"{self._max} requests are open already", retry_after_seconds=1.0)
        if needs is not None:
            self._guard.admit(scope, needs)

    def _observe(self, route: str, status: int, seconds: float) -> None:
        observer = self._seconds.get((route, status))
        if observer is None:
            observer = self._seconds[route, status] = REQUEST_SECONDS.labels(route, str(status))
        observer.observe(seconds)


def _route(scope: Scope) -> str:
    """The route's pattern: a label of bounded cardinality, unlike the path."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or getattr(scope.get("endpoint"), "path", None) or "none")
