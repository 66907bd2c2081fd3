"""Rings when PostgreSQL tells of something new, so that nobody has to look all the time."""

import asyncio
import contextlib
import logging
from typing import Any, Final

from headrace_control_plane.essential import essential
from headrace_control_plane.store.database import AWAY, Connection, connect

log = logging.getLogger(__name__)

CHANNELS: Final = ("control_events", "control_work")
_PAUSE_SECONDS: Final = 0.5


class Bell:
    """One listening connection for the whole process.

    A notification can be missed while the connection is away: whoever waits looks again after a while in any case.
    """

    def __init__(self, dsn: str) -> None:
        """Nothing is connected yet."""
        self._dsn = dsn
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen in the background."""
        self._task = essential(self._run(), "bell")

    async def stop(self) -> None:
        """Listen no more."""
        self.ring()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ring(self) -> None:
        """Wake everybody who waits."""
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    def next_ring(self) -> asyncio.Event:
        """Take it before looking, wait for it after: what comes in between is not missed."""
        return self._rung

    async def wait(self, ring: asyncio.Event, seconds: float, gather: float = 0.0) -> None:
        """Wait for a ring, for so long at most, and then `gather` seconds more for what comes with it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ring.wait(), seconds)
            await asyncio.sleep(gather)

    async def _run(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await connect(self._dsn, "bell")
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                for channel in CHANNELS:
                    await connection.add_listener(channel, self._on_notification)
                self.ring()
                await ended.wait()
            except AWAY as error:
                log.debug("PostgreSQL is away", extra={"fields": {"error": repr(error)}})
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _on_notification(self, *_: Any) -> None:
        self.ring()
