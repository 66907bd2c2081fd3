"""The API servers that tests of the executors run on: the double in `make test`, the real one as well in `make test-all`."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import pytest

from tests.charts.helm import CHART, Manifest, named, template
from tests.integration.control.kubernetes_double import Double
from tests.integration.control.kubernetes_real import Real

Cluster = Double | Real

#: The first test on the real one waits for its program to be built, where that was not done before.
REAL: Final = pytest.param("real", marks=[pytest.mark.long, pytest.mark.timeout(3_600)])
SERVERS: Final = ["double", REAL]

PLANE: Final = "headrace-control-plane"


@cache
def _plane() -> Manifest:
    return named(template(CHART, "--set", "jobs.executor=kubernetes"), "Deployment", PLANE)


def release(cluster: Cluster) -> None:
    """Have the control plane's own Deployment there, by which Kubernetes knows that the release is."""
    if all(there["metadata"]["name"] != PLANE for there in cluster.all("deployments")):
        cluster.add("deployments", copy.deepcopy(_plane()))


@contextmanager
def cluster_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The one that the fixture's parameter names, gone afterwards."""
    folder = tmp_path_factory.mktemp("cluster")
    one: Cluster = Double(folder) if request.param == "double" else Real(request.getfixturevalue("kubernetes"), folder)
    try:
        yield one
    finally:
        one.close()
