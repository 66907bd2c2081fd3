"""An API server of Kubernetes for tests, with a kubelet that runs Jobs as processes and a controller that rolls Deployments out.

It starts within a tenth of a second, and needs neither Go nor the quarter of an hour in which the real one is built: `make test`
runs on it, `make test-all` runs the same tests on the real one as well (`kubernetes_real.py`), which shows where it differs. What
it takes and gives is checked against Kubernetes' own JSON schemas, every time; what only the real one can show (admission,
quotas, rights, conflicts of field managers) it does not know.

Tests tell it to fail: see `tests.cluster.faults`.
"""

import asyncio
import copy
import datetime as dt
import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.charts.helm import CHART, NAMESPACE, named, template
from tests.charts.test_kubernetes import VERSIONS, faults
from tests.cluster.containers import start
from tests.cluster.faults import Faults, cut, refusal

T = TypeVar("T")
Object = dict[str, Any]

KINDS: Final = {"jobs": ("batch/v1", "Job"), "deployments": ("apps/v1", "Deployment")}


class RefusalError(Exception):
    """An answer of Kubernetes' kind Status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message

    def document(self) -> Object:
        return refusal(self.status, self.reason, self.message)


class DroppedError(Exception):
    """The connection is to be cut."""


@dataclass
class Store:
    """Objects with versions, and what happened to them."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    managed: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    history: list[tuple[int, str, str, Object]] = field(default_factory=list)
    version: int = 100
    waiting: set["asyncio.Queue[tuple[int, str, str, Object] | None]"] = field(default_factory=set)
    deaf: set["asyncio.Queue[tuple[int, str, str, Object] | None]"] = field(default_factory=set)

    def put(self, what: str, thing: Object, event: str) -> Object:
        check(thing)
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        key = (what, thing["metadata"]["name"])
        if event == "DELETED":
            del self.objects[key]
            self.managed = {k: v for k, v in self.managed.items() if k[:2] != key}
        else:
            self.objects[key] = thing
        told = (self.version, what, event, copy.deepcopy(thing))
        self.history.append(told)
        for queue in self.waiting - self.deaf:
            queue.put_nowait(told)
        return copy.deepcopy(thing)

    def one(self, what: str, name: str) -> Object:
        try:
            return copy.deepcopy(self.objects[what, name])
        except KeyError:
            raise RefusalError(404, "NotFound", f'{what} "{name}" not found') from None

    def create(self, what: str, thing: Object) -> Object:
        metadata = thing["metadata"]
        if (what, metadata["name"]) in self.objects:
            raise RefusalError(409, "AlreadyExists", f'{what} "{metadata["name"]}" already exists')
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        return self.put(what, thing, "ADDED")

    def change(self, what: str, name: str, **parts: Any) -> Object:
        """Set parts of an object; another spec is another generation."""
        thing = self.one(what, name)
        if "spec" in parts and parts["spec"] != thing["spec"]:
            thing["metadata"]["generation"] += 1
        return self.put(what, thing | parts, "MODIFIED")

    def apply(self, what: str, name: str, manager: str, fields: Object) -> Object:
        """Server-side apply, by force: fields that the manager no longer names go, if nobody else applied them."""
        before = self.one(what, name)
        thing = copy.deepcopy(before)
        key = (what, name, manager)
        others = {p for k, v in self.managed.items() if k[:2] == key[:2] and k != key for p, _ in leaves(v)}
        mine = {p for p, _ in leaves(fields)}
        for path in {p for p, _ in leaves(self.managed.get(key, {}))} - mine - others:
            drop(thing, path)
        for path, value in leaves(fields):
            put(thing, path, value)
        self.managed[key] = copy.deepcopy(fields)
        if thing == before:
            return before
        return self.change(what, name, metadata=thing["metadata"], spec=thing["spec"])


def check(thing: Object) -> None:
    """Refuse what Kubernetes would."""
    if found := faults(VERSIONS[-1], thing):
        raise RefusalError(422, "Invalid", "; ".join(found))


