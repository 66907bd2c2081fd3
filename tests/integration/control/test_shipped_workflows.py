"""Workflows that a control plane has from the start, as the chart tells it to."""

import shutil
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from headrace_core.workflow import BatchTask, Workflow, event

from tests.integration.control.conftest import MakeControl
from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload

pytestmark = pytest.mark.stack

DEFINITIONS: Final = Path(__file__).resolve().parents[3] / "definitions" / "workflows"
_FLOW: Final = """\
from headrace_core.workflow import BatchTask, Workflow, event

with Workflow("{name}") as flow:
    BatchTask("say", run="echo {said}").start_on(event("{name}"))
"""


def ship(folder: Path, name: str, said: str) -> None:
    (folder / f"{name}.py").write_text(_FLOW.format(name=name, said=said), encoding="utf-8")


async def snapshots(http: httpx.AsyncClient) -> dict[str, int]:
    return {flow["workflow"]: flow["snapshot"] for flow in (await http.get("/workflows")).json()["items"]}


async def command(http: httpx.AsyncClient, name: str) -> list[str]:
    """What a start of the flow's task runs; the run is waited for."""
    started = (await http.post(f"/workflows/{name}/tasks/say/start")).json()

    async def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = (await http.get(f"/runs/{started['run_id']}")).json()
        return run if run["status"] in {"SUCCEEDED", "FAILED"} else None

    run = await eventually(ended, f"a run of {name}")
    assert run["status"] == "SUCCEEDED", run
    return list(run["command"])


async def test_shipped_workflows_are_active_from_the_start_and_none_replaces_somebodys_own(
    make_control: MakeControl, tmp_path: Path
) -> None:
    shutil.copy(DEFINITIONS / "realtime_recommender.py", tmp_path)
    for name in ("same", "changed", "own"):
        ship(tmp_path, name, "first")
    control = make_control(HEADRACE_WORKFLOWS=str(tmp_path))
    control.start()
    async with httpx.AsyncClient(base_url=f"{control.url}/api/v1", timeout=60) as http:

        async def all_there() -> bool:
            return await snapshots(http) == dict.fromkeys(("changed", "own", "realtime_recommender", "same"), 1)

        await eventually(all_there, "four workflows")
        with Workflow("own") as flow:
            BatchTask("say", run="echo mine").start_on(event("own"))
        await upload(http, flow)

        control.stop()
        for name in ("changed", "own"):
            ship(tmp_path, name, "second")
        control.start()

        async def gone_through() -> bool:
            return (await snapshots(http))["changed"] == 2 and "somebody, whose own stays" in control.log()

        await eventually(gone_through, "the upload of the next release's")
        told = await snapshots(http)
        commands = [await command(http, name) for name in ("same", "changed", "own")]

    assert told == {"changed": 2, "own": 2, "realtime_recommender": 1, "same": 1}
    assert commands == [["echo", "first"], ["echo", "second"], ["echo", "mine"]]


def test_start_with_a_workflow_that_is_wrong_ends_with_its_fault(make_control: MakeControl, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("x = 1\n", encoding="utf-8")
    control = make_control(HEADRACE_WORKFLOWS=str(tmp_path))

    with pytest.raises(RuntimeError, match=r"a shipped workflow is wrong: .*wrong\.py: defines no workflow"):
        control.start()
