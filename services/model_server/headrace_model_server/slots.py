"""Slots by architecture: those that serve, and idle ones for the next version."""

import logging
import threading
from pathlib import Path
from typing import Final

from headrace_core.telemetry import SECONDS
from prometheus_client import Histogram

from headrace_model_server.artifact import golden_inputs, graph_of
from headrace_model_server.errors import ArtifactError, ServeError
from headrace_model_server.graph import Architecture, Slot

log = logging.getLogger(__name__)

_LOAD_SECONDS: Final = Histogram(
    "headrace_model_load_seconds",
    "Time to load a version, by whether a slot with its graph was there.",
    ["slot"],
    buckets=SECONDS,
)

#: Queries of these sizes are answered before a version serves: the first of a size pays for the graph's optimisation.
_WARM_UP_ROWS: Final = (1, 20, 200)
_MAX_IDLE: Final = 1


class SlotPool:
    """Gives a slot to a version, and takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[Slot]] = {}
        self._architectures: dict[str, tuple[Architecture, int]] = {}

    def load(self, folder: Path) -> Slot:
        """A slot with the version of a folder, warmed up.

        Raises:
            ArtifactError: it can't be loaded, or does not answer its own signature.
        """
        content, fingerprint = graph_of(folder)
        slot, kind = self._take(content, fingerprint)
        try:
            with _LOAD_SECONDS.labels(kind).time():
                slot.restore(folder)
                golden = golden_inputs(folder)
                for rows in _WARM_UP_ROWS:
                    slot.run(slot.example(rows, golden), "")
        except ServeError as error:
            self._discard(slot)
            raise ArtifactError(str(error)) from error
        return slot

    def give_back(self, slot: Slot) -> None:
        """Keep a slot that nobody uses any more for the next version, unless there is one."""
        fingerprint = slot.architecture.fingerprint
        with self._lock:
            idle = self._idle.setdefault(fingerprint, [])
            busy = self._architectures[fingerprint][1] - len(idle)
            # The last that served frees its architecture: what comes next has another graph.
            if busy > 1 and len(idle) < _MAX_IDLE:
                idle.append(slot)
                return
        self._discard(slot)

    def abandon(self, slot: Slot) -> None:
        """Forget a slot that requests still use; it is freed with the last of them."""
        self._forget(slot)

    def _take(self, content: bytes, fingerprint: str) -> tuple[Slot, str]:
        with self._lock:
            if idle := self._idle.get(fingerprint):
                return idle.pop(), "idle"
            known = self._architectures.get(fingerprint)
        architecture = known[0] if known else Architecture(content, fingerprint)
        slot = Slot(architecture)
        with self._lock:
            users = self._architectures.get(fingerprint, (architecture, 0))[1]
            self._architectures[fingerprint] = (architecture, users + 1)
        return slot, "new" if known else "new architecture"

    def _discard(self, slot: Slot) -> None:
        for each in [slot, *self._forget(slot)]:
            each.close()

    def _forget(self, slot: Slot) -> list[Slot]:
        """Idle slots that are of no more use without it."""
        fingerprint = slot.architecture.fingerprint
        with self._lock:
            architecture, users = self._architectures[fingerprint]
            users -= 1
            if users > len(self._idle.get(fingerprint, ())):
                self._architectures[fingerprint] = (architecture, users)
                return []
            del self._architectures[fingerprint]
            return self._idle.pop(fingerprint, [])
