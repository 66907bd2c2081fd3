"""Follows the definitions that a service uses while it runs: a valid set is taken, else what is in force stays."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from prometheus_client import Counter, Gauge

log = logging.getLogger(__name__)

T = TypeVar("T")

IN_FORCE: Final = Gauge(
    "headrace_definitions_info", "1 at the version of the set of definitions in force.", ["kind", "version"]
)
REFUSED: Final = Counter(
    "headrace_definitions_refused_total", "Changed sets of definitions that were not taken: one of their files is wrong.", ["kind"]
)  # fmt: skip

LOOK_SECONDS: Final = 0.5


class DefinitionError(Exception):
    """A definition is wrong; the message tells file, line and fault."""


#: What reading a folder may end with; beside our own: files that can't be read, are no text, or hold what JSON has not.
FAULTS: Final = (DefinitionError, OSError, ValueError, TypeError)


class Watch(Generic[T]):
    """The definitions of one folder.

    Args:
        kind: what they are of, for logs and metrics.
        folder: that holds the files.
        load: reads it.
        version: names a set; sets of one meaning have one version.

    Attributes:
        taken: the set in force.

    Raises:
        DefinitionError, OSError: the set that is there at the beginning is wrong.
    """

    def __init__(self, kind: str, folder: Path, load: Callable[[Path], T], version: Callable[[T], object]) -> None:
        self._kind, self._folder, self._load, self._name = kind, folder, load, version
        self._known = self._seen = _digest(folder)  # before they are read: what changes meanwhile is seen
        self.taken = load(folder)
        self._version = self._shown = str(version(self.taken))
        IN_FORCE.labels(kind, self._shown).set(1)

    def look(self) -> bool:
        """Take what has changed, if it is valid and was not written to since the last look; whether its meaning is another."""
        found, before = _digest(self._folder), self._seen
        self._seen = found
        if found == self._known or found != before:  # several files change one after the other
            return False
        self._known = found
        try:
            taken = self._load(self._folder)
        except FAULTS as error:
            REFUSED.labels(self._kind).inc()
            log.error("changed definitions are not taken", extra={"fields": {"kind": self._kind, "error": str(error)}})  # noqa: TRY400  # a file's fault
            return False
        self.taken = taken
        before_it, self._version = self._version, str(self._name(taken))
        return self._version != before_it

    async def follow(self, changed: Callable[[T], None], every_seconds: float = LOOK_SECONDS) -> None:
        """Look for ever, and hand on each new set."""
        while True:
            await asyncio.sleep(every_seconds)
            if await asyncio.to_thread(self.look):
                changed(self.taken)
                self._show()

    async def renewed(self, differs: Callable[[T], bool] = lambda _: True) -> None:
        """Return when there is a set that makes a difference: the process, which is made for the one before, is to end."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self.look):
                if differs(self.taken):
                    log.info(
                        "ends for changed definitions", extra={"fields": {"kind": self._kind, "version": self._version}}
                    )
                    return
                self._show()

    def _show(self) -> None:
        IN_FORCE.remove(self._kind, self._shown)
        self._shown = self._version
        IN_FORCE.labels(self._kind, self._shown).set(1)
        log.info("changed definitions are in force", extra={"fields": {"kind": self._kind, "version": self._shown}})


def _digest(folder: Path) -> bytes:
    """Of names and contents; the same while nothing changes."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.json")]):
        try:
            content = file.read_bytes()
        except OSError as error:  # it was there a moment ago, or is no file of ours to read: loading tells
            content = str(error).encode()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.digest()