def owned(thing: Object, owner: Object) -> bool:
    """Whether the collector of garbage takes a thing when its owner is gone."""
    return owner["metadata"]["uid"] in {one["uid"] for one in thing["metadata"].get("ownerReferences", [])}


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def leaves(thing: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in thing.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        elif (*path, name) not in {("apiVersion",), ("kind",), ("metadata", "name")}:
            yield (*path, name), value


def put(thing: Object, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        thing = thing.setdefault(name, {})
    thing[path[-1]] = value


def drop(thing: Object, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        thing = thing.get(name, {})
    thing.pop(path[-1], None)


class Double:
    """The double, on a thread of its own.

    Args:
        folder: for the token of the service account and the output of Jobs.

    Attributes:
        environment: laid over that of a Job's container, None to take a variable away: names of the cluster mean nothing here.
        kubelet: whether Jobs are run; else they stay pending.
        rolls: whether Deployments come up.
        requests: every call, as "METHOD path"; a watch as "WATCH path".
    """

    def __init__(self, folder: Path) -> None:
        self.account = folder
        (folder / "token").write_text("first")
        self.token = "first"
        self.faults = Faults()
        self.store = Store()
        self.environment: dict[str, str | None] = {}
        self.kubelet = True
        self.rolls = True
        self._gone = 0
        self.requests: list[str] = []
        self.processes = dict[str, subprocess.Popen[bytes]]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])])
        config = uvicorn.Config(app, port=0, log_config=None, http="h11", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._started.wait(30):
            raise TimeoutError("the double did not start")

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.end_watches()
        self._server.should_exit = True
        self._thread.join(30)

    # What tests do and see.

    def settings(self) -> dict[str, str]:
        """Of a control plane that works on it, by the template of the chart."""
        manifests = template(CHART, "--set", "jobs.executor=kubernetes")
        file = self.account / "job-template.yaml"
        file.write_text(named(manifests, "ConfigMap", "headrace-job-template")["data"]["job-template.yaml"])
        return {
            "HEADRACE_EXECUTOR": "kubernetes",
            "HEADRACE_JOB_TEMPLATE": str(file),
            "HEADRACE_KUBERNETES_API": self.url,
            "HEADRACE_KUBERNETES_ACCOUNT": str(self.account),
        }

    def nodes_see(self, control_url: str) -> None:
        """Where Jobs find the control plane; the chart's Secrets are nowhere here."""
        self.environment = {
            "HEADRACE_CONTROL": control_url, "HEADRACE_SECRETS_DIR": None, "HEADRACE_API_KEY_FILE": None,
        }  # fmt: skip

    def do(self, work: Callable[[], T]) -> T:
        """Do something on the double's thread."""

        async def done() -> T:
            return work()

        return self._do(done())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def all(self, what: str) -> list[Object]:
        return self.do(lambda: [copy.deepcopy(t) for (kind, _), t in self.store.objects.items() if kind == what])

    def job_of(self, run_id: str) -> Object | None:
        """The newest Job of a run."""
        found = [j for j in self.all("jobs") if j["metadata"].get("annotations", {}).get("headrace/run-id") == run_id]
        return found[-1] if found else None

    def deployment(self, name: str) -> Object:
        return self.do(lambda: self.store.one("deployments", name))

    def add(self, what: str, thing: Object) -> None:
        """Make an object as somebody else."""

        def work() -> None:
            self.store.create(what, thing)
            self._react(what, thing["metadata"]["name"])

        self.do(work)

    def scale(self, name: str, replicas: int) -> None:
        """Have so many replicas of a Deployment, as somebody else."""

        def work() -> None:
            spec = self.store.one("deployments", name)["spec"]
            self.store.change("deployments", name, spec=spec | {"replicas": replicas})
            self._react("deployments", name)

        self.do(work)

    def stall(self, name: str) -> None:
        """Let the time for the rollout of a Deployment be over."""
        late = {
            "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
            "message": f'ReplicaSet "{name}-0" has timed out progressing.',
        }  # fmt: skip

        def work() -> None:
            status = self.store.one("deployments", name)["status"]
            self.store.change("deployments", name, status=status | {"conditions": [late]})

        self.do(work)

    def remove(self, what: str, name: str) -> None:
        """Take an object away as somebody else, at once, and what it owns; their processes are killed."""

        def work(what: str, name: str) -> None:
            gone = self.store.one(what, name)
            self.store.put(what, gone, "DELETED")
            if name in self.processes and self.processes[name].poll() is None:
                os.killpg(self.processes[name].pid, signal.SIGKILL)
            for kind, other in [key for key, thing in self.store.objects.items() if owned(thing, gone)]:
                work(kind, other)

        self.do(lambda: work(what, name))

    def roll(self) -> None:
        """Let Deployments come up, those included that wait."""
        self.rolls = True

        def work() -> None:
            for what, name in list(self.store.objects):
                if what == "deployments":
                    self._react(what, name)

        self.do(work)

    def replace_token(self) -> None:
        """Lay another token into the account's folder; the one before is refused from then on."""
        self.token = "second"
        (self.account / "token").write_text(self.token)

    def end_watches(self) -> None:
        """End all watches."""

        def work() -> None:
            for queue in self.store.waiting:
                queue.put_nowait(None)

        self.do(work)

    def compact(self) -> None:
        """Forget what happened until now, and end all watches; the next must read everything anew."""

        def work() -> int:
            self.store.version += 1
            return self.store.version

        self._gone = self.do(work)
        self.end_watches()

    def deafen(self) -> None:
        """Let the watches that there are hear of nothing more."""
        self.do(lambda: self.store.deaf.update(self.store.waiting))

    # The API.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def serve() -> None:
            serving = asyncio.ensure_future(self._server.serve())
            while not self._server.started:
                await asyncio.sleep(0.01)
            self._started.set()
            await serving
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._loop.run_until_complete(serve())
        self._loop.close()

    async def _answer(self, request: Request) -> Response:
        method = "WATCH" if request.query_params.get("watch") else request.method
        self.requests.append(f"{method} {request.url.path}")
        try:
            self._fault(request)
            return await self._route(request)
        except RefusalError as refusal:
            return JSONResponse(refusal.document(), refusal.status)
        except DroppedError:
            return cut(request)

    def _fault(self, request: Request) -> None:
        if self.faults.away:
            raise DroppedError
        if self.faults.status is not None:
            raise RefusalError(self.faults.status, "InternalError", "told to")
        if request.headers.get("authorization", "").removeprefix("Bearer ") != self.token:
            raise RefusalError(401, "Unauthorized", "Unauthorized")

    async def _route(self, request: Request) -> Response:
        parts = request.url.path.strip("/").split("/")
        api, (space, what), rest = "/".join(parts[1:3]), parts[4:6], parts[6:]
        if parts[0] != "apis" or parts[3] != "namespaces" or space != NAMESPACE or KINDS.get(what, ("",))[0] != api:
            raise RefusalError(404, "NotFound", "the server could not find the requested resource")
        body = await request.body()
        if request.method == "GET" and not rest:
            return self._watch(what, request) if request.query_params.get("watch") else self._list(what, request)
        if request.method == "GET":
            return JSONResponse(self.store.one(what, rest[0]))
        if request.method == "POST":
            made = self._create(what, json.loads(body))
            if self.faults.drop_after_create:
                self.faults.drop_after_create -= 1
                raise DroppedError
            return JSONResponse(made, 201)
        if request.method == "DELETE":
            return JSONResponse(self._delete(what, rest[0], json.loads(body or b"{}")))
        return JSONResponse(self._apply(what, rest[0], request, json.loads(body)))

    def _create(self, what: str, thing: Object) -> Object:
        if (thing.get("apiVersion"), thing.get("kind")) != KINDS[what]:
            raise RefusalError(400, "BadRequest", f"this is no {what}")
        check(thing)
        if thing["metadata"].get("namespace", NAMESPACE) != NAMESPACE:
            raise RefusalError(400, "BadRequest", "the namespace of the object does not match that of the request")
        made = self.store.create(what, thing)
        self._react(what, made["metadata"]["name"])
        return made

    def _apply(self, what: str, name: str, request: Request, fields: Object) -> Object:
        if request.headers["content-type"] != "application/apply-patch+yaml":
            raise RefusalError(415, "UnsupportedMediaType", "only server-side apply is known here")
        if (fields.get("apiVersion"), fields.get("kind")) != KINDS[what] or fields["metadata"].get("name") != name:
            raise RefusalError(400, "BadRequest", "apiVersion, kind and metadata.name must be told")
        if (what, name) not in self.store.objects:
            raise RefusalError(403, "Forbidden", f'{what} "{name}" is forbidden: it would be created')
        done = self.store.apply(what, name, request.query_params["fieldManager"], fields)
        self._react(what, name)
        return done

    def _delete(self, what: str, name: str, options: Object) -> Object:
        thing = self.store.one(what, name)
        if options.get("preconditions", {}).get("uid", thing["metadata"]["uid"]) != thing["metadata"]["uid"]:
            raise RefusalError(409, "Conflict", "the UID in the precondition does not match")
        process = self.processes.get(name)
        if process is None or process.poll() is not None:
            self.store.put(what, thing, "DELETED")
        elif options.get("propagationPolicy") == "Foreground":
            thing["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
            self.store.put(what, thing, "MODIFIED")
            process.send_signal(signal.SIGTERM)
        else:
            raise RefusalError(400, "BadRequest", "pods would be left behind: tests want the propagation Foreground")
        return thing

    def _chosen(self, what: str, request: Request) -> Callable[[Object], bool]:
        wanted = dict(part.split("=") for part in request.query_params.get("labelSelector", "").split(",") if part)
        return lambda thing: wanted.items() <= thing["metadata"].get("labels", {}).items()

    def _list(self, what: str, request: Request) -> Response:
        chosen = self._chosen(what, request)
        items = [thing for (kind, _), thing in self.store.objects.items() if kind == what and chosen(thing)]
        api, kind = KINDS[what]
        metadata = {"resourceVersion": str(self.store.version)}
        return JSONResponse({"apiVersion": api, "kind": f"{kind}List", "metadata": metadata, "items": items})

    def _watch(self, what: str, request: Request) -> Response:
        after, chosen = int(request.query_params["resourceVersion"]), self._chosen(what, request)
        queue: asyncio.Queue[tuple[int, str, str, Object] | None] = asyncio.Queue()
        if after < self._gone:
            gone = RefusalError(410, "Expired", "too old resource version").document()
            return Response(json.dumps({"type": "ERROR", "object": gone}) + "\n")
        for told in self.store.history:
            if told[0] > after:
                queue.put_nowait(told)
        self.store.waiting.add(queue)
        return StreamingResponse(self._stream(queue, what, chosen), media_type="application/json")

    async def _stream(
        self, queue: "asyncio.Queue[tuple[int, str, str, Object] | None]", what: str, chosen: Callable[[Object], bool]
    ) -> AsyncIterator[str]:
        try:
            while (told := await queue.get()) is not None:
                version, kind, event, thing = told
                if kind == what and chosen(thing):
                    yield json.dumps({"type": event, "object": thing}) + "\n"
                else:
                    mark = {"kind": KINDS[what][1], "metadata": {"resourceVersion": str(version)}}
                    yield json.dumps({"type": "BOOKMARK", "object": mark}) + "\n"
        finally:
            self.store.waiting.discard(queue)
            self.store.deaf.discard(queue)

    # The kubelet and the controller of Deployments.

    def _react(self, what: str, name: str) -> None:
        if what == "deployments":
            self._roll_out(name)
        elif self.kubelet and name not in self.processes:
            task = self._loop.create_task(self._execute(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _roll_out(self, name: str) -> None:
        deployment = self.store.one("deployments", name)
        wanted = deployment["spec"].get("replicas", 1)
        up = wanted if self.rolls else 0
        counts = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": up, "readyReplicas": up}
        status = {"observedGeneration": deployment["metadata"]["generation"], **counts}
        if deployment.get("status") != status:
            self.store.change("deployments", name, status=status)

    async def _execute(self, name: str) -> None:
        job = self.store.one("jobs", name)
        container = job["spec"]["template"]["spec"]["containers"][0]
        process = start(container, self.environment, self.account / f"{name}.log")
        self.processes[name] = process
        self.store.change("jobs", name, status={"active": 1, "startTime": now()})
        code = await asyncio.to_thread(process.wait)
        if ("jobs", name) not in self.store.objects:
            return
        if "deletionTimestamp" in self.store.one("jobs", name)["metadata"]:
            self.store.put("jobs", self.store.one("jobs", name), "DELETED")
            return
        if code == 0:
            first, last, counts = "SuccessCriteriaMet", "Complete", {"succeeded": 1}
            why = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
        else:
            first, last, counts = "FailureTarget", "Failed", {"failed": 1}
            why = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        conditions: list[Object] = []
        for kind in (first, last):  # the first as soon as it is decided, the last when all pods have ended
            conditions.append(
                {"type": kind, "status": "True", "lastTransitionTime": now(), "lastProbeTime": now(), **why}
            )
            self.store.change("jobs", name, status={"startTime": now(), "conditions": list(conditions), **counts})
