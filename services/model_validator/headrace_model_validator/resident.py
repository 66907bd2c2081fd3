"""The resident service: works on the runs that the scheduler requests, one at a time."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from headrace_core.control.client import ControlClient, ControlError

from headrace_model_validator.fleet import NotInTimeError
from headrace_model_validator.job import Job, parse_job
from headrace_model_validator.workers import AWAY_ERRORS, Workers

log = logging.getLogger(__name__)

SERVICE: Final = "model-validator"
_REQUESTED: Final = "RUN_REQUESTED"
_HEARTBEAT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 1.0
_RETRIES: Final = 5


class Resident:
    """Claims runs and works on them.

    Args:
        control: the control plane.
        workers: that do what the runs say.
        model: that serves; its deployed version is seen to at the start.

    Attributes:
        ready: whether it hears of runs.
        between_runs: held by each run; who holds it else keeps the next one from beginning.
    """

    def __init__(self, control: ControlClient, workers: Workers, model: str) -> None:
        self._control, self._workers, self._model = control, workers, model
        self._runs: asyncio.Queue[str] = asyncio.Queue()
        self.ready = False
        self.between_runs = asyncio.Lock()

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._collect(), name="collect runs")
            group.create_task(self._work_off(), name="work off runs")
            group.create_task(self._ensure(), name="ensure the deployed version")

    async def _collect(self) -> None:
        """Queue what was requested before this process was there, then what is requested from now on."""
        after: int | None = None
        while True:
            try:
                if after is None:
                    newest = await self._control.newest()
                    for run in reversed(await self._control.runs(service=SERVICE, status="STARTING")):
                        self._runs.put_nowait(run.run_id)
                    after = newest
                    self.ready = True
                async for event in self._control.listen(keys=[f"run:{SERVICE}"], after=after):
                    if event.type == _REQUESTED:
                        self._runs.put_nowait(event.value)
                    after = event.offset
            except ControlError as error:
                log.warning("the control plane does not tell what to do", extra={"fields": {"error": error.detail}})
                await asyncio.sleep(_RETRY_SECONDS)

    async def _work_off(self) -> None:
        while True:
            run_id = await self._runs.get()
            try:
                async with self.between_runs:
                    await self._work(run_id)
            except ControlError as error:
                # Its token went bad, or nobody answers: the scheduler requests it anew if it is still wanted.
                log.warning("a run was given up", extra={"fields": {"run": run_id, "error": error.detail}})

    async def _work(self, run_id: str) -> None:
        token = await self._control.claim(run_id)
        if token is None:
            return
        command = (await self._control.run(run_id)).command
        work = asyncio.create_task(self._result(command, token), name=f"run {run_id}")
        beats = asyncio.create_task(self._heartbeats(run_id, token, work), name=f"heartbeats of {run_id}")
        try:
            status, result, error = await work
        except asyncio.CancelledError:
            if not beats.done():
                raise  # the process ends
            status, result, error = "FAILED", {}, "stopped"
        finally:
            work.cancel()
            beats.cancel()
            with contextlib.suppress(asyncio.CancelledError, ControlError):
                await beats
        await self._control.finish(run_id, token, status, result=result, error=error)

    async def _result(self, command: Sequence[str], token: str) -> tuple[str, dict[str, Any], str]:
        try:
            job = parse_job(command[0], command[1:], token)
            return "SUCCEEDED", await self._patiently(command[0], job), ""
        except Exception as error:  # whatever one run meets, the next ones are worked on
            log.exception("a run failed", extra={"fields": {"command": list(command)}})
            return "FAILED", {}, f"{type(error).__name__}: {error}"

    async def _patiently(self, program: str, job: Job) -> dict[str, Any]:
        for _ in range(_RETRIES):
            try:
                return await self._workers.work(program, job)
            except NotInTimeError:
                raise  # it has waited long enough: other runs have their turn before this one is tried again
            except AWAY_ERRORS as error:
                log.warning("tried again", extra={"fields": {**job.told(), "error": str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
        return await self._workers.work(program, job)

    async def _heartbeats(self, run_id: str, token: str, work: asyncio.Task[Any]) -> None:
        """Say that the run lives, until it is to stop or its token is no longer good."""
        with contextlib.suppress(ControlError):
            while True:
                if await self._control.heartbeat(run_id, token):
                    break
                await asyncio.sleep(_HEARTBEAT_SECONDS)
        work.cancel()

    async def _ensure(self) -> None:
        """A model server that comes without its state has nothing: it is told what is deployed."""
        while True:
            try:
                version = await self._workers.deployer.ensure(self._model)
            except (*AWAY_ERRORS, ControlError, LookupError) as error:
                log.warning("the deployed version can't be seen to", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if version is not None:
                    log.info(
                        "the deployed version is loaded", extra={"fields": {"model": self._model, "version": version}}
                    )
                return
