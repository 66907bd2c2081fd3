"""The model servers, told together what to have.

A server takes its whole configuration at once, so a change is: ask what each has, edit, tell it all. One process at a time does so,
by a lock in PostgreSQL, or two changes at once would undo each other.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import asyncpg
from headrace_core.definitions.models import Model
from headrace_core.serving.client import Aspired, ModelServerClient, VersionStatus
from headrace_core.serving.messages import VersionState

#: Versions of a model under this name are being looked at, and serve nobody.
CANDIDATE: Final = ".candidate"

_LOCK: Final = 0x4D4F44454C53  # "MODELS"
_POLL_SECONDS: Final = 0.02
_STANDING: Final = (
    VersionState.VERSION_STATE_START,
    VersionState.VERSION_STATE_LOADING,
    VersionState.VERSION_STATE_AVAILABLE,
)

#: Versions by model name.
Versions = dict[str, frozenset[int]]

#: Codes of gRPC that tell of the server or of where it reads from, not of the version: CANCELLED, DEADLINE_EXCEEDED,
#: RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE.
_NO_FAULT: Final = frozenset({1, 4, 8, 10, 14})


class LoadError(Exception):
    """A server could not load a version, by the version's own fault. The message tells which and why."""


class NotInTimeError(Exception):
    """A server did not come to load a version, or lost it: another try may be luckier. The message tells which and why."""


class Fleet:
    """All model servers behind an address.

    Args:
        address: host:port; each address that the name stands for is a server.
        models: URL of the models' root.
        names: of all models that a server may have.
        postgres: DSN, for the lock.
    """

    def __init__(self, address: str, models: str, names: Sequence[str], postgres: str) -> None:
        self._address, self._names, self._postgres = address, names, postgres
        parts = urlsplit(models)
        # A plain path where there is one: TensorFlow's own server reads these everywhere.
        self._root = unquote(parts.path) if parts.scheme == "file" else models
        self._clients: dict[str, ModelServerClient] = {}

    async def __aenter__(self) -> Self:
        """Itself; nothing is connected yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()

    async def servers(self) -> list[ModelServerClient]:
        """A client of each server that there is now.

        Raises:
            OSError: the name can't be resolved.
        """
        host, _, port = self._address.rpartition(":")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        addresses = [f"[{a[4][0]}]:{port}" if a[0] == socket.AF_INET6 else f"{a[4][0]}:{port}" for a in found]
        for address in dict.fromkeys(addresses):
            if address not in self._clients:
                self._clients[address] = ModelServerClient(address)
        return [self._clients[address] for address in dict.fromkeys(addresses)]

    async def change(self, edit: Callable[[Versions], Versions]) -> None:
        """Change what every server has.

        Args:
            edit: from what a server has to what it is to have.

        Raises:
            ServingError: a server is away or refuses.
            OSError, asyncpg.PostgresError: the lock can't be taken.
        """
        async with self._alone():
            for server in await self.servers():
                has = {name: await self._standing(server, name) for name in self._names}
                wanted = {name: versions for name, versions in edit(has).items() if versions}
                # Told even when that is what it has: a version that is there may be one that it was told to let go just now.
                await server.reload({name: self._aspired(name, versions) for name, versions in wanted.items()})

    async def wait_available(self, name: str, version: int, timeout_s: float) -> None:
        """Wait until every server has a version.

        Raises:
            LoadError: one could not load it.
            NotInTimeError: one did not within the time, or was told otherwise meanwhile.
            ServingError: a server is away.
        """
        for server in await self.servers():
            status = VersionStatus(VersionState.VERSION_STATE_UNSPECIFIED)
            try:
                async with asyncio.timeout(timeout_s):
                    while status.state != VersionState.VERSION_STATE_AVAILABLE:
                        status = (await server.status(name)).get(version, status)
                        if status.state == VersionState.VERSION_STATE_END:
                            # Without an error it was told to unload it, and some errors are the server's own.
                            fault = LoadError if status.error and status.code not in _NO_FAULT else NotInTimeError
                            raise fault(f"{server.address}: {name} {version}: {status.error or 'was unloaded'}")
                        if status.state != VersionState.VERSION_STATE_AVAILABLE:
                            await asyncio.sleep(_POLL_SECONDS)
            except TimeoutError:
                state = VersionState.Name(status.state)
                raise NotInTimeError(f"{server.address}: {name} {version}: {state} after {timeout_s:g} s") from None

    async def _standing(self, server: ModelServerClient, name: str) -> frozenset[int]:
        return frozenset(v for v, s in (await server.status(name)).items() if s.state in _STANDING)

    def _aspired(self, name: str, versions: frozenset[int]) -> Aspired:
        return Aspired(f"{self._root}/{name.removesuffix(CANDIDATE)}", tuple(sorted(versions)))

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        connection = await asyncpg.connect(self._postgres, timeout=10)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            yield
        finally:
            await connection.close()  # lets go of the lock


def added(name: str, *versions: int) -> Callable[[Versions], Versions]:
    """An edit: these versions as well."""
    return lambda has: {**has, name: has.get(name, frozenset()) | set(versions)}


def removed(name: str, *versions: int) -> Callable[[Versions], Versions]:
    """An edit: without these versions."""
    return lambda has: {**has, name: has.get(name, frozenset()) - set(versions)}


def replaced(wanted: Mapping[str, frozenset[int]]) -> Callable[[Versions], Versions]:
    """An edit: of these models exactly these versions."""
    return lambda has: {**has, **wanted}


def names_of(models: Iterable[Model]) -> list[str]:
    """Names under which a server may have versions."""
    names = [name for model in models for name in (model.name, model.base_name)]
    return [*names, *(f"{name}{CANDIDATE}" for name in names)]
