"""What stands in for nodes: pods are bound, begin, become ready and end, and the API server is told so; no container is run.

All else of a cluster is Kubernetes' own (`tests.cluster.server`): it makes the pods, counts them and cleans up. A pod of a Job is
a process of this machine, or ends well at once without any; a pod of a service is only said to be ready.
"""

import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx

from tests.cluster.api import Object, RefusedError, path, read
from tests.cluster.server import Server

#: Starts what a pod's first container is to do.
Start = Callable[[Object], subprocess.Popen[bytes]]

_NODE: Final = "node"
_STATUS: Final = "application/merge-patch+json"


class Kubelet:
    """The stand-in, for the pods of one namespace.

    Args:
        server: of the cluster.
        namespace: whose pods it looks after.
        start: starts a Job's process; without it such a pod succeeds at once.

    Attributes:
        takes: whether new pods of Jobs are bound; else they stay pending.
        readies: whether pods of services become ready.
        fails: whether pods of Jobs that are no processes fail.
        processes: of Jobs, by the Job's name.
        done: Jobs whose pod has succeeded, by name, in order.
    """

    def __init__(self, server: Server, namespace: str, start: Start | None = None) -> None:
        self.takes, self.readies, self.fails = True, True, False
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.done: list[str] = []
        self._pods = path("pods", namespace)
        self._start = start
        self._begun: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            base_url=server.url, verify=server.trust(), headers={"authorization": f"Bearer {server.token}"}, timeout=30
        )

    async def work(self) -> None:
        """Look after pods, for ever; a server that is away for a while is asked again."""
        try:
            while True:
                with suppress(httpx.TransportError):
                    await self.look()
                    async for pod in self._watch():
                        await self._see(pod)
                await asyncio.sleep(0.1)
        finally:
            for process in self.processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._client.aclose()

    async def look(self) -> None:
        """See all pods as they are now."""
        told = await self._call("GET", self._pods)
        self._version = told["metadata"]["resourceVersion"]
        for pod in told["items"]:
            await self._see(pod)

    async def _watch(self) -> AsyncIterator[Object]:
        asked = {"watch": "true", "resourceVersion": self._version}
        async with self._client.stream("GET", self._pods, params=asked, timeout=None) as answer:
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED"}:
                    yield event["object"]
                elif event["type"] == "ERROR":
                    return

    async def _see(self, pod: Object) -> None:
        with suppress(RefusedError):  # it has changed or is gone: the next event tells
            await self._act(pod)

    async def _act(self, pod: Object) -> None:
        metadata, phase = pod["metadata"], pod["status"].get("phase", "Pending")
        job = _owner(pod, "Job")
        if "deletionTimestamp" in metadata:
            await self._end(pod, job)
        elif phase in {"Succeeded", "Failed"}:
            return
        elif "nodeName" not in pod["spec"]:
            if self.takes or job is None:
                await self._bind(pod)
        elif job is None:
            await self._be_ready(pod)
        elif metadata["uid"] not in self._begun:
            self._begun.add(metadata["uid"])
            if self._start is None:
                await self._tell(pod, _ended(pod, int(self.fails)))
                if not self.fails:
                    self.done.append(job)
            else:
                self.processes[job] = self._start(pod)
                self._later(self._run(pod, self.processes[job]))

    async def _bind(self, pod: Object) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": _NODE}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"]},
            "target": target,
        }
        await self._call("POST", f"{self._at(pod)}/binding", binding)

    async def _be_ready(self, pod: Object) -> None:
        told = [c["status"] for c in pod["status"].get("conditions", []) if c["type"] == "Ready"]
        # One that is ready stays so: what a test holds up is what comes new.
        if told != ["True"] and (self.readies or not told):
            await self._tell(pod, _running(pod, ready=self.readies))

    async def _run(self, pod: Object, process: subprocess.Popen[bytes]) -> None:
        await self._tell(pod, _running(pod, ready=True))
        code = await asyncio.to_thread(process.wait)
        with suppress(RefusedError):  # it may have been taken away meanwhile
            await self._tell(pod, _ended(pod, code))
            await self._remove_if_going(pod)

    async def _end(self, pod: Object, job: str | None) -> None:
        process = self.processes.get(job or "") if pod["metadata"]["uid"] in self._begun else None
        if process is not None and process.poll() is None:
            if pod["metadata"]["uid"] + "end" not in self._begun:
                self._begun.add(pod["metadata"]["uid"] + "end")
                self._later(self._terminate(process, pod["metadata"].get("deletionGracePeriodSeconds", 30)))
        else:
            await self._remove(pod)

    async def _terminate(self, process: subprocess.Popen[bytes], grace_s: float) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.to_thread(process.wait, grace_s), grace_s + 5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    async def _remove_if_going(self, pod: Object) -> None:
        if "deletionTimestamp" in (await self._call("GET", self._at(pod)))["metadata"]:
            await self._remove(pod)

    async def _remove(self, pod: Object) -> None:
        at_once = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._call("DELETE", self._at(pod), {"apiVersion": "v1", "kind": "DeleteOptions", **at_once})

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, pod: Object, status: Object) -> None:
        await self._call("PATCH", f"{self._at(pod)}/status", {"status": status}, _STATUS)

    def _at(self, pod: Object) -> str:
        return f"{self._pods}/{pod['metadata']['name']}"

    async def _call(
        self, method: str, at: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Object:
        content = None if body is None else json.dumps(body)
        return read(await self._client.request(method, at, content=content, headers={"content-type": kind}))


def _owner(pod: Object, kind: str) -> str | None:
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(o["name"]) for o in owners if o["kind"] == kind and o.get("controller")), None)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, *, holds: bool) -> Object:
    return {"type": kind, "status": str(holds), "lastTransitionTime": _now()}


def _container(container: Object, *, ready: bool, state: Object) -> Object:
    return {
        "name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0, "state": state,
    }  # fmt: skip


def _running(pod: Object, *, ready: bool) -> Object:
    conditions = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    return {
        "phase": "Running", "startTime": _now(),
        "conditions": [_condition(kind, holds=holds) for kind, holds in conditions.items()],
        "containerStatuses": [
            _container(c, ready=ready, state={"running": {"startedAt": _now()}}) for c in pod["spec"]["containers"]
        ],
    }  # fmt: skip


def _ended(pod: Object, code: int) -> Object:
    state = {"terminated": {"exitCode": code if code >= 0 else 128 - code, "startedAt": _now(), "finishedAt": _now()}}
    return {
        "phase": "Failed" if code else "Succeeded", "conditions": [_condition("Ready", holds=False)],
        "containerStatuses": [_container(c, ready=False, state=state) for c in pod["spec"]["containers"]],
    }  # fmt: skip
