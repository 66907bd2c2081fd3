from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.documented import Documented

#: A busy machine must not make an answer degrade: a store that is there may take its time, unlike in production.
PATIENT = {"HEADRACE_READ_DEADLINE_MS": "5000", "HEADRACE_ENRICH_DEADLINE_MS": "5000"}


@pytest.fixture(scope="session")
def gateway(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway shared by the tests that leave it and its stores alone."""
    process = GatewayProcess(stores.environment() | PATIENT, tmp_path_factory.mktemp("gateway"))
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def documented(gateway: GatewayProcess) -> Documented:
    return Documented(httpx.get(f"{gateway.url}/openapi.json").json())


@pytest.fixture
async def client(gateway: GatewayProcess, documented: Documented) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose every answer is held against the OpenAPI document."""
    hooks = {"response": [documented.check]}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, event_hooks=hooks) as client:
        yield client
