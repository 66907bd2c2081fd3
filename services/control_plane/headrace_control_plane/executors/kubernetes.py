"""Runs of batch tasks as Jobs of Kubernetes: they live on their own, whatever becomes of the control plane."""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any, Final

from headrace_core.contracts import Millis

from headrace_control_plane.executors.kubernetes_api import (
    ApiAwayError,
    ApiRefusedError,
    KubernetesApi,
    Pause,
    Watched,
    selector,
)
from headrace_control_plane.executors.kubernetes_template import COMPONENT, INSTANCE, RUN_ID, JobTemplate
from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Pool
from headrace_control_plane.store.events import append

log = logging.getLogger(__name__)

#: A Job is kept for so long after the end of its run, to be looked at.
KEEP_MS: Final = 3_600_000
#: One whose run is over ends by itself within this, or is deleted.
_LINGER_MS: Final = 30_000
_SWEEP_MS: Final = 2_000

Run = Mapping[str, Any]
Job = Mapping[str, Any]


class JobExecutor:
    """Makes a Job for each attempt of a run that was decided, and sees when one has ended or vanished.

    A run's `host` is the name of its Job from the moment that the server has acknowledged it until the run is claimed, so a new
    leader knows what an old one made. If the old one died in between, the new one asks for the same name and finds it taken.
    """

    def __init__(self, pool: Pool, api: KubernetesApi, template: JobTemplate) -> None:
        """Make Jobs of a template."""
        self._pool, self._api, self._template = pool, api, template
        self._path = f"/apis/batch/v1/namespaces/{template.namespace}/jobs"
        self._deployments = f"/apis/apps/v1/namespaces/{template.namespace}/deployments"
        self._own = selector({INSTANCE: template.instance, COMPONENT: "control-plane"})
        self._owned = False
        self._jobs = Watched(api, self._path, template.owned)
        self._pause = Pause()
        self._swept: Millis = 0

    async def watch(self) -> None:
        """Follow the Jobs; without it none is seen to end."""
        await self._jobs.watch()

    async def carry_out(self, now: Millis) -> bool:
        """Make, delete and look after Jobs; whether a run changed by it."""
        if self._pause.lasts:
            return False
        alive = [r for r in await runs.alive(self._pool) if r["executor"] == "process"]
        work = [self._one(run, now) for run in alive]
        if self._jobs.known and now - self._swept >= _SWEEP_MS:
            self._swept = now
            work.append(self._sweep(now))
        return await self._pause.all_of(work)

    async def _one(self, run: Run, now: Millis) -> bool:
        name = self._template.name(run)
        if run["status"] == "STARTING" and run["host"] != name:
            return await self._create(run, name, now)
        if run["status"] not in {"STARTING", "RUNNING", "STOPPING"} or not self._jobs.known:
            return False
        job: Job | None = self._jobs.objects.get(name)
        if job is None and (job := await self._read(name)) is None:  # asked, for the watch may be late
            return await self._fail(run, f"its Job {name} vanished", now)
        if ended := _end(job):
            return await self._fail(run, f"its Job {name} {ended}", now)
        if run["status"] == "STOPPING":
            await self._delete(job)
        return False

    async def _create(self, run: Run, name: str, now: Millis) -> bool:
        job = self._template.job(run, await self._owners())
        try:
            await self._api.call("POST", self._path, job)
        except ApiRefusedError as refused:
            if refused.reason != "AlreadyExists":
                return await self._fail(run, f"its Job was refused: {refused}", now)
            there = await self._read(name)
            if there is None:
                return False  # it is just going
            if not self._template.ours(there, run):
                return await self._fail(run, f"there is a Job {name}, which is not ours", now)
        await self._pool.execute(
            "UPDATE control.runs SET host = $3 WHERE run_id = $1 AND attempt = $2 AND status = 'STARTING'",
            run["run_id"], run["attempt"], name,
        )  # fmt: skip
        log.info("a run was started", extra={"fields": {"run": run["run_id"], "job": name}})
        return False

    async def _owners(self) -> list[Mapping[str, Any]]:
        """The control plane's own Deployment, with which its Jobs go; none where it has none, or may not look for it."""
        # Upgrades, rollbacks and restarts leave it as it is, unlike the pod; it is found by a right that there is, unlike the
        # template's ConfigMap; and anew for each Job, since Kubernetes deletes one at once whose owner is gone.
        try:
            found: list[Mapping[str, Any]] = (await self._api.call("GET", self._deployments, params=self._own))["items"]
        except (ApiAwayError, ApiRefusedError) as error:
            if isinstance(error, ApiAwayError) and error.status != 403:
                raise
            # A Job that outlives the release is better than none.
            log.warning("Jobs have no owner", extra={"fields": {"error": str(error)}})
            return []
        if self._owned and not found:  # the release is being removed: nobody would take this Job along
            raise ApiAwayError("the Deployment of the control plane is gone")
        self._owned = bool(found)
        return found

    async def _read(self, name: str) -> Job | None:
        try:
            return await self._api.call("GET", f"{self._path}/{name}")
        except ApiRefusedError as refused:
            if refused.status == 404:
                return None
            raise ApiAwayError(str(refused)) from refused

    async def _delete(self, job: Job) -> None:
        """Delete a Job, which is there until its pods have ended."""
        metadata = job["metadata"]
        if "deletionTimestamp" in metadata:
            return
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": metadata["uid"]},
        }
        with contextlib.suppress(ApiRefusedError):  # it is gone, or another's by now
            await self._api.call("DELETE", f"{self._path}/{metadata['name']}", options)

    async def _fail(self, run: Run, error: str, now: Millis) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            still = await runs.lock(connection, run["run_id"])
            if still["status"] not in {"STARTING", "RUNNING", "STOPPING"} or still["attempt"] != run["attempt"]:
                return False  # it ended as it should, a moment ago
            await append(connection, [await runs.end(connection, still, "FAILED", {}, error, now)])
        log.warning("a run failed", extra={"fields": {"run": run["run_id"], "error": error}})
        return True

    async def _sweep(self, now: Millis) -> bool:
        """Delete Jobs whose time is over; no run changes by it."""
        jobs = list(self._jobs.objects.values())  # as they are now: the watch goes on while rows are read
        of = [job["metadata"].get("annotations", {}).get(RUN_ID, "") for job in jobs]
        rows = await self._pool.fetch("SELECT * FROM control.runs WHERE run_id = ANY($1)", sorted(set(of)))
        by_id = {row["run_id"]: row for row in rows}
        over = [
            job for job, run_id in zip(jobs, of, strict=True) if due(job, self._current(job, by_id.get(run_id)), now)
        ]
        await asyncio.gather(*(self._delete(job) for job in over))
        return False

    def _current(self, job: Job, row: Run | None) -> Run | None:
        """The row, if it has this Job."""
        return row if row is not None and self._template.name(row) == job["metadata"]["name"] else None


def due(job: Job, row: Run | None, now: Millis) -> bool:
    """Whether a Job is to be deleted.

    Args:
        job: the Job.
        row: the run whose newest attempt it is; None if there is none.
        now: the time.
    """
    ended = bool(_end(job))
    if row is None:  # of an attempt before, or of a run that this database never had
        return now - _time(job) > (KEEP_MS if ended else _LINGER_MS)
    if row["ended_at"] is None:
        return False
    return bool(now - row["ended_at"] > (KEEP_MS if ended else _LINGER_MS))


def _end(job: Job) -> str:
    """How a Job ended, in words; empty while it works."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return "ended without telling so"
        if condition["status"] == "True" and condition["type"] == "Failed":
            told = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
            return f"failed: {told}"
    return ""


def _time(job: Job) -> Millis:
    """When a Job ended, or while it works when it was made."""
    times = [c.get("lastTransitionTime") for c in job.get("status", {}).get("conditions", [])]
    newest = max((t for t in times if t), default=job["metadata"]["creationTimestamp"])
    return int(dt.datetime.fromisoformat(newest).timestamp() * 1000)
