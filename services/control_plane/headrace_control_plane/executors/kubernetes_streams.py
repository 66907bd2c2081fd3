"""Streaming tasks as Deployments of Kubernetes, which are scaled and restarted; they are the chart's, not ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace_core.contracts import Millis

from headrace_control_plane.executors.kubernetes_api import ApiAwayError, ApiRefusedError, KubernetesApi, Pause, Watched
from headrace_control_plane.executors.kubernetes_template import COMPONENT, INSTANCE, RUN_ID
from headrace_control_plane.executors.streams import write
from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Pool

#: How many replicas a Deployment had before it was stopped.
_REPLICAS: Final = "headrace/replicas"
#: Two managers, since whoever applies gives up the fields that he no longer names.
_SCALE, _RESTART = "headrace-scale", "headrace-restart"
#: How often it is looked whether services that should run do.
_LOOK_MS: Final = 2_000
#: What Kubernetes takes for a rollout without its own word.
_PROGRESS_SECONDS: Final = 600
#: Its word on a rollout that does not go on comes a little after the time for it is over, and says more than we can.
_ITS_WORD_SECONDS: Final = 15

_COUNTS: Final = ("replicas", "updatedReplicas", "availableReplicas")

Run = Mapping[str, Any]
Deployment = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Fields that a Deployment is to have."""

    manager: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    status: str
    error: str = ""


def step(run: Run, deployment: Deployment) -> Apply | Outcome | None:
    """What is next for a run, its Deployment being as it is; None to wait.

    It is the Deployment that tells how far a run has come, so whoever leads next goes on from there.
    """
    wanted = deployment["spec"].get("replicas", 1)
    if run["status"] == "STOPPING":
        if wanted:
            return Apply(_SCALE, {"metadata": {"annotations": {_REPLICAS: str(wanted)}}, "spec": {"replicas": 0}})
        return Outcome("STOPPED") if _seen(deployment) and not _left(deployment) else None
    if run["status"] == "RUNNING":
        return None if wanted else Outcome("STOPPED")
    restarts = run["command"][0] == "restart"
    if restarts and _annotations(deployment["spec"]["template"]).get(RUN_ID) != run["run_id"]:
        marked = {"template": {"metadata": {"annotations": {RUN_ID: run["run_id"]}}}}
        return Apply(_RESTART, {"spec": marked})
    if not wanted:
        told = _annotations(deployment).get(_REPLICAS, "")
        before = int(told) if told.isdecimal() and int(told) else 1
        return Apply(_SCALE, {"metadata": {"annotations": {_REPLICAS: str(before)}}, "spec": {"replicas": before}})
    return _rollout(deployment, wanted, restarts=restarts)


def _rollout(deployment: Deployment, wanted: int, *, restarts: bool) -> Outcome | None:
    status = deployment.get("status", {})
    if not _seen(deployment):
        return None
    for condition in (
        status.get("conditions", []) if restarts else ()
    ):  # scaling leaves the word on the rollout before it
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Outcome("FAILED", f"its rollout failed: {condition.get('message', 'ProgressDeadlineExceeded')}")
    counts = [status.get(name, 0) for name in _COUNTS]
    return Outcome("RUNNING") if counts == [wanted] * len(_COUNTS) else None


def _seen(deployment: Deployment) -> bool:
    """Whether its status is of its specification as it is now."""
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= _generation(deployment))


def _generation(deployment: Deployment) -> int:
    return int(deployment["metadata"].get("generation", 0))


def _left(deployment: Deployment) -> int:
    """Replicas that have not ended; those that are just ending are told by newer servers."""
    status = deployment.get("status", {})
    return int(status.get("replicas", 0) or 0) + int(status.get("terminatingReplicas", 0) or 0)


