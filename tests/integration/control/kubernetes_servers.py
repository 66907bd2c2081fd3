"""The API servers that tests of the executors run on: the double in `make test`, the real one as well in `make test-all`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.integration.control.kubernetes_double import Double
from tests.integration.control.kubernetes_real import Real

Cluster = Double | Real

#: The first test on the real one waits for its program to be built, where that was not done before.
REAL: Final = pytest.param("real", marks=[pytest.mark.long, pytest.mark.timeout(3_600)])
SERVERS: Final = ["double", REAL]


@contextmanager
def cluster_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The one that the fixture's parameter names, gone afterwards."""
    folder = tmp_path_factory.mktemp("cluster")
    one: Cluster = Double(folder) if request.param == "double" else Real(request.getfixturevalue("kubernetes"), folder)
    try:
        yield one
    finally:
        one.close()
