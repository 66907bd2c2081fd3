"""The resident validator with a workflow of the control plane: by itself from GENERATED to serving, through kills."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from headrace_core.control.client import ModelVersion, Run
from headrace_core.workflow import BatchTask, Workflow, event

from load_tests.serving.process import ServiceProcess
from load_tests.serving.saved_models import Weights
from tests.integration.serving.world import World, eventually, item, unique, why

pytestmark = pytest.mark.stack


@pytest.fixture
async def flow(world: World) -> AsyncIterator[str]:
    """A workflow that has each version of the model validated, and deployed when it holds."""
    name = unique("flow")
    with Workflow(name) as made:
        told = f"--model {world.model.name} --version {{event.value}}"
        for task, command, stage in (
            ("validate", "headrace-validate", "MODEL_GENERATED"),
            ("deploy", "headrace-deploy", "MODEL_VALIDATED"),
        ):
            work = BatchTask(task, run=f"{command} {told}", resident="model-validator", retries=3, queue="newest")
            work.start_on(event(world.model.name, type=stage))
    async with httpx.AsyncClient(base_url=f"{world.control_url}/api/v1", timeout=30) as http:
        (await http.post("/workflows", json=made.compile())).raise_for_status()
        yield name
        (await http.post(f"/workflows/{name}/pause")).raise_for_status()


@pytest.fixture
def validator(world: World, tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess("headrace_model_validator", world.environment(), tmp_path)
    try:
        yield process
    finally:
        process.stop()


async def in_stage(world: World, version: int, stage: str) -> ModelVersion:
    async def reached() -> ModelVersion | None:
        found = await world.control.version(world.model.name, version)
        return found if found.stage == stage else None

    found = await eventually(reached, f"version {version} {stage}")
    assert found is not None
    return found


async def test_new_version_serves_by_itself_and_a_broken_one_never_does(
    world: World, flow: str, validator: ServiceProcess
) -> None:
    waiting = await world.generate(Weights(rows={item(1): 1.0}))  # before the validator is there
    await asyncio.to_thread(validator.start)
    await in_stage(world, waiting, "DEPLOYED")

    broken = await world.generate(Weights(bias=math.nan))
    rejected = await in_stage(world, broken, "REJECTED")
    better = await world.generate(Weights(rows={item(1): 2.0}))
    await in_stage(world, better, "DEPLOYED")

    assert "finite_weights" in why(rejected)
    assert (await world.score(None, item(1))).version == better

    async def ended() -> list[Run] | None:
        """The stage is there a moment before the run that set it has ended."""
        found = await world.control.runs(workflow=flow)
        return found if all(r.status in {"SUCCEEDED", "FAILED", "STOPPED"} for r in found) else None

    runs = await eventually(ended, "the end of all runs")
    assert runs is not None
    assert {(r.task, r.status, r.result.get("stage")) for r in runs} == {
        ("validate", "SUCCEEDED", "VALIDATED"),
        ("validate", "SUCCEEDED", "REJECTED"),
        ("deploy", "SUCCEEDED", "DEPLOYED"),
    }


async def test_killed_validator_leaves_the_version_generated_and_it_is_validated_later(
    world: World, flow: str, validator: ServiceProcess, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # keeps the first validator waiting in the midst of its work
        stuck = world.environment() | {"HEADRACE_MODEL_SERVER": "{}:{}".format(*silent.getsockname())}
        first = ServiceProcess("headrace_model_validator", stuck, tmp_path)
        await asyncio.to_thread(first.start)
        version = await world.generate(Weights())

        async def running() -> bool:
            return bool(await world.control.runs(workflow=flow, status="RUNNING"))

        await eventually(running, "a run")
        await asyncio.to_thread(first.kill)

    assert (await world.control.version(world.model.name, version)).stage == "GENERATED"
    await asyncio.to_thread(validator.start)
    await in_stage(world, version, "DEPLOYED")
    assert await world.loaded() == [version]
