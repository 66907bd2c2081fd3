"""Streaming tasks, whose processes the stack's process manager keeps: circus, with watchers named <service>-<replica>."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from circus.client import CircusClient
from circus.exc import CallError
from headrace_core.contracts import Millis

from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Pool
from headrace_control_plane.store.events import append

log = logging.getLogger(__name__)

_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
#: How often it is looked whether services that should run do.
_LOOK_MS: Final = 2_000


class ProcessManagerError(Exception):
    """The process manager does not answer, or refused."""


class StreamExecutor:
    """Starts, stops and restarts services. What it was doing when it was killed, the next leader does again."""

    def __init__(self, pool: Pool, endpoint: str) -> None:
        """Work on the process manager at this endpoint; without one every run fails."""
        self._pool, self._endpoint = pool, endpoint
        self._looked: Millis = 0

    async def carry_out(self, now: Millis) -> bool:
        """Carry out what was decided, and see what ended without us; whether a run changed by it."""
        alive = [r for r in await runs.alive(self._pool) if r["executor"] == "stream" and r["status"] != "QUEUED"]
        if now - self._looked < _LOOK_MS:
            alive = [r for r in alive if r["status"] != "RUNNING"]
        else:
            self._looked = now
        results = await asyncio.gather(*(self._one(run, now) for run in alive))
        return any(results)

    async def _one(self, run: Mapping[str, Any], now: Millis) -> bool:
        status, error = "RUNNING", ""
        try:
            if run["status"] == "STOPPING":
                await asyncio.to_thread(self._act, "stop", run["service"])
                status = "STOPPED"
            elif run["status"] == "STARTING":
                await asyncio.to_thread(self._act, run["command"][0], run["service"])
            elif self._endpoint and not await asyncio.to_thread(self._runs, run["service"]):
                status = "STOPPED"
            else:
                return False
        except ProcessManagerError as refused:
            if run["status"] == "RUNNING":
                return False  # nothing is known of it
            status, error = "FAILED", str(refused)
        return await write(self._pool, run, status, error, now)

    def _act(self, command: str, service: str) -> None:
        for name in self._watchers(service):
            deadline = time.monotonic() + _SECONDS
            while True:
                answer = self._call(command, name=name, waiting=True)
                if answer.get("status") != "error":
                    break
                # Circus does one command at a time and refuses the others.
                if "already running" not in str(answer.get("reason")) or time.monotonic() > deadline:
                    raise ProcessManagerError(f"{command} {name}: {answer.get('reason')}")
                time.sleep(_POLL_SECONDS)

    def _runs(self, service: str) -> bool:
        statuses = self._call("status").get("statuses", {})
        return any(statuses.get(name) != "stopped" for name in self._watchers(service))

    def _watchers(self, service: str) -> list[str]:
        names = self._call("list").get("watchers", [])
        found = sorted(name for name in names if re.fullmatch(re.escape(service) + r"-[0-9]+", name))
        if not found:
            raise ProcessManagerError(f"the process manager keeps no {service}; it has {', '.join(names) or 'nothing'}")
        return found

    def _call(self, command: str, **properties: Any) -> dict[str, Any]:
        if not self._endpoint:
            raise ProcessManagerError("no process manager: HEADRACE_PROCESS_MANAGER is not set")
        client = CircusClient(endpoint=self._endpoint, timeout=_SECONDS if properties else 5.0)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        except CallError as error:
            raise ProcessManagerError(f"the process manager does not answer: {error}") from error
        finally:
            client.stop()
        return answer


async def write(pool: Pool, run: Mapping[str, Any], status: str, error: str, now: Millis) -> bool:
    """Write what became of a streaming task, unless it was decided otherwise meanwhile; whether it was written."""
    async with pool.acquire() as connection, connection.transaction():
        still = await runs.lock(connection, run["run_id"])
        if still["status"] != run["status"]:
            return False  # decided otherwise meanwhile; that is carried out next
        if status == "RUNNING":
            await connection.execute(
                "UPDATE control.runs SET status = 'RUNNING', started_at = $2 WHERE run_id = $1", run["run_id"], now
            )
            told = runs.task_event(still, "RUNNING")
        else:
            told = await runs.end(connection, dict(still) | {"status": "RUNNING"}, status, {}, error, now)
        await append(connection, [told])
    if error:
        log.error("a streaming task failed", extra={"fields": {"run": run["run_id"], "error": error}})
    return True
