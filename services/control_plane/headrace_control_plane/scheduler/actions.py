"""Start, stop and restart of a task, inside the transaction that decides it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace_core.contracts import Millis
from headrace_core.control.records import Event
from headrace_core.workflow import templates

from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Connection
from headrace_control_plane.store.events import NewEvent
from headrace_control_plane.store.runs import Run

#: These take one of the task's places.
_WORKING = ("STARTING", "RUNNING", "STOPPING", "RETRYING")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an action is taken.

    Attributes:
        rule: its name; "manual" for a person.
        events: that met it, oldest first.
    """

    rule: str
    events: Sequence[Event] = ()

    def to_json(self) -> dict[str, Any]:
        """As a run tells it."""
        fields = ("offset", "key", "value", "type", "create_time")
        return {"rule": self.rule, "events": [{name: getattr(e, name) for name in fields} for e in self.events]}

    def last(self) -> dict[str, Any] | None:
        """The event whose fields go into the command."""
        return {name: getattr(self.events[-1], name) for name in Event.__slots__} if self.events else None


@dataclass(frozen=True, slots=True)
class Target:
    """The task of an action.

    Attributes:
        document: the task as the workflow's snapshot tells it.
    """

    workflow: str
    snapshot: int
    task: str
    document: Mapping[str, Any]


