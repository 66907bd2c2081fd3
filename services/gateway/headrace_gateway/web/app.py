"""The HTTP application."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from headrace_core.web.docs import add_docs, add_keys
from headrace_core.web.guard import Guard
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headrace_gateway.essential import essential_task
from headrace_gateway.parts import Parts
from headrace_gateway.problem import MEDIA_TYPE, ProblemError
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.uuid7 import RequestIds
from headrace_gateway.web.access import needed
from headrace_gateway.web.endpoint import BodyLimits, Endpoint, as_problem
from headrace_gateway.web.features import FeatureRoutes
from headrace_gateway.web.hot import CatalogRoutes, EventRoutes, RankingRoutes
from headrace_gateway.web.openapi import add_hot_routes, problem_answers
from headrace_gateway.web.shell import Shell

_DESCRIPTION: Final = (
    "Behaviour events in, recommendations out. Times are ms since the epoch, ids are strings. "
    "Errors are RFC 9457 problem documents."
)


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(examples=["alive"])


class Readiness(BaseModel):
    """What can be served."""

    status: str = Field(description="ready or waiting.", examples=["ready"])
    waiting_for: str | None = Field(default=None, description="What is missing when not ready.")
    dependencies: dict[str, str] = Field(description="up, or why not.", examples=[{"kafka": "up", "redis": "up"}])
    items_in_memory: int = Field(description="Items that can be recommended without any store.")


def create_app(settings: GatewaySettings, parts: Parts, guard: Guard | None = None) -> ASGIApp:
    """The application over its parts, which it starts and stops with itself; without a guard everyone may call."""
    at_the_door = guard or Guard()

    def lifespan(_: FastAPI) -> AbstractAsyncContextManager[None]:
        return _running(parts, at_the_door)

    app = FastAPI(
        title="Headrace gateway",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for kind in (HTTPException, ProblemError, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer_problem)
    direct = _add_hot(app, settings, parts)
    _add_operations(app, parts)
    features = FeatureRoutes(parts.redis, parts.current, settings.read_deadline_ms / 1000, parts.now_ms)
    app.include_router(features.router(), responses=_responses(401, 403, 404, 422, 429, 500, 503))
    add_docs(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return Shell(app, direct, RequestIds(), at_the_door, settings.max_requests)


@contextlib.asynccontextmanager
async def _running(parts: Parts, guard: Guard) -> AsyncIterator[None]:
    watch = essential_task(guard.watch(), "the watch over the keys")
    try:
        async with parts.running():
            yield
    finally:
        watch.cancel()


def _add_hot(app: FastAPI, settings: GatewaySettings, parts: Parts) -> dict[str, Endpoint]:
    """Add the routes to the app, which answers 405 for them; give back those that need no routing."""
    direct: dict[str, Endpoint] = {}
    events, ranking, catalog = EventRoutes(parts.ingest), RankingRoutes(parts.recommender), CatalogRoutes(parts.catalog)
    limits = BodyLimits(settings.max_body_bytes, settings.body_timeout_ms / 1000)
    for method, path, handle in (
        ("POST", "/v1/events", events.post),
        ("POST", "/v1/recommend", ranking.recommend),
        ("POST", "/v1/rank", ranking.rank),
        ("PUT", "/v1/users/{id:path}", catalog.put_user),
        ("PUT", "/v1/items/{id:path}", catalog.put_item),
        ("POST", "/v1/users:batch", catalog.post_users),
        ("POST", "/v1/items:batch", catalog.post_items),
    ):
        endpoint = Endpoint(path.replace(":path", ""), handle, limits)
        app.router.routes.append(Route(path, endpoint, methods=[method]))
        if method == "POST":
            direct[path] = endpoint
    return direct


def _add_operations(app: FastAPI, parts: Parts) -> None:
    health = parts.health

    @app.get("/healthz", tags=["operations"], summary="Whether the process answers")
    async def healthz() -> Alive:
        return Alive(status="alive")

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Whether something useful can be served",
        responses={503: {"model": Readiness, "description": "Nothing useful can be served."}},
    )
    async def readyz(response: Response) -> Readiness:
        missing = health.missing()
        response.status_code = 200 if missing is None else 503
        return Readiness(
            status="ready" if missing is None else "waiting",
            waiting_for=missing,
            dependencies=health.dependencies(),
            items_in_memory=len(health.snapshot),
        )

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return dict(problem_answers(statuses).items())


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        add_hot_routes(document)
        add_keys(document, needed)
        app.openapi_schema = document
    return app.openapi_schema


async def _answer_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        faults = error.errors()
        where = ".".join(str(part) for part in faults[0]["loc"][1:]) if faults else "request"
        what = faults[0]["msg"] if faults else "not understood"
        problem = ProblemError(422, f"{where}: {what[:1].lower()}{what[1:]}", field=where)
    else:
        problem = as_problem(error)
    return Response(
        problem.body(request.scope.get("request_id")), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )
