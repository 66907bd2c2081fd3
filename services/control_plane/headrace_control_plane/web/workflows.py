"""Routes of workflows, their rules and tasks."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Body, Query
from headrace_core.control.records import Event
from headrace_core.web.problem import ProblemError, invalid
from headrace_core.workflow import templates
from headrace_core.workflow.document import WorkflowError, last_leaves, validate
from headrace_core.workflow.templates import TemplateError
from starlette.responses import Response

from headrace_control_plane.parts import Parts
from headrace_control_plane.rules.conditions import Happened, matches
from headrace_control_plane.rules.explain import explain, missing, words
from headrace_control_plane.scheduler.actions import Actions, Cause, Target
from headrace_control_plane.store import events, runs, workflows
from headrace_control_plane.store.database import Connection, now_ms
from headrace_control_plane.web.answers import Limit, answer
from headrace_control_plane.web.events import told
from headrace_control_plane.web.schema import Name, StartIn
from headrace_control_plane.web.told import (
    Applied,
    Effect,
    Page,
    Paused,
    RuleTold,
    RunTold,
    TaskTold,
    Why,
    WorkflowListed,
    WorkflowTold,
    shown,
)

_MOST_BYTES: Final = 1_000_000
#: So many of the newest events are looked through for one that a start by hand can take.
_LOOKED_BACK: Final = 1_000


def router(parts: Parts) -> APIRouter:
    """Everything below /workflows."""
    api = APIRouter(tags=["workflows"])
    _add_flows(api, parts)
    _add_rules(api, parts)
    _add_tasks(api, parts)
    return api


def _add_flows(api: APIRouter, parts: Parts) -> None:

    @api.post(
        "/workflows",
        status_code=201,
        summary="Upload a workflow; it is active from the newest event on",
        responses=shown(Applied, 201) | shown(Applied, 200, "This document is there already."),
    )
    async def upload(document: Annotated[dict[str, Any], Body()]) -> Response:
        _check(document)
        snapshot, new = await workflows.apply(parts.pool, document, now_ms())
        return answer({"workflow": document["workflow"], "snapshot": snapshot}, 201 if new else 200)

    @api.get("/workflows", summary="Workflows", responses=shown(Page[WorkflowListed]))
    async def get_workflows() -> Response:
        return answer({"items": await workflows.listed(parts.pool), "next": None})

    @api.get("/workflows/{workflow}", summary="A workflow with its document", responses=shown(WorkflowTold))
    async def get_workflow(workflow: Name, snapshot: Annotated[int | None, Query(ge=1)] = None) -> Response:
        return answer(await workflows.one(parts.pool, workflow, snapshot))

    @api.post(
        "/workflows/{workflow}/pause",
        summary="Stop looking at events and the clock; runs go on",
        responses=shown(Paused),
    )
    async def pause(workflow: Name) -> Response:
        await workflows.pause(parts.pool, workflow, now_ms(), paused=True)
        return answer({"workflow": workflow, "paused": True})

    @api.post("/workflows/{workflow}/resume", summary="Look at what comes from now on", responses=shown(Paused))
    async def resume(workflow: Name) -> Response:
        await workflows.pause(parts.pool, workflow, now_ms(), paused=False)
        return answer({"workflow": workflow, "paused": False})


def _add_rules(api: APIRouter, parts: Parts) -> None:
    @api.get("/workflows/{workflow}/rules", summary="Rules", responses=shown(Page[RuleTold]))
    async def get_rules(workflow: Name) -> Response:
        flow = await workflows.one(parts.pool, workflow)
        items = [rule | {"words": _rule_words(rule)} for rule in flow["document"]["rules"]]
        return answer({"items": items, "next": None})

    @api.get("/workflows/{workflow}/rules/{rule}/why", summary="Why a rule fired, or has not", responses=shown(Why))
    async def why(workflow: Name, rule: Name, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> Response:
        return answer(await explained(parts, workflow, rule, limit))


def _add_tasks(api: APIRouter, parts: Parts) -> None:
    @api.get("/workflows/{workflow}/tasks", summary="Tasks with their newest run", responses=shown(Page[TaskTold]))
    async def get_tasks(workflow: Name) -> Response:
        flow = await workflows.one(parts.pool, workflow)
        items = []
        for name, document in flow["document"]["tasks"].items():
            newest, _ = await runs.listed(parts.pool, {"workflow": workflow, "task": name}, 1, None)
            items.append(
                {"task": name, **document, "status": newest[0]["status"] if newest else "INIT"}
                | {"last_run": newest[0] if newest else None}
            )
        return answer({"items": items, "next": None})

    @api.get(
        "/workflows/{workflow}/tasks/{task}/runs",
        summary="Runs of a task, newest first",
        responses=shown(Page[RunTold]),
    )
    async def get_runs(
        workflow: Name, task: Name, limit: Limit = 50, before: Annotated[int | None, Query(ge=1)] = None
    ) -> Response:
        _task(await workflows.one(parts.pool, workflow), task)
        items, following = await runs.listed(parts.pool, {"workflow": workflow, "task": task}, limit, before)
        return answer({"items": items, "next": following})

    async def act(workflow: str, task: str, action: str, event: int | None) -> Response:
        async with parts.pool.acquire() as connection, connection.transaction():
            await workflows.lock(connection)
            flow = await workflows.one(connection, workflow)
            target = Target(workflow, flow["snapshot"], task, _task(flow, task))
            cause = await _cause(connection, flow, task, event) if action != "stop" else []
            actions = await Actions.begin(connection, now_ms())
            try:
                effect, run_id = await actions.take(target, action, Cause("manual", cause))
            except TemplateError as error:
                raise invalid(f"event: {error}", field="event") from error
            await connection.execute("SELECT pg_notify('control_work', '')")
            await events.append(connection, actions.told)
        return answer({"effect": effect, "run_id": run_id}, 202)

    @api.post(
        "/workflows/{workflow}/tasks/{task}/start",
        status_code=202,
        summary="Start a task",
        responses=shown(Effect, 202),
    )
    async def start(workflow: Name, task: Name, body: StartIn | None = None) -> Response:
        return await act(workflow, task, "start", body.event if body else None)

    @api.post(
        "/workflows/{workflow}/tasks/{task}/stop", status_code=202, summary="Stop a task", responses=shown(Effect, 202)
    )
    async def stop(workflow: Name, task: Name) -> Response:
        return await act(workflow, task, "stop", None)

    @api.post(
        "/workflows/{workflow}/tasks/{task}/restart",
        status_code=202,
        summary="Restart a task",
        responses=shown(Effect, 202),
    )
    async def restart(workflow: Name, task: Name, body: StartIn | None = None) -> Response:
        return await act(workflow, task, "restart", body.event if body else None)


async def _cause(connection: Connection, flow: Mapping[str, Any], task: str, offset: int | None) -> list[Event]:
    """The event whose fields a start by hand takes: the one that is told, or the newest of those that a rule would take them of.

    Raises:
        ProblemError: 422, there is no such event.
    """
    if offset is not None:
        if not (known := await events.by_offset(connection, [offset])):
            raise invalid(f"event: there is no event {offset}", field="event")
        return list(known.values())
    if not templates.needs_event(_task(flow, task).get("run", [])):
        return []
    looked_for = [leaf for rule in flow["document"]["rules"] if rule["task"] == task and "when" in rule
                  for leaf in last_leaves(rule["when"])]  # fmt: skip
    for event in await events.newest_of(connection, [leaf["key"] for leaf in looked_for], _LOOKED_BACK):
        happened = Happened(
            event.offset, event.create_time, event.key, event.value, event.type, event.namespace, event.sender
        )
        if any(matches(leaf, happened) for leaf in looked_for):
            return [event]
    keys = ", ".join(sorted({leaf["key"] for leaf in looked_for})) or "any rule of the task"
    raise invalid(f"event: the command takes fields of an event, and there is none yet of {keys}", field="event")


def _check(document: Mapping[str, Any]) -> None:
    try:
        validate(document)
        written = orjson.dumps(document)
    except (WorkflowError, TypeError, RecursionError) as error:
        raise invalid(str(error)) from error
    if rb"\u0000" in written or len(written) > _MOST_BYTES:
        raise invalid(f"document: must be without NUL and at most {_MOST_BYTES} bytes")


async def explained(parts: Parts, workflow: str, rule: str, limit: int) -> dict[str, Any]:
    """A rule's conditions with what meets them, what is missing, its last firings, and what it could not work with.

    Raises:
        ProblemError: 404.
    """
    flow = await workflows.one(parts.pool, workflow)
    row = await workflows.state_of(parts.pool, workflow, rule)
    firings, aside = await workflows.past_of(parts.pool, workflow, rule, limit)
    now = now_ms()
    definition, state = row["definition"], row["state"]
    answered: dict[str, Any] = {
        "workflow": workflow,
        "rule": rule,
        "task": definition["task"],
        "action": definition["action"],
        "words": _rule_words(definition),
        "paused": flow["paused"],
        "sees_events_after": row["active_after"],
    }
    if "when" in definition:
        conditions = explain(definition["when"], state["tree"], now)
        lacking = missing(conditions)
        rests = state.get("fired", 0) + definition.get("at_most_every_ms", 0) if "fired" in state else 0
        if rests > now:
            answered["rests_until"] = rests
            lacking = [f"looks at no event for {(rests - now) / 1000:.0f} s more", *lacking]
        refs = await events.by_offset(parts.pool, _offsets(conditions))
        answered |= {
            "conditions": conditions,
            "missing": lacking,
            "events": {str(offset): told(event) for offset, event in refs.items()},
        }
    else:
        answered |= {"next": state["next"], "missing": [f"the time {state['next']}"]}
    if flow["paused"]:
        answered["missing"] = ["the workflow is paused", *answered["missing"]]
    return answered | {
        "firings": [firing | {"events": [told(event) for event in firing["events"]]} for firing in firings],
        "set_aside": [one | {"event": told(one["event"]) if one["event"] else None} for one in aside],
    }


def _offsets(conditions: Mapping[str, Any]) -> list[int]:
    return [*conditions["events"], *(offset for inner in conditions.get("of", ()) for offset in _offsets(inner))]


def _rule_words(rule: Mapping[str, Any]) -> str:
    if "when" in rule:
        text = words(rule["when"])
        rest = rule.get("at_most_every_ms")
        return text if rest is None else f"{text}, at most every {rest / 1000:g} s"
    return f"every {rule['every_ms'] / 1000:g} s" if "every_ms" in rule else f"{rule['cron']} ({rule['timezone']})"


def _task(flow: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] | None = flow["document"]["tasks"].get(task)
    if document is None:
        raise ProblemError(404, f"there is no task {task} in workflow {flow['workflow']}")
    return document
