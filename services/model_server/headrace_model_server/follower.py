"""Hears from the control plane which version of a model is deployed, also after outages of it."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from headrace_core.control.client import ControlClient, ControlError

log = logging.getLogger(__name__)

_SENDER: Final = "model-server"
#: A start waits so long before it goes on with what was served before.
_PATIENCE_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 1.0
#: Kinds of events after which another version, or none, may be deployed.
_MOVES: Final = frozenset({"MODEL_DEPLOYED", "MODEL_DEPRECATED"})


class Follower:
    """A thread that asks once and then listens.

    Args:
        url: of the control plane.
        model: whose deployed version is asked for.
        take: called with the version, None when none is deployed; from the thread.

    Attributes:
        answered: set once `take` was called.
        waited: set once a question was answered, or was not in the time that a start has for it.
    """

    def __init__(self, url: str, model: str, take: Callable[[int | None], None]) -> None:
        self.answered, self.waited = threading.Event(), threading.Event()
        self._url, self._model, self._take = url, model, take
        self._loop = asyncio.new_event_loop()
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Ask, and listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._loop.call_soon_threadsafe(lambda: self._work and self._work.cancel())
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._work = self._loop.create_task(self._follow())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._work)
        self._loop.close()

    async def _follow(self) -> None:
        async with ControlClient(self._url, _SENDER, _PATIENCE_SECONDS) as control:
            while True:
                try:
                    # Before the question: what is deployed after the answer is among the events.
                    after = await control.newest()
                    await self._ask(control)
                    async for event in control.listen(keys=[self._model], after=after):
                        if event.type in _MOVES:
                            await self._ask(control)
                except (ControlError, OSError) as error:  # also what is to be served can't be kept just now
                    self.waited.set()
                    log.warning("what is deployed is not known", extra={"fields": {"error": str(error)}})
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, control: ControlClient) -> None:
        deployed = await control.deployed(self._model)
        self._take(None if deployed is None else deployed.version)
        self.answered.set()
        self.waited.set()
