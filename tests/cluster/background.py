"""An event loop on a thread of its own, for what works beside a test."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """The loop. What it is given to keep going ends with it, and fails it at the end if it failed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._kept: list[asyncio.Task[None]] = []

    def do(self, work: Coroutine[Any, Any, T], within_s: float = 60.0) -> T:
        """Do it there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it go on until the end."""

        async def begin() -> None:
            self._kept.append(asyncio.ensure_future(work))

        self.do(begin())

    def close(self) -> None:
        """End everything.

        Raises:
            Exception: what something that was kept going failed with.
        """

        async def end() -> list[BaseException | None]:
            for task in self._kept:
                task.cancel()
            ended = await asyncio.gather(*self._kept, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            return ended

        results = self.do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
