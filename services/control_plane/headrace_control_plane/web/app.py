"""The HTTP application."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import asyncpg
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from headrace_core.telemetry import REQUEST_SECONDS
from headrace_core.web.docs import add_docs, add_keys
from headrace_core.web.guard import Guard
from headrace_core.web.keys import ADMIN
from headrace_core.web.problem import MEDIA_TYPE, ProblemError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_control_plane.console import is_page, mount
from headrace_control_plane.essential import essential
from headrace_control_plane.parts import Parts
from headrace_control_plane.store.database import AWAY
from headrace_control_plane.web import events, models, runs, workflows
from headrace_control_plane.web.audit import Audit
from headrace_control_plane.web.sessions import LOGIN, LOGOUT, Sessions

log = logging.getLogger(__name__)

_DESCRIPTION: Final = (
    "Events, models, runs and workflows. Times are ms since the epoch. Errors are RFC 9457 problem documents."
)
_MOST_BYTES: Final = 4 * 1024 * 1024


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was wrong, where, and what to do; begins with the field.")


def create_app(parts: Parts, url: str, guard: Guard | None = None) -> ASGIApp:
    """The application over its parts, which it starts and stops with itself; without a guard everyone may call.

    Args:
        parts: what the routes use.
        url: where its console reads it.
        guard: lets requests in.
    """
    at_the_door = guard or Guard()
    audit = Audit(parts)
    sessions = Sessions(at_the_door, parts.settings.console_secret.get_secret_value())

    def lifespan(_: FastAPI) -> AbstractAsyncContextManager[None]:
        return _running(parts, at_the_door)

    app = FastAPI(
        title="Headrace control plane",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for kind in (HTTPException, ProblemError, RequestValidationError, *AWAY, asyncpg.DataError, Exception):
        app.add_exception_handler(kind, _answer_problem)
    described: dict[int | str, dict[str, Any]] = {
        status: {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, text in (
            (401, "No key, an unknown or an expired one; not while no keys are configured."),
            (403, "The key lacks the scope admin."),
            (404, "Unknown."),
            (409, "Against the rules; the detail says which."),
            (408, "The body took too long to come."),
            (413, "The body is too large."),
            (422, "Not understood; the detail names the field."),
            (429, "Over the limit; try again after Retry-After seconds."),
            (503, "PostgreSQL is away; try again."),
        )
    }
    api = APIRouter(prefix="/api/v1", responses=described)
    api.include_router(events.router(parts))
    for module in (models, runs, workflows):
        api.include_router(module.router(parts), dependencies=[Depends(audit.begin)])
    api.include_router(audit.router())
    app.include_router(api)
    _add_operations(app, parts)
    add_docs(app)
    sessions.add_pages(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    mount(app, parts.settings, url, at_the_door.mint("(console)"))
    return Shell(app, at_the_door, sessions, audit, parts.settings.body_timeout_ms / 1000)


@contextlib.asynccontextmanager
async def _running(parts: Parts, guard: Guard) -> AsyncIterator[None]:
    watch = essential(guard.watch(), "the watch over the keys")
    try:
        async with parts.running():
            yield
    finally:
        watch.cancel()


def _add_operations(app: FastAPI, parts: Parts) -> None:
    @app.get("/healthz", tags=["operations"], summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Whether it can do its work",
        responses={503: {"model": dict[str, str], "description": "PostgreSQL is away."}},
    )
    async def readyz(response: Response) -> dict[str, str]:
        try:
            await parts.pool.fetchval("SELECT newest FROM control.counter", timeout=2)
        except (*AWAY, asyncpg.UndefinedTableError) as error:
            response.status_code = 503
            return {"status": "waiting", "for": f"PostgreSQL: {error!r}"}
        return {"status": "ready"}

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def _answer_problem(_: Request, error: Exception) -> Response:
    return problem_answer(as_problem(error))


def as_problem(error: Exception) -> ProblemError:
    """Any error as a problem; one that nobody foresaw is logged and told as 500."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error.__cause__, ProblemError):  # FastAPI makes a 400 of whatever ends the reading of a body
        return error.__cause__
    if isinstance(error, RequestValidationError):
        faults = error.errors()
        where = ".".join(str(part) for part in faults[0]["loc"][1:]) or "body" if faults else "request"
        what = str(faults[0]["msg"]) if faults else "not understood"
        return ProblemError(422, f"{where}: {what[:1].lower()}{what[1:]}", field=where)
    if isinstance(error, HTTPException):
        if error.status_code == 400 and error.__cause__ is not None:
            return ProblemError(422, "body: can't be read as JSON", field="body")
        return ProblemError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    return _store_problem(error)


