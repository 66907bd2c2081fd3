import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import httpx
import psycopg
import pytest
from headrace_control_plane.store.database import connect
from headrace_core.control.client import ControlClient
from headrace_core.init.migrations import migrate

from tests.conftest import Stores
from tests.integration.control.process import ControlPlane

Connection = asyncpg.Connection  # named by the tests' arguments


@pytest.fixture(scope="module")
def dsn(stores: Stores) -> Iterator[str]:
    """A database for one module alone: offsets begin at 1."""
    name = f"control_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stores.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    dsn = stores.postgres_dsn.rsplit("/", 1)[0] + f"/{name}"
    migrate(dsn)
    yield dsn
    with psycopg.connect(stores.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


MakeControl = Callable[..., ControlPlane]


@pytest.fixture(scope="module")
def make_control(stores: Stores, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeControl]:
    """Control planes on the module's database, all ended afterwards."""
    made: list[ControlPlane] = []
    folder = tmp_path_factory.mktemp("control")

    def make(**settings: str) -> ControlPlane:
        environment = stores.environment() | {"HEADRACE_POSTGRES": dsn, "HEADRACE_RUN_STOP_MS": "3000"} | settings
        made.append(ControlPlane(environment, folder))
        return made[-1]

    yield make
    for one in made:
        if one._process is not None and one._process.poll() is None:
            one.stop()


@pytest.fixture(scope="module")
def control(make_control: MakeControl) -> ControlPlane:
    """One that the tests of a module share."""
    one = make_control()
    one.start()
    return one


@pytest.fixture
async def http(control: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{control.url}/api/v1", timeout=90) as client:
        yield client


@pytest.fixture
async def client(control: ControlPlane) -> AsyncIterator[ControlClient]:
    async with ControlClient(control.url, "test") as client:
        yield client


@pytest.fixture
async def table(dsn: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
    """To look at what is stored."""
    connection = await connect(dsn, "test")
    yield connection
    await connection.close()
