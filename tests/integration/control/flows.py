"""Workflows for tests."""

from typing import Any

import httpx
from headrace_core.workflow import Workflow

from tests.integration.control.eventually import eventually


async def upload(http: httpx.AsyncClient, flow: Workflow) -> None:
    """Upload a workflow."""
    answer = await http.post("/workflows", json=flow.compile())
    assert answer.status_code in {200, 201}, answer.text


async def why(http: httpx.AsyncClient, workflow: str, rule: str) -> dict[str, Any]:
    """Why a rule fired or has not."""
    answer = await http.get(f"/workflows/{workflow}/rules/{rule}/why")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def settled(table: Any) -> None:
    """Wait until the scheduler has seen every event there is, those that it made itself included."""

    async def look() -> bool:
        return bool(await table.fetchval("SELECT s.consumed = c.newest FROM control.scheduler s, control.counter c"))

    await eventually(look, "the scheduler has seen all events")
