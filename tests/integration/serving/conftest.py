"""A control plane and a model server, shared by tests that each have a model of their own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from load_tests.serving.process import ModelServerProcess, ServiceProcess
from tests.conftest import Stores
from tests.integration.serving.world import World, a_definition


@pytest.fixture(scope="session")
def control_plane(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a control plane."""
    folder = tmp_path_factory.mktemp("control")
    told = stores.environment() | {"HEADRACE_RUN_LOST_MS": "4000", "HEADRACE_CONTROL_POLL_MS": "200"}
    process = ServiceProcess("headrace_control_plane", told, folder, "HEADRACE_CONTROL_PORT")
    process.start()
    try:
        yield f"http://127.0.0.1:{process.metrics_port}"
    finally:
        process.stop()


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServerProcess]:
    """A model server that no test stops."""
    process = ModelServerProcess(tmp_path_factory.mktemp("model-server"))
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
async def world(
    stores: Stores, control_plane: str, model_server: ModelServerProcess, tmp_path: Path
) -> AsyncIterator[World]:
    """A model of its own with everything that validates and deploys it."""
    async with a_world(stores, control_plane, model_server.address, tmp_path) as made:
        yield made


@asynccontextmanager
async def a_world(stores: Stores, control: str, model_server: str, folder: Path) -> AsyncIterator[World]:
    world = World(stores, control, model_server, folder, a_definition(folder / "definitions"))
    async with world.opened():
        yield world
