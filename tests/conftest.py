"""The embedded stack's stores for tests that need the real thing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from headrace_stack.layout import Layout
from headrace_stack.stack import Stack
from hypothesis import HealthCheck, settings

from tests.cluster.program import missing
from tests.cluster.server import Server, running

# A machine that is busy makes no test fail.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` must not wait for Kubernetes to be built: tests on it are long.

    Raises:
        UsageError: with those that are not marked so.
    """
    short = [
        i.nodeid for i in items if "kubernetes" in getattr(i, "fixturenames", ()) and not i.get_closest_marker("long")
    ]
    if short:
        raise pytest.UsageError(f"tests on a real API server lack the mark long: {', '.join(short)}")


@dataclass(frozen=True)
class Stores:
    """Kafka, PostgreSQL and Valkey with migrations and topics applied.

    Attributes:
        stack: to stop and start a store: `stores.stack.stop("kafka")`.
    """

    stack: Stack
    kafka_address: str
    postgres_dsn: str
    redis_url: str

    def environment(self) -> dict[str, str]:
        """HEADRACE_… for a service that works on these stores."""
        return {
            "HEADRACE_KAFKA": self.kafka_address,
            "HEADRACE_POSTGRES": self.postgres_dsn,
            "HEADRACE_REDIS": self.redis_url,
            "HEADRACE_DEFINITIONS": str(Path(__file__).resolve().parents[1] / "definitions"),
        }


@contextmanager
def running_stores() -> Iterator[Stores]:
    """Stores of their own in a folder of their own, gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="headrace-test-"))
    stack = Stack(Layout(home), services=())
    try:
        described = stack.up()
        yield Stores(stack, described["kafka"], described["postgres"], described["redis"])
    finally:
        stack.down()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real control plane of Kubernetes, without nodes, shared by all tests of the session."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("kubernetes")) as server:
        yield server


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """Stores shared by all tests of the session; a test isolates itself by names of its own."""
    with running_stores() as running:
        yield running


@pytest.fixture(scope="module")
def own_stores() -> Iterator[Stores]:
    """Stores for one module alone, whose tests need the platform's own topics and tables untouched."""
    with running_stores() as running:
        yield running
