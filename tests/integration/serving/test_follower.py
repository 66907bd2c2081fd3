"""A model server that nobody told: it sees to what is deployed by itself, and is ready with it, not before."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from headrace_core.serving.client import ModelServerClient

from load_tests.serving.process import ModelServerProcess, free_port
from load_tests.serving.saved_models import Weights, expected, inputs
from tests.integration.serving.world import World, eventually, item

pytestmark = pytest.mark.stack

FIRST, SECOND = Weights(rows={item(1): 1.0}), Weights(rows={item(1): 2.0})


@asynccontextmanager
async def a_server(world: World, **settings: str) -> AsyncIterator[tuple[ModelServerProcess, ModelServerClient]]:
    """A server beside the one that the deployer tells, not started; the deployer does not know of it."""
    own = {
        "HEADRACE_CONTROL": world.control_url,
        "HEADRACE_MODELS": world.models.as_uri(),
        "HEADRACE_MODEL_SERVER_FOLLOWS": world.model.name,
        "HEADRACE_MODEL_SERVER_STATE": str(world.folder / "state"),
    }
    process = ModelServerProcess(world.folder, own | settings)
    async with ModelServerClient(process.address) as client:
        try:
            yield process, client
        finally:
            await asyncio.to_thread(process.stop)


async def assert_serves(client: ModelServerClient, world: World, version: int, weights: Weights) -> None:
    columns = inputs(item(1), item(2))
    answer = await client.predict(world.model.name, version, columns, timeout_s=20)
    assert answer.version == version
    np.testing.assert_allclose(answer.outputs["score"], expected(weights, columns), rtol=1e-6)


async def told_by_readyz(process: ModelServerProcess, found: Callable[[httpx.Response], bool]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.metrics_port}", timeout=10) as http:

        async def answer() -> httpx.Response | None:
            try:
                got = await http.get("/readyz")
            except httpx.TransportError:  # it is being started
                return None
            return got if found(got) else None

        told = await eventually(answer, "what /readyz is to tell")
    assert told is not None
    return told


async def test_server_that_comes_after_the_deployment_serves_it_and_is_ready_only_then(world: World) -> None:
    version = await world.serve(FIRST)
    async with a_server(world) as (process, client):
        await asyncio.to_thread(process.start)
        await assert_serves(client, world, version, FIRST)

        await asyncio.to_thread(process.kill)
        shutil.rmtree(world.folder / "state")
        artifact = world.models / world.model.name / str(version)
        away = artifact.rename(world.folder / "away")
        process.spawn()
        waiting = await told_by_readyz(process, lambda answer: "holds no saved_model.pb" in answer.text)
        away.rename(artifact)
        await asyncio.to_thread(process.wait_ready)

        assert waiting.status_code == 503
        assert f"{world.model.name} {version}, which is deployed" in waiting.text
        await assert_serves(client, world, version, FIRST)


async def test_deployment_reaches_a_server_that_the_deployer_did_not_see(world: World) -> None:
    async with a_server(world) as (process, client):
        await asyncio.to_thread(process.start)  # nothing is deployed yet: nothing is missing
        first = await world.serve(FIRST)
        await eventually(lambda: loaded(client, world, first), "the first version")
        second = await world.serve(SECOND)
        await eventually(lambda: loaded(client, world, second), "the second version")
        await assert_serves(client, world, second, SECOND)

        await client.reload({})  # of somebody who does not know of it
        await eventually(lambda: unloaded(client, world, first), "the end of the first version")

        await assert_serves(client, world, second, SECOND)


@pytest.mark.long
async def test_server_that_served_goes_on_while_the_control_plane_is_away(world: World) -> None:
    version = await world.serve(FIRST)
    async with a_server(world) as (process, _):
        await asyncio.to_thread(process.start)
    nobody = f"http://127.0.0.1:{free_port()}"

    async with a_server(world, HEADRACE_CONTROL=nobody) as (process, client):
        await asyncio.to_thread(process.start)
        await assert_serves(client, world, version, FIRST)

    shutil.rmtree(world.folder / "state")
    async with a_server(world, HEADRACE_CONTROL=nobody) as (process, _):
        process.spawn()
        waiting = await told_by_readyz(process, lambda answer: "the control plane" in answer.text)
        assert waiting.status_code == 503


@pytest.mark.long
async def test_deployed_version_that_nobody_can_load_keeps_no_server_from_taking_the_next(world: World) -> None:
    version = await world.serve(FIRST)
    shutil.rmtree(world.models / world.model.name / str(version))
    async with a_server(world) as (process, client):
        await asyncio.to_thread(process.start)
        assert f"{world.model.name} {version}, which is deployed" in process.log()

        later = await world.serve(SECOND)
        await eventually(lambda: loaded(client, world, later), "the next version")


async def loaded(client: ModelServerClient, world: World, version: int) -> bool:
    found = (await client.status(world.model.name)).get(version)
    return found is not None and found.state == 30


async def unloaded(client: ModelServerClient, world: World, version: int) -> bool:
    return not await loaded(client, world, version)
