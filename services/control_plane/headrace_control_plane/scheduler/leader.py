"""Elects one leader, and does what only he may: decide, carry out, relay."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg
from prometheus_client import Gauge

from headrace_control_plane.essential import essential
from headrace_control_plane.executors.executor import Executor
from headrace_control_plane.notification.bell import Bell
from headrace_control_plane.scheduler.decide import Decider
from headrace_control_plane.scheduler.house import Bounds
from headrace_control_plane.store import runs, workflows
from headrace_control_plane.store.database import AWAY, Connection, Pool, connect, now_ms
from headrace_control_plane.store.workflows import FencedError

log = logging.getLogger(__name__)

LEADS: Final = Gauge("headrace_control_leader", "1 while this process decides.")
TASK_STATUS: Final = Gauge(
    "headrace_task_status",
    "1 for the status of a task's newest run, told by the leader.",
    ["workflow", "task", "status"],
)
#: Held by the leader's session, so it is free as soon as the session ends.
_LOCK: Final = 0x68726C6561646572 >> 1
_PAUSE_SECONDS: Final = 0.5
#: The clock moves rules and runs: it is looked at so often.
_TICK_SECONDS: Final = 0.25
#: Events that come together are decided on together.
_GATHER_SECONDS: Final = 0.01
_STATUS_SECONDS: Final = 5.0


class Leader:
    """One candidate.

    The lock keeps candidates from leading at once; that no one who lost it decides is held by the epoch, which every decision
    checks in its own transaction.
    """

    def __init__(  # noqa: PLR0913  # parts it works with
        self,
        dsn: str,
        pool: Pool,
        bell: Bell,
        *,
        executors: Sequence[Executor],
        beside: Sequence[Callable[[], Awaitable[None]]],
        bounds: Bounds,
    ) -> None:
        """Nothing is connected yet.

        Args:
            dsn: of the database.
            pool: of connections to it.
            bell: is rung when something changed.
            executors: carry out what was decided.
            beside: runs as long as it leads: the relay, and what executors look at.
            bounds: for runs.
        """
        self._dsn, self._pool, self._bell, self._bounds = dsn, pool, bell, bounds
        self._executors, self._beside = executors, beside
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()

    def start(self) -> None:
        """Stand for election in the background."""
        self._task = essential(self._run(), "leader")

    async def stop(self) -> None:
        """Step down."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            session: Connection | None = None
            try:
                session = await connect(self._dsn, "leader")
                if await session.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    await self._lead(session)
            except* (*AWAY, FencedError) as group:
                log.warning("leads no more", extra={"fields": {"error": repr(group.exceptions[0])}})
            finally:
                LEADS.set(0)
                TASK_STATUS.clear()
                if session is not None:
                    session.terminate()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _lead(self, session: Connection) -> None:
        epoch = await workflows.lead(session)
        log.info("leads", extra={"fields": {"epoch": epoch}})
        LEADS.set(1)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def lost(_: object) -> None:
            if not ended.done():
                ended.set_exception(asyncpg.InterfaceError("the leader's session ended"))

        session.add_termination_listener(lost)
        async with asyncio.TaskGroup() as group:
            group.create_task(_hold(ended))
            group.create_task(self._decide(Decider(self._pool, epoch, self._bounds)))
            for executor in self._executors:
                group.create_task(self._carry_out(executor))
            for work in self._beside:
                group.create_task(_awaited(work))
            group.create_task(self._tell_statuses())

    async def _decide(self, decider: Decider) -> None:
        while True:
            ring = self._bell.next_ring()
            decision = await decider.decide(now_ms())
            if decision.changed:
                self._work.set()
                self._work = asyncio.Event()
            if not decision.more:
                await self._bell.wait(ring, _TICK_SECONDS, _GATHER_SECONDS)

    async def _tell_statuses(self) -> None:
        while True:
            found = await runs.newest_statuses(self._pool)
            TASK_STATUS.clear()
            for workflow, task, status in found:
                TASK_STATUS.labels(workflow, task, status).set(1)
            await asyncio.sleep(_STATUS_SECONDS)

    async def _carry_out(self, executor: Executor) -> None:
        while True:
            work = self._work
            if await executor.carry_out(now_ms()):
                self._bell.ring()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(work.wait(), _TICK_SECONDS)


async def _hold(ended: "asyncio.Future[None]") -> None:
    await ended


async def _awaited(call: Callable[[], Awaitable[None]]) -> None:
    await call()