@dataclass(slots=True)
class Actions:
    """Takes actions; what is to be told of them is appended at the end of the transaction.

    Attributes:
        alive: runs that are not over, as this transaction left them.
        told: events to append.
    """

    connection: Connection
    now: Millis
    alive: list[dict[str, Any]]
    told: list[NewEvent] = field(default_factory=list)

    @classmethod
    async def begin(cls, connection: Connection, now: Millis) -> "Actions":
        """Read the runs, and hold them."""
        rows = await connection.fetch(
            "SELECT * FROM control.runs WHERE status NOT IN ('STOPPED', 'SUCCEEDED', 'FAILED') ORDER BY id FOR UPDATE"
        )
        return cls(connection, now, [dict(row) for row in rows])

    async def take(self, target: Target, action: str, cause: Cause) -> tuple[str, str | None]:
        """Take an action; its effect in words, and the run that it made.

        Raises:
            TemplateError: the command wants what the event has not; nothing was done.
        """
        of = [r for r in self.alive if r["workflow"] == target.workflow and r["task"] == target.task]
        command = [action] if target.document["kind"] == "stream" else target.document["run"]
        if action == "stop":
            return await self._stop(of, _New(target, command, cause))
        new = _New(target, templates.fill(command, cause.last()), cause)
        return await (self._restart(of, new) if action == "restart" else self._start(of, new))

    async def _start(self, of: list[dict[str, Any]], new: "_New") -> tuple[str, str | None]:
        waiting = [r for r in of if r["status"] == "QUEUED"]
        working = [r for r in of if r["status"] in _WORKING]
        stream = new.document["kind"] == "stream"
        if stream and all(r["status"] == "STOPPING" for r in working) and working:
            return "waits until it has stopped", await self._insert(new, "QUEUED")
        if len(working) < new.places and not waiting:
            return "started", await self._insert(new, "STARTING")
        queue = new.document.get("queue", "none")
        if queue == "none" or stream:
            return f"no effect: {(waiting or working)[-1]['run_id']} is there", None
        if not waiting:
            return "waits for its turn", await self._insert(new, "QUEUED")
        if queue == "one":
            return f"no effect: {waiting[-1]['run_id']} waits already", None
        await self.connection.execute(
            "UPDATE control.runs SET command = $2, cause = $3, snapshot = $4 WHERE run_id = $1",
            waiting[-1]["run_id"], new.command, new.cause.to_json(), new.target.snapshot,
        )  # fmt: skip
        waiting[-1]["command"] = new.command
        return f"instead of what {waiting[-1]['run_id']} waited for", waiting[-1]["run_id"]

    async def _stop(self, of: list[dict[str, Any]], new: "_New") -> tuple[str, str | None]:
        if new.document["kind"] == "stream" and not of:
            # Its processes may run without any run of ours.
            return "stopped", await self._insert(new, "STOPPING")
        for run in list(of):
            await self._tell_to_stop(run)
        names = ", ".join(r["run_id"] for r in of)
        return (f"stops {names}" if of else "no effect: nothing runs"), None

    async def _restart(self, of: list[dict[str, Any]], new: "_New") -> tuple[str, str | None]:
        if new.document["kind"] == "stream":
            for run in list(of):
                await self._over(run, "STOPPED")  # its processes are the new run's
            return "restarted", await self._insert(new, "STARTING")
        for run in list(of):
            await self._tell_to_stop(run)
        left = [r for r in of if r in self.alive]
        if left:
            return f"restarts when {', '.join(r['run_id'] for r in left)} has stopped", await self._insert(
                new, "QUEUED"
            )
        return "restarted", await self._insert(new, "STARTING")

    async def _tell_to_stop(self, run: dict[str, Any]) -> None:
        if run["status"] in {"RUNNING", "STOPPING"} or (run["executor"] == "stream" and run["status"] == "STARTING"):
            await self.set_status(run, "STOPPING")
        else:
            await self._over(run, "STOPPED")

    async def stop_for(self, run: dict[str, Any], error: str) -> None:
        """Tell a run to stop because it did wrong: it will have failed."""
        run["error"] = error
        await self.connection.execute("UPDATE control.runs SET error = $2 WHERE run_id = $1", run["run_id"], error)
        await self.set_status(run, "STOPPING")

    async def set_status(self, run: dict[str, Any], status: str) -> None:
        """Change a run that goes on."""
        if run["status"] == status:
            return
        run["status"] = status
        await self.connection.execute(
            "UPDATE control.runs SET status = $2, stopping_at = CASE WHEN $2 = 'STOPPING' THEN $3 ELSE stopping_at END "
            "WHERE run_id = $1",
            run["run_id"], status, self.now,
        )  # fmt: skip

    async def begin_attempt(self, run: dict[str, Any]) -> None:
        """Start a run that waited, for its turn or for its next attempt."""
        attempt = run["attempt"] + (1 if run["status"] == "RETRYING" else 0)
        run |= {"status": "STARTING", "attempt": attempt}
        await self.connection.execute(
            "UPDATE control.runs SET status = 'STARTING', attempt = $2, token = NULL, nonce = NULL, worker = '', pid = NULL, "
            "pid_started = NULL, started_at = NULL, heartbeat_at = NULL, stopping_at = NULL, error = '' "
            "WHERE run_id = $1",
            run["run_id"], attempt,
        )  # fmt: skip
        self._tell_resident(run)

    async def fail(self, run: dict[str, Any], error: str) -> None:
        """End a run of which nothing is to be expected any more."""
        self.told.append(await runs.end(self.connection, run, "FAILED", {}, error, self.now))
        self.alive.remove(run)

    async def _over(self, run: dict[str, Any], status: str) -> None:
        self.told.append(await runs.end(self.connection, run, status, {}, "", self.now))
        self.alive.remove(run)

    async def _insert(self, new: "_New", status: str) -> str:
        number = await self.connection.fetchval(
            "INSERT INTO control.tasks (workflow, task, runs) VALUES ($1, $2, 1) "
            "ON CONFLICT (workflow, task) DO UPDATE SET runs = tasks.runs + 1 RETURNING runs",
            new.target.workflow, new.target.task,
        )  # fmt: skip
        row = await self.connection.fetchrow(
            "INSERT INTO control.runs (run_id, workflow, task, snapshot, executor, service, command, policy, status, cause, "
            "created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING *",
            f"{new.target.workflow}.{new.target.task}.{number}", new.target.workflow, new.target.task, new.target.snapshot,
            new.document.get("executor", "stream"), new.document["service"], new.command, new.policy, status,
            new.cause.to_json(), self.now,
        )  # fmt: skip
        run = dict(row)
        self.alive.append(run)
        if status == "STARTING":
            self._tell_resident(run)
        return str(run["run_id"])

    def _tell_resident(self, run: Run) -> None:
        if run["executor"] == "resident":
            self.told.append(runs.request_event(run))


@dataclass(frozen=True, slots=True)
class _New:
    """A run to be."""

    target: Target
    command: Sequence[str]
    cause: Cause

    @property
    def document(self) -> Mapping[str, Any]:
        return self.target.document

    @property
    def places(self) -> int:
        return int(self.document.get("concurrency", 1))

    @property
    def policy(self) -> dict[str, Any]:
        names = ("retries", "backoff_ms", "timeout_ms", "concurrency")
        return {name: self.document[name] for name in names if name in self.document}
