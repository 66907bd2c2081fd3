"""Routes of models."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from headrace_control_plane.parts import Parts
from headrace_control_plane.store import models
from headrace_control_plane.store.database import now_ms
from headrace_control_plane.web.answers import Limit, answer, cursor
from headrace_control_plane.web.schema import MetricsIn, Name, Stage, StageIn, VersionIn
from headrace_control_plane.web.told import MetricTold, ModelTold, Page, Recorded, Reserved, VersionTold, shown

Model = Annotated[Name, Path(examples=["ctr"])]
Number = Annotated[int, Path(ge=1, le=2**62)]


def router(parts: Parts) -> APIRouter:
    """Everything below /models."""
    api = APIRouter(tags=["models"])

    @api.get("/models", summary="Models", responses=shown(Page[ModelTold]))
    async def get_models() -> Response:
        return answer({"items": await models.models(parts.pool), "next": None})

    @api.post(
        "/models/{model}/versions:reserve",
        status_code=201,
        summary="Reserve the next version number",
        responses=shown(Reserved, 201),
    )
    async def reserve(model: Model) -> Response:
        return answer({"version": await models.reserve(parts.pool, model)}, 201)

    @api.post(
        "/models/{model}/versions",
        status_code=201,
        summary="Register a reserved version",
        responses=shown(VersionTold, 201) | shown(VersionTold, 200, "It is registered already, with the same content."),
    )
    async def register(model: Model, body: VersionIn) -> Response:
        content: dict[str, Any] = body.model_dump(exclude={"version", "run"})
        told, new = await models.register(parts.pool, model, body.version, content, body.run, now_ms())
        return answer(told, 201 if new else 200)

    @api.get("/models/{model}/versions", summary="Versions, newest first", responses=shown(Page[VersionTold]))
    async def get_versions(
        model: Model, stage: Stage | None = None, limit: Limit = 50, before: Annotated[int | None, Query(ge=1)] = None
    ) -> Response:
        found = await models.versions(parts.pool, model, stage, limit + 1, before)
        return answer({"items": found[:limit], "next": cursor(found, limit, "version")})

    @api.get("/models/{model}/versions/{version}", summary="One version", responses=shown(VersionTold))
    async def get_version(model: Model, version: Number) -> Response:
        return answer(await models.version(parts.pool, model, version))

    @api.post(
        "/models/{model}/versions/{version}/stage", summary="Move a version to a stage", responses=shown(VersionTold)
    )
    async def move(model: Model, version: Number, body: StageIn) -> Response:
        told = await models.move(
            parts.pool, model, version, body.stage, by=body.by, why=body.why, details=body.details, track=body.track,
            run=body.run, now=now_ms(),
        )  # fmt: skip
        return answer(told)

    @api.post("/models/{model}/versions/{version}/metrics", summary="Record metrics", responses=shown(Recorded))
    async def post_metrics(model: Model, version: Number, body: MetricsIn) -> Response:
        items = [item.model_dump() for item in body.items]
        items = [item | {"value": float("nan")} if item["value"] is None else item for item in items]
        await models.record_metrics(parts.pool, model, version, items)
        return answer({"recorded": len(items)})

    @api.get(
        "/models/{model}/versions/{version}/metrics", summary="Metrics over time", responses=shown(Page[MetricTold])
    )
    async def get_metrics(model: Model, version: Number) -> Response:
        return answer({"items": await models.metrics(parts.pool, model, version), "next": None})

    @api.get("/models/{model}/deployed", summary="The deployed version", responses=shown(VersionTold))
    async def deployed(model: Model, track: str = "stable") -> Response:
        return answer(await models.deployed(parts.pool, model, track))

    return api
