"""Client of the control plane's HTTP API; docs/control.md tells what each call means."""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from headrace_core.control.bearer import BearerAuth
from headrace_core.control.records import Event, EventPage, ModelVersion, Parent, Run

__all__ = [
    "ControlAwayError",
    "ControlClient",
    "ControlError",
    "Event",
    "EventPage",
    "ModelVersion",
    "Parent",
    "Run",
]

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 20.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_JSON: Final = {"content-type": "application/json"}
#: After a call that failed: a connection that was kept may lead to whoever had the address before.
_PARTING: Final = _JSON | {"connection": "close"}
_AWAY: Final = frozenset({502, 503, 504})


class ControlError(Exception):
    """The control plane refused.

    Attributes:
        status: of the answer: 401 no good API key, 403 one that is for something else, 404 unknown, 409 against the rules,
            422 not understood.
        detail: what was wrong.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{detail} ({status})")
        self.status, self.detail = status, detail


class ControlAwayError(ControlError):
    """Nobody answered for as long as the client tries."""


class ControlClient:
    """Calls of the control plane.

    A call that can't reach it, or is answered 503, is repeated with growing pauses for `patience_seconds`. Every call may be
    repeated without a second effect: events carry a sequence, claims a nonce, the others name what they want.

    Args:
        url: of the control plane, e.g. http://127.0.0.1:8090; `ControlSettings.control`.
        sender: name of this service in events and histories.
        patience_seconds: how long a call is repeated before `ControlAwayError`.
        auth: the API key of its calls; that of HEADRACE_API_KEY or HEADRACE_API_KEY_FILE unless told.
    """

    def __init__(
        self, url: str, sender: str, patience_seconds: float = 30.0, *, auth: BearerAuth | None = None
    ) -> None:
        self.sender = sender
        self._patience = patience_seconds
        self._http = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/api/v1",
            timeout=httpx.Timeout(10.0),
            auth=auth if auth is not None else BearerAuth.from_environment(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def append(  # noqa: PLR0913  # the fields of the call
        self,
        key: str,
        value: str,
        *,
        type: str = "",  # noqa: A002  # the event's own word
        namespace: str = "default",
        context: Mapping[str, Any] | None = None,
        sequence: int | None = None,
    ) -> int:
        """Send an event; its offset.

        Args:
            key: what it is about.
            value: what is said of it.
            type: kind of event.
            namespace: where the key is unique.
            context: anything else.
            sequence: number of the event at this sender; sending it again, also after a restart, gives the first one's offset.
                Without one, only the repetitions within this call are told apart.
        """
        body = {
            "key": key,
            "value": value,
            "type": type,
            "namespace": namespace,
            "sender": self.sender,
            "sequence": secrets.randbits(62) if sequence is None else sequence,
            "context": dict(context or {}),
        }
        return int((await self._call("POST", "/events", body))["offset"])

    async def newest(self) -> int:
        """Offset of the newest event, 0 if there is none."""
        return int((await self._call("GET", "/events/newest"))["offset"])

    async def events(  # noqa: PLR0913  # the fields of the call
        self,
        *,
        after: int = 0,
        keys: Sequence[str] = (),
        type: str | None = None,  # noqa: A002  # the event's own word
        namespace: str | None = None,
        limit: int = 500,
        wait_s: float = 0.0,
    ) -> EventPage:
        """Events with a higher offset than `after`; waits up to `wait_s` (60 at most) for the first."""
        params: dict[str, Any] = {"after": after, "limit": limit, "wait_s": wait_s}
        params |= {name: told for name, told in (("type", type), ("namespace", namespace)) if told is not None}
        if keys:
            params["key"] = list(keys)
        body = await self._call("GET", "/events", params=params, timeout=wait_s + 10.0)
        return EventPage([Event.from_json(item) for item in body["items"]], int(body["next"]))

    async def listen(
        self, *, keys: Sequence[str] = (), after: int | None = None, wait_s: float = _POLL_SECONDS
    ) -> AsyncIterator[Event]:
        """Events as they come, for ever, each at least once; outages are waited out.

        Args:
            keys: only events with one of these; all without.
            after: go on after this offset; None: only events that come from now on.
            wait_s: how long one poll waits.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                if after is None:
                    after = await self.newest()
                page = await self.events(after=after, keys=keys, wait_s=wait_s)
            except ControlAwayError as error:
                log.warning("the control plane is away, listening goes on", extra={"fields": {"error": error.detail}})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            pause = _FIRST_PAUSE_SECONDS
            for event in page.items:
                yield event
            after = page.next

    async def reserve_version(self, model: str) -> int:
        """The model's next version number, also the name of its artifact's folder."""
        return int((await self._call("POST", f"/models/{model}/versions:reserve"))["version"])

    async def register(  # noqa: PLR0913  # the fields of the call
        self,
        model: str,
        version: int,
        artifact: str,
        *,
        parent: Parent | None = None,
        manifest: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        run: str | None = None,
    ) -> ModelVersion:
        """Register a version, GENERATED; again with the same content it is the version as it is.

        Args:
            model: its name.
            version: a reserved one.
            artifact: URL of its folder.
            parent: what it stands on.
            manifest: what the artifact says of itself.
            metrics: by name.
            run: token of the run that made it; refused with 409 when the token is no longer good.
        """
        body = {
            "version": version,
            "artifact": artifact,
            "parent": {"model": parent.model, "version": parent.version} if parent else None,
            "manifest": dict(manifest or {}),
            "metrics": dict(metrics or {}),
            "run": run,
        }
        return ModelVersion.from_json(await self._call("POST", f"/models/{model}/versions", body))

    async def move(  # noqa: PLR0913  # the fields of the call
        self,
        model: str,
        version: int,
        stage: str,
        why: str,
        *,
        details: Mapping[str, Any] | None = None,
        track: str = "stable",
        run: str | None = None,
    ) -> ModelVersion:
        """Move a version to a stage; to the stage that it is in already: nothing happens.

        Raises:
            ControlError: 409 for a step that is not allowed or a run's token that is no longer good.
        """
        body = {
            "stage": stage,
            "by": self.sender,
            "why": why,
            "details": dict(details or {}),
            "track": track,
            "run": run,
        }
        return ModelVersion.from_json(await self._call("POST", f"/models/{model}/versions/{version}/stage", body))

    async def versions(self, model: str, *, stage: str | None = None, limit: int = 50) -> list[ModelVersion]:
        """Versions of a model, newest first; none for a model that nobody knows."""
        params = {"limit": limit} | ({"stage": stage} if stage else {})
        body = await self._call("GET", f"/models/{model}/versions", params=params)
        return [ModelVersion.from_json(item) for item in body["items"]]

    async def version(self, model: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ControlError: 404 when there is none.
        """
        return ModelVersion.from_json(await self._call("GET", f"/models/{model}/versions/{version}"))

    async def deployed(self, model: str, track: str = "stable") -> ModelVersion | None:
        """The deployed version, None if there is none."""
        try:
            return ModelVersion.from_json(await self._call("GET", f"/models/{model}/deployed", params={"track": track}))
        except ControlError as error:
            if error.status == 404:
                return None
            raise

    async def record_metrics(self, model: str, version: int, items: Sequence[Mapping[str, Any]]) -> None:
        """Metrics over time: `{"name", "value", "time" in ms, "slice" = ""}` each; the same name, time and slice is replaced."""
        await self._call("POST", f"/models/{model}/versions/{version}/metrics", {"items": [dict(i) for i in items]})

    async def claim(
        self, run_id: str, worker: str | None = None, *, process: Mapping[str, Any] | None = None
    ) -> str | None:
        """The token to work on a run with; None when another claimed it or it is over.

        Args:
            run_id: of the run.
            worker: who works on it; the sender unless told.
            process: `{"host", "pid", "pid_started"}` of a process that is this run's alone.
        """
        body = {"worker": worker or self.sender, "nonce": secrets.token_hex(16), **(process or {})}
        try:
            return str((await self._call("POST", f"/runs/{run_id}/claim", body))["token"])
        except ControlError as error:
            if error.status == 409:
                return None
            raise

    async def heartbeat(self, run_id: str, token: str) -> bool:
        """Say that the run lives; whether it should stop.

        Raises:
            ControlError: 409 when the token is no longer good: stop, nothing that is done now counts.
        """
        return bool((await self._call("POST", f"/runs/{run_id}/heartbeat", {"token": token}))["stop"])

    async def finish(
        self, run_id: str, token: str, status: str, *, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> None:
        """End a run, SUCCEEDED or FAILED.

        Raises:
            ControlError: 409 when the token is no longer good.
        """
        body = {"token": token, "status": status, "result": dict(result or {}), "error": error}
        await self._call("POST", f"/runs/{run_id}/finish", body)

    async def run(self, run_id: str) -> Run:
        """One run."""
        return Run.from_json(await self._call("GET", f"/runs/{run_id}"))

    async def runs(
        self,
        *,
        workflow: str | None = None,
        task: str | None = None,
        status: str | None = None,
        service: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Runs, newest first."""
        wanted = {"workflow": workflow, "task": task, "status": status, "service": service}
        params: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None} | {"limit": limit}
        return [Run.from_json(item) for item in (await self._call("GET", "/runs", params=params))["items"]]

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  # httpx's own, per step of the call
    ) -> dict[str, Any]:
        content = None if body is None else msgspec.json.encode(body, enc_hook=_plain)
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE_SECONDS
        headers = _JSON
        while True:
            try:
                answer = await self._http.request(
                    method, path, content=content, params=params, timeout=timeout, headers=headers
                )
                problem = _problem(answer) if answer.is_error else None
            except httpx.RequestError as error:  # the network, or a key that can't be read just now
                problem = ControlAwayError(503, f"{self._http.base_url}: {error!r}")
            if problem is None:
                break
            if problem.status not in _AWAY:
                raise problem
            if time.monotonic() + pause > deadline:
                raise ControlAwayError(problem.status, problem.detail)
            headers = _PARTING
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads the clients, no secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        told: dict[str, Any] = answer.json()
        return told


def _plain(value: Any) -> Any:
    """Numbers of numpy and the like; a float that is no number becomes null by itself."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")


def _problem(answer: httpx.Response) -> ControlError:
    called = f"{answer.request.method} {answer.request.url.path}"
    try:
        return ControlError(answer.status_code, f"{called}: {answer.json()['detail']}")
    except (ValueError, KeyError, TypeError):  # a proxy's page, or another server's
        said = answer.text[:500].strip() or "nothing more"
        return ControlAwayError(503, f"{called}: HTTP {answer.status_code} of somebody who is no control plane: {said}")