def _store_problem(error: Exception) -> ProblemError:
    if isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError)):
        return ProblemError(422, f"it can't be stored: {error}")
    if isinstance(error, AWAY):
        log.warning("PostgreSQL is away", extra={"fields": {"error": repr(error)}})
        return ProblemError(503, "PostgreSQL is away, try again", retry_after_seconds=1)
    log.error("a request failed", exc_info=error)
    return ProblemError(500, "the control plane failed; its log tells how")


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        add_keys(document, lambda _, path: ADMIN if path.startswith(_API) else None)
        app.openapi_schema = document
    return app.openapi_schema


#: Open to everyone: what watches a service has no key, and the page of the API holds no data.
_OPEN: Final = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", LOGIN, LOGOUT})
_API: Final = "/api/"


class Shell:
    """The outermost layer: keys, sessions, the limits of bodies, and the figures. Plain ASGI, since it is around every event.

    Args:
        app: what answers.
        guard: lets calls of the API in.
        sessions: let people into the console.
        audit: is told how calls were answered.
        body_seconds: a body may take so long.
    """

    def __init__(self, app: ASGIApp, guard: Guard, sessions: Sessions, audit: Audit, body_seconds: float) -> None:
        self._app, self._guard, self._sessions, self._audit = app, guard, sessions, audit
        self._body_seconds = body_seconds
        self._seconds: dict[tuple[str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket" and not self._sessions.admits(scope):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # the client left

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await self._audit.end(scope, status)
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, _limited(receive, self._body_seconds), send_and_note)
            else:
                await refusal(scope, receive, send_and_note)
        finally:
            route = str(getattr(scope.get("route"), "path", "none"))
            observer = self._seconds.get((route, status))
            if observer is None:
                observer = self._seconds[route, status] = REQUEST_SECONDS.labels(route, str(status))
            observer.observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead, if the request may not pass."""
        path = scope["path"]
        if path in _OPEN or path.startswith("/docs/"):
            return None
        try:
            if path.startswith(_API):
                scope["caller"] = self._guard.admit(scope, ADMIN)
            elif not self._sessions.admits(scope):
                if scope["method"] == "GET" and is_page(path):
                    return RedirectResponse(LOGIN, 303, headers={"cache-control": "no-store"})
                self._guard.admit(scope, ADMIN)
        except ProblemError as problem:
            return problem_answer(problem)
        return None


def problem_answer(problem: ProblemError) -> Response:
    """A problem as it is sent."""
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _limited(receive: Receive, seconds: float) -> Callable[[], Awaitable[Message]]:
    size, whole = 0, False

    async def counted() -> Message:
        nonlocal size, whole
        if whole:  # what comes now is that the client leaves
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise ProblemError(
                408, f"body: did not come within {seconds:g} s", headers={"connection": "close"}
            ) from None
        whole = not message.get("more_body", False)
        size += len(message.get("body", b""))
        if size > _MOST_BYTES:
            raise ProblemError(413, f"body: at most {_MOST_BYTES} bytes are taken")
        return message

    end = asyncio.get_running_loop().time() + seconds
    return counted
