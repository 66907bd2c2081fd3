"""Tells the control plane until when samples are complete: the event JOINED_UNTIL.

Every worker tells, since any may be gone; the mark's own time is its number at the sender, so it counts once. The first mark is
the first that has a sample before it: whoever learns of it finds something in the store.
"""

import asyncio
import logging
from typing import Final

import asyncpg
from headrace_core.contracts import Millis
from headrace_core.control.client import ControlClient, ControlError
from headrace_core.runtime.progress import Progress, read_progress

from headrace_sample_joiner.store.oldest import oldest_request

log = logging.getLogger(__name__)

KEY: Final = "samples"
TYPE: Final = "JOINED_UNTIL"
_LOOK_EVERY_S: Final = 1.0


def next_mark(progress: Progress, window_ms: int, every_ms: int, last: Millis) -> Millis | None:
    """The newest multiple of `every_ms` whose samples are all labelled, if it is news."""
    if progress.watermark is None:
        return None
    until = progress.watermark - window_ms
    mark = until - until % every_ms
    return mark if mark > last else None


class MarkTeller:
    """Looks at the job's progress and tells new marks.

    Args:
        postgres: DSN.
        control: URL of the control plane.
        job: name of the joiner's job.
        window_ms: attribution window.
        every_ms: distance of marks.
    """

    def __init__(self, *, postgres: str, control: str, job: str, window_ms: int, every_ms: int) -> None:
        self._postgres, self._control, self._job = postgres, control, job
        self._window, self._every, self._last = window_ms, every_ms, 0
        self._begun = False

    async def run(self) -> None:
        """Tell for ever; stores that are away are waited for."""
        told = ""
        async with ControlClient(self._control, "sample-joiner") as client:
            while True:
                try:
                    await self._look(client)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ControlError) as error:
                    if repr(error) != told:
                        told = repr(error)
                        log.warning("a mark could not be told yet", extra={"fields": {"error": told}})
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self, client: ControlClient) -> None:
        """Tell what is new until the connection breaks."""
        connection = await asyncpg.connect(self._postgres)
        try:
            while True:
                progress = await read_progress(connection, self._job)
                mark = next_mark(progress, self._window, self._every, self._last)
                if mark is not None and await self._has_samples(connection, mark):
                    seqs = {str(n): list(position) for n, position in sorted(progress.seqs.items())}
                    context = {"from": self._last or None, "to": mark, "seqs": seqs}
                    await client.append(KEY, str(mark), type=TYPE, context=context, sequence=mark)
                    self._last = mark
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            await connection.close()

    async def _has_samples(self, connection: "asyncpg.Connection[asyncpg.Record]", mark: Millis) -> bool:
        """Whether there is a sample before the mark; that there was one is remembered, and not asked again."""
        if not self._begun:
            oldest = await oldest_request(connection)
            self._begun = oldest is not None and oldest < mark
        return self._begun
