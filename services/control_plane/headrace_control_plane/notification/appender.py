"""Appends events that come one by one, many in one transaction."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import asyncpg

from headrace_control_plane.essential import essential
from headrace_control_plane.store.database import AWAY, Pool
from headrace_control_plane.store.events import NewEvent, append

_MOST: Final = 500

Waiting = tuple[NewEvent, "asyncio.Future[int]"]


class Appender:
    """While one transaction commits, what comes meanwhile gathers for the next."""

    def __init__(self, pool: Pool) -> None:
        """Append by this pool."""
        self._pool = pool
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(maxsize=20 * _MOST)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work in the background."""
        self._task = essential(self._run(), "append events")

    async def stop(self) -> None:
        """Stop; whoever still waits is told so."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._queue.empty():
            _tell([self._queue.get_nowait()], ConnectionError("stopping"))

    async def append(self, event: NewEvent) -> int:
        """The event's offset, when it is committed."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put((event, future))
        return await future

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _MOST and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            except asyncio.CancelledError:
                _tell(batch, ConnectionError("stopping"))
                raise

    async def _commit(self, batch: Sequence[Waiting]) -> None:
        try:
            async with self._pool.acquire() as connection:
                offsets = await append(connection, [event for event, _ in batch])
        except (asyncpg.PostgresError, *AWAY) as error:
            if isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError)) and len(batch) > 1:
                for one in batch:  # one of them is at fault, the others are not
                    await self._commit([one])
                return
            _tell(batch, error)
        except (ValueError, TypeError) as error:
            _tell(batch, error)
        else:
            for (_, future), offset in zip(batch, offsets, strict=True):
                if not future.done():
                    future.set_result(offset)


def _tell(batch: Sequence[Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
