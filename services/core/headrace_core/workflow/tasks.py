"""Workflows and their tasks, as authors write them."""

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, Self

from headrace_core.workflow.conditions import Condition, any_of, event
from headrace_core.workflow.document import WorkflowError, validate
from headrace_core.workflow.durations import Duration, milliseconds

_OPEN: ContextVar["Workflow | None"] = ContextVar("workflow", default=None)

CatchUp = Literal["none", "latest", "all"]
Queue = Literal["none", "one", "newest"]


class Workflow:
    """Tasks and rules under one name; tasks made inside its `with` belong to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: dict[str, Task] = {}
        self.rules: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        if _OPEN.get() is not None:
            raise WorkflowError(f"{self.name}: a workflow can't be inside another")
        _OPEN.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _OPEN.set(None)

    def compile(self) -> dict[str, Any]:
        """The JSON document.

        Raises:
            WorkflowError: it is none that the server would take.
        """
        document = {
            "workflow": self.name,
            "tasks": {name: task.document for name, task in self.tasks.items()},
            "rules": self.rules,
        }
        validate(document)
        return document

    def add_rule(self, task: str, action: str, name: str | None, **trigger: Any) -> None:
        """Add a rule; without a name it is `<task>.<action>`, numbered from the second on."""
        taken = {rule["rule"] for rule in self.rules}
        base = name or f"{task}.{action}"
        if name is None:
            number = 1
            while (name := base if number == 1 else f"{base}.{number}") in taken:
                number += 1
        elif name in taken:
            raise WorkflowError(f"{self.name}: two rules are named {name}")
        self.rules.append({"rule": name, "task": task, "action": action, **trigger})


class Task:
    """A logical unit of processing; see `StreamTask` and `BatchTask`."""

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        flow = _OPEN.get()
        if flow is None:
            raise WorkflowError(f"task {name}: make it inside `with Workflow(…):`")
        if name in flow.tasks:
            raise WorkflowError(f"{flow.name}: two tasks are named {name}")
        self._flow, self.name, self.document = flow, name, document
        flow.tasks[name] = self

    def start_on(self, condition: Condition, *, at_most_every: Duration | None = None, name: str | None = None) -> None:
        """Start it when the condition is met; no effect while it runs.

        Args:
            condition: what must have happened.
            at_most_every: once it is met, events are not looked at for so long.
            name: of the rule.
        """
        self._on("start", condition, at_most_every, name)

    def stop_on(self, condition: Condition, *, name: str | None = None) -> None:
        """Stop it when the condition is met."""
        self._on("stop", condition, None, name)

    def restart_on(
        self, condition: Condition, *, at_most_every: Duration | None = None, name: str | None = None
    ) -> None:
        """Stop it, if it runs, and start it when the condition is met."""
        self._on("restart", condition, at_most_every, name)

    def start_at(
        self,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        every: Duration | None = None,
        name: str | None = None,
    ) -> None:
        """Start it by the clock.

        Args:
            cron: five fields: minute, hour, day, month, weekday.
            timezone: in which the fields are read, e.g. Asia/Shanghai.
            every: instead of cron: so long after the one before, first so long after the upload.
            name: of the rule.
        """
        if (cron is None) == (every is None):
            raise WorkflowError(f"task {self.name}: start_at wants either cron= or every=")
        timing = {"cron": cron, "timezone": timezone} if every is None else {"every_ms": milliseconds(every)}
        self._flow.add_rule(self.name, "start", name, **timing)

    def started(self) -> Condition:
        """A run of it began."""
        return self._became("RUNNING")

    def succeeded(self) -> Condition:
        """A run of it ended well."""
        return self._became("SUCCEEDED")

    def failed(self) -> Condition:
        """A run of it failed, its retries included."""
        return self._became("FAILED")

    def finished(self) -> Condition:
        """A run of it ended, well or not."""
        return any_of(self.succeeded(), self.failed(), self._became("STOPPED"))

    def _became(self, status: str) -> Condition:
        return event(f"{self._flow.name}.{self.name}", type=f"TASK_{status}")

    def _on(self, action: str, condition: Condition, at_most_every: Duration | None, name: str | None) -> None:
        guard = {} if at_most_every is None else {"at_most_every_ms": milliseconds(at_most_every)}
        self._flow.add_rule(self.name, action, name, when=condition.document, **guard)


class StreamTask(Task):
    """A service that runs until it is stopped.

    Args:
        name: of the task.
        service: whose processes are started, stopped and restarted.
    """

    def __init__(self, name: str, *, service: str) -> None:
        super().__init__(name, {"kind": "stream", "service": service})


class BatchTask(Task):
    """A command that ends.

    Args:
        name: of the task.
        run: the command; {event.key}, {event.value}, {event.context[to]} stand for fields of the event that met the rule last.
        resident: a service that is always there and works on the command itself; None: a process is started.
        retries: how often a failed run is tried again.
        backoff: pause before the first retry; each further one is twice as long.
        timeout: a run that takes longer is stopped and counts as failed.
        concurrency: how many runs there may be at once.
        queue: what a start does while so many run: nothing ("none"), waits if none waits yet ("one"), waits instead of the
            one that waits ("newest").
        catch_up: of start_at, after a time without a scheduler: none of the missed starts, the latest, or all.
    """

    def __init__(  # noqa: PLR0913  # options of a task, each with a default
        self,
        name: str,
        *,
        run: str | Sequence[str],
        resident: str | None = None,
        retries: int = 0,
        backoff: Duration = "1s",
        timeout: Duration | None = None,
        concurrency: int = 1,
        queue: Queue = "none",
        catch_up: CatchUp = "latest",
    ) -> None:
        document: dict[str, Any] = {
            "kind": "batch",
            "executor": "process" if resident is None else "resident",
            "service": resident or "",
            "run": shlex.split(run) if isinstance(run, str) else list(run),
            "retries": retries,
            "backoff_ms": milliseconds(backoff),
            "concurrency": concurrency,
            "queue": queue,
            "catch_up": catch_up,
        }
        if timeout is not None:
            document["timeout_ms"] = milliseconds(timeout)
        super().__init__(name, document)