def _annotations(thing: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = thing.get("metadata", {}).get("annotations") or {}
    return found


class Patience:
    """How long runs have waited without anything moving in their Deployments.

    Kubernetes tells of a rollout that does not go on, but not of replicas that do not come up again when it was over once.
    As there, the time begins anew with each replica that comes: a rollout of many, one at a time, may take hours.
    """

    def __init__(self) -> None:
        """Begin with no run."""
        self._since: dict[str, tuple[Millis, list[int]]] = {}

    def keep(self, run_ids: set[str]) -> None:
        """Forget all other runs."""
        self._since = {run: since for run, since in self._since.items() if run in run_ids}

    def ends(self, run_id: str, deployment: Deployment, now: Millis) -> Outcome | None:
        """What becomes of a run that has waited too long; None while it may wait."""
        status = deployment.get("status", {})
        moves = [_generation(deployment), *(status.get(name, 0) for name in _COUNTS)]
        since, before = self._since.get(run_id, (now, None))
        if before != moves:
            self._since[run_id] = (since := now, moves)
        most = deployment["spec"].get("progressDeadlineSeconds", _PROGRESS_SECONDS)
        if now - since <= (most + _ITS_WORD_SECONDS) * 1000:
            return None
        ready, wanted = status.get("availableReplicas", 0), deployment["spec"].get("replicas", 1)
        return Outcome("FAILED", f"{ready} of {wanted} replicas are available, and for {most} s none has come")


class DeploymentExecutor:
    """Starts, stops and restarts services. What it was doing when it was killed, the next leader does again."""

    def __init__(self, pool: Pool, api: KubernetesApi, namespace: str, instance: str) -> None:
        """Work on the Deployments of one installation."""
        self._pool, self._api = pool, api
        self._path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self._deployments = Watched(api, self._path, {INSTANCE: instance})
        self._pause = Pause()
        self._looked: Millis = 0
        self._applied: dict[str, str] = {}
        self._patience = Patience()

    async def watch(self) -> None:
        """Follow the Deployments; without it nothing is done."""
        self._applied.clear()
        self._patience = Patience()
        await self._deployments.watch()

    async def carry_out(self, now: Millis) -> bool:
        """Carry out what was decided, and see what ended without us; whether a run changed by it."""
        if self._pause.lasts or not self._deployments.known:
            return False
        alive = [r for r in await runs.alive(self._pool) if r["executor"] == "stream" and r["status"] != "QUEUED"]
        ids = {r["run_id"] for r in alive}
        self._applied = {run: version for run, version in self._applied.items() if run in ids}
        self._patience.keep(ids)
        if now - self._looked < _LOOK_MS:
            alive = [r for r in alive if r["status"] != "RUNNING"]
        else:
            self._looked = now
        return await self._pause.all_of([self._one(run, now) for run in alive])

    async def _one(self, run: Run, now: Millis) -> bool:
        try:
            outcome = await self._step(run, now)
        except ApiRefusedError as refused:
            outcome = Outcome("FAILED", f"Kubernetes refused: {refused}")
        return False if outcome is None else await write(self._pool, run, outcome.status, outcome.error, now)

    async def _step(self, run: Run, now: Millis) -> Outcome | None:
        of = {d["metadata"].get("labels", {}).get(COMPONENT, ""): d for d in self._deployments.objects.values()}
        deployment = of.get(run["service"])
        if deployment is None:
            if run["status"] == "RUNNING":
                return Outcome("STOPPED", "its Deployment is gone")
            there = ", ".join(sorted(of)) or "nothing"
            return Outcome("FAILED", f"there is no Deployment of {run['service']}; there are those of {there}")
        version = deployment["metadata"]["resourceVersion"]
        if self._applied.get(run["run_id"]) == version:
            return None  # the watch does not know yet what we did
        told = step(run, deployment)
        if isinstance(told, Apply):
            return await self._apply(run, deployment, told, now)
        if told is None and run["status"] == "STARTING":
            return self._patience.ends(run["run_id"], deployment, now)
        return told

    async def _apply(self, run: Run, deployment: Deployment, told: Apply, now: Millis) -> Outcome | None:
        name, version = deployment["metadata"]["name"], deployment["metadata"]["resourceVersion"]
        metadata = {**told.fields.get("metadata", {}), "name": name}
        partial = {"apiVersion": "apps/v1", "kind": "Deployment", **told.fields, "metadata": metadata}
        try:
            done = await self._api.apply(f"{self._path}/{name}", told.manager, partial)
        except ApiAwayError as away:
            # A right may be on its way. That of a Deployment that is not for tasks, the gateway's say, never comes.
            if away.status == 403 and self._patience.ends(run["run_id"], deployment, now):
                return Outcome("FAILED", f"Kubernetes refused: {away}")
            raise
        if done["metadata"]["resourceVersion"] != version:
            self._applied[run["run_id"]] = version
        return None
