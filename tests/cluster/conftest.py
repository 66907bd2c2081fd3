"""Namespaces in which charts are installed for real."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.installation import Installation, custom_resources
from tests.cluster.server import Server

MakeInstallation = Callable[[str], Installation]


@pytest.fixture(scope="session")
def extended(kubernetes: Server) -> Server:
    """The server, with the custom resources that the charts and examples make, and what else they name."""
    with kubernetes.api() as api:
        custom_resources(api)
    return kubernetes


@pytest.fixture
def make_installation(extended: Server, tmp_path: Path) -> Iterator[MakeInstallation]:
    """Makes namespaces that are gone afterwards."""
    with ExitStack() as all_of_them:
        yield lambda namespace: all_of_them.enter_context(Installation(extended, namespace, tmp_path))
