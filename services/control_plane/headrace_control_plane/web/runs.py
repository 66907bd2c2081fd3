"""Routes of runs."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace_control_plane.parts import Parts
from headrace_control_plane.store import runs
from headrace_control_plane.store.database import now_ms
from headrace_control_plane.web.answers import Limit, answer
from headrace_control_plane.web.schema import ClaimIn, FinishIn, Name, TokenIn
from headrace_control_plane.web.told import Page, RunTold, Status, Stop, Token, shown


def router(parts: Parts) -> APIRouter:
    """Everything below /runs."""
    api = APIRouter(tags=["runs"])

    @api.get("/runs", summary="Runs, newest first", responses=shown(Page[RunTold]))
    async def get_runs(  # noqa: PLR0913, PLR0917  # query parameters
        workflow: str | None = None,
        task: str | None = None,
        status: Status | None = None,
        service: str | None = None,
        limit: Limit = 50,
        before: Annotated[int | None, Query(ge=1, description="`next` of the page before.")] = None,
    ) -> Response:
        wanted = {"workflow": workflow, "task": task, "status": status, "service": service}
        items, following = await runs.listed(parts.pool, wanted, limit, before)
        return answer({"items": items, "next": following})

    @api.get("/runs/{run_id}", summary="One run", responses=shown(RunTold))
    async def get_run(run_id: Name) -> Response:
        return answer(await runs.one(parts.pool, run_id))

    @api.post("/runs/{run_id}/claim", summary="Take a run that was started", responses=shown(Token))
    async def claim(run_id: Name, body: ClaimIn) -> Response:
        return answer({"token": await runs.claim(parts.pool, run_id, body.model_dump(), now_ms())})

    @api.post("/runs/{run_id}/heartbeat", summary="Say that a run lives", responses=shown(Stop))
    async def heartbeat(run_id: Name, body: TokenIn) -> Response:
        return answer({"stop": await runs.heartbeat(parts.pool, run_id, body.token, now_ms())})

    @api.post("/runs/{run_id}/finish", summary="End a run", responses=shown(RunTold))
    async def finish(run_id: Name, body: FinishIn) -> Response:
        told = await runs.finish(parts.pool, run_id, body.token, body.status, body.result, body.error, now_ms())
        return answer(told)

    return api
