"""Runs as processes of this machine: detached, so that they live through a restart of the control plane."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from headrace_core.contracts import Millis

from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Pool
from headrace_control_plane.store.events import append

log = logging.getLogger(__name__)


class ProcessExecutor:
    """Starts `headrace-run` for runs that were decided, and sees when one has vanished.

    Everything is read from the table: which process a run has, by pid and start time, was written by whoever started it, or by
    the run itself when it claimed. So a new leader takes over what an old one started.
    """

    def __init__(self, pool: Pool, host: str, url: str, folder: Path, stop_ms: int) -> None:
        """Start processes on this machine.

        Args:
            pool: of connections.
            host: name of this machine.
            url: of the control plane, as its processes reach it.
            folder: for their logs.
            stop_ms: one that was told to stop is killed after so long.
        """
        self._pool, self._host, self._url, self._folder, self._stop_ms = pool, host, url, folder, stop_ms
        self._children: list[subprocess.Popen[bytes]] = []
        self._told: set[tuple[str, int]] = set()

    async def carry_out(self, now: Millis) -> bool:
        """Start, stop and look after processes; whether a run changed by it."""
        self._children = [child for child in self._children if child.poll() is None]
        changed = False
        alive = [r for r in await runs.alive(self._pool) if r["executor"] == "process"]
        for run in alive:
            if run["status"] == "STARTING" and run["pid"] is None:
                await self._start(run)
            elif run["pid"] is not None and run["host"] == self._host:
                process = _process(run["pid"], run["pid_started"])
                if process is None:
                    changed |= await self._vanished(run, now)
                elif run["status"] == "STOPPING":
                    self._end(run, process, now)
        self._told &= {(r["run_id"], r["attempt"]) for r in alive}
        return changed

    async def _start(self, run: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{run['run_id']}.log").open("ab") as out:
            child = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-m", "headrace_core.control.run", run["run_id"]],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env=os.environ | {"HEADRACE_CONTROL": self._url},
            )  # fmt: skip
        self._children.append(child)
        await self._pool.execute(
            "UPDATE control.runs SET host = $3, pid = $4, pid_started = $5 "
            "WHERE run_id = $1 AND attempt = $2 AND status = 'STARTING' AND pid IS NULL",
            run["run_id"], run["attempt"], self._host, child.pid, psutil.Process(child.pid).create_time(),
        )  # fmt: skip
        log.info("a run was started", extra={"fields": {"run": run["run_id"], "pid": child.pid}})

    async def _vanished(self, run: Mapping[str, Any], now: Millis) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            still = await runs.lock(connection, run["run_id"])
            if still["status"] not in {"STARTING", "RUNNING", "STOPPING"} or still["pid"] != run["pid"]:
                return False  # it ended as it should, a moment ago
            error = f"its process {run['pid']} vanished"
            await append(connection, [await runs.end(connection, still, "FAILED", {}, error, now)])
        log.warning("a run's process vanished", extra={"fields": {"run": run["run_id"], "pid": run["pid"]}})
        return True

    def _end(self, run: Mapping[str, Any], process: psutil.Process, now: Millis) -> None:
        key = (run["run_id"], run["attempt"])
        try:
            if now - run["stopping_at"] > self._stop_ms:
                process.send_signal(signal.SIGKILL)  # its command dies with it
            elif key not in self._told:
                process.send_signal(signal.SIGTERM)
                self._told.add(key)
        except psutil.NoSuchProcess:
            return


def _process(pid: int, started: float) -> psutil.Process | None:
    """The process, if it lives and is no other that got its pid."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process
