"""Streaming tasks: services that the process manager keeps."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from circus.client import CircusClient
from circus.exc import CallError
from headrace_core.control.client import ControlClient, Run
from headrace_core.workflow import StreamTask, Workflow, event

from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload, why

pytestmark = pytest.mark.stack


class Keeper:
    """The process manager."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/control.sock"
        self.process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("keeper.py")), self.endpoint])

    def call(self, command: str, **properties: Any) -> dict[str, Any]:
        client = CircusClient(endpoint=self.endpoint, timeout=5)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        finally:
            client.stop()
        return answer

    async def pid(self, name: str = "sleeper-0") -> int | None:
        try:
            pids = self.call("list", name=name).get("pids")
        except CallError:
            return None
        return int(pids[0]) if pids else None


@pytest.fixture(scope="module")
def keeper() -> Iterator[Keeper]:
    with tempfile.TemporaryDirectory() as folder:  # a short path, as sockets want it
        one = Keeper(Path(folder))
        yield one
        one.process.terminate()
        one.process.wait(20)


@pytest.fixture(scope="module")
def control(make_control: Any, keeper: Keeper) -> Any:
    """The module's control plane knows the process manager."""
    plane = make_control(HEADRACE_PROCESS_MANAGER=keeper.endpoint)
    plane.start()
    return plane


@pytest.fixture
async def flow(http: httpx.AsyncClient, keeper: Keeper) -> str:
    await eventually(keeper.pid, "the service runs")
    with Workflow("streams") as made:
        task = StreamTask("t", service="sleeper")
        task.start_on(event("start"))
        task.stop_on(event("stop"))
        task.restart_on(event("restart"))
        StreamTask("unknown", service="nobody").start_on(event("start-unknown"))
    await upload(http, made)
    return "streams"


async def newest(client: ControlClient, task: str, *statuses: str) -> Run:
    """The task's newest run, when it has come to one of these."""

    async def look() -> Run | None:
        runs = await client.runs(workflow="streams", task=task, limit=1)
        return runs[0] if runs and runs[0].status in statuses else None

    return await eventually(look, f"the newest run is {' or '.join(statuses)}")


async def test_restart_stop_and_start_reach_the_service_and_only_it(
    client: ControlClient, keeper: Keeper, flow: str, http: httpx.AsyncClient
) -> None:
    before, other = await keeper.pid(), await keeper.pid("sleeper-else-0")

    await client.append("restart", "1")
    first = await newest(client, "t", "RUNNING", "FAILED")
    restarted = await keeper.pid()
    await client.append("stop", "1")
    stopped = await newest(client, "t", "STOPPED", "FAILED")
    gone = await keeper.pid()
    await client.append("start", "1")
    second = await newest(client, "t", "RUNNING", "FAILED")
    await client.append("start", "2")

    async def no_effect() -> bool:
        return len((await why(http, flow, "t.start"))["firings"]) == 2

    await eventually(no_effect, "the second start is seen")
    assert (first.status, stopped.status, second.status) == ("RUNNING", "STOPPED", "RUNNING")
    assert first.run_id == stopped.run_id != second.run_id
    assert restarted not in {None, before}
    assert gone is None
    assert await keeper.pid() is not None
    assert await keeper.pid("sleeper-else-0") == other
    assert (await why(http, flow, "t.start"))["firings"][0]["effect"] == f"no effect: {second.run_id} is there"


@pytest.mark.usefixtures("flow")
async def test_service_that_somebody_else_stops_is_seen(client: ControlClient, keeper: Keeper) -> None:
    offset = await client.append("restart", "1")

    async def restarted() -> Run | None:
        run = await newest(client, "t", "RUNNING")
        return run if run.cause["events"][0]["offset"] == offset else None

    run = await eventually(restarted, "it was restarted")

    keeper.call("stop", name="sleeper-0", waiting=True)

    assert (await newest(client, "t", "STOPPED")).run_id == run.run_id
    await client.append("start", "1")
    await newest(client, "t", "RUNNING")


@pytest.mark.usefixtures("flow")
async def test_service_that_nobody_keeps_fails_with_its_reason(client: ControlClient) -> None:
    await client.append("start-unknown", "1")

    run = await newest(client, "unknown", "FAILED", "RUNNING")

    assert run.status == "FAILED"
    assert "keeps no nobody" in run.error
