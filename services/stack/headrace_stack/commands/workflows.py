"""Commands of workflows: compile, apply, watch, steer; and why something was started."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from headrace_core.workflow import WorkflowError, compile_file
from rich.text import Text

from headrace_stack.commands import reach
from headrace_stack.commands.events import in_words
from headrace_stack.commands.reach import Api, body_of, segment
from headrace_stack.commands.terminal import (
    CommandError,
    Json,
    Limit,
    WrongUsageError,
    out,
    show,
    show_facts,
    show_json,
    state,
    tell,
    when,
)

_STATUSES = ("INIT", "QUEUED", "STARTING", "RUNNING", "STOPPING", "STOPPED", "SUCCEEDED", "FAILED", "RETRYING")

workflows = typer.Typer(help="Workflows: compile, apply, watch and steer.", no_args_is_help=True)


def _names(incomplete: str) -> list[str]:
    return reach.complete("/workflows", "workflow", incomplete)


def _words(incomplete: str) -> list[str]:
    return [name for name in _STATUSES if name.startswith(incomplete.upper())]


File = Annotated[Path, typer.Argument(help="a Python file that defines workflows")]
Name = Annotated[str, typer.Argument(metavar="WORKFLOW", autocompletion=_names)]
Task = Annotated[str, typer.Argument(metavar="TASK")]
Cause = Annotated[int | None, typer.Option("--event", min=1, help="offset of the event whose fields the command takes")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(workflows, name="workflows")
    app.command()(why)


@workflows.command("compile")
def compile_workflow(
    file: File,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Print the JSON documents of a workflow file; nothing is uploaded."""
    for document in _compiled(file):
        print(json.dumps(document, indent=None if as_json else 2))


@workflows.command()
def apply(file: File, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Compile a workflow file and upload it; its rules see what happens from now on."""
    documents = _compiled(file)
    with reach.control() as api:
        applied = [api.call("POST", "/workflows", json=document) for document in documents]
    if as_json:
        show_json(applied)
    else:
        for told in applied:
            tell(f"{told['workflow']}: snapshot {told['snapshot']}")


def _compiled(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise WrongUsageError(
            f"there is no file {file}: want a Python file as definitions/workflows/realtime_recommender.py"
        )
    try:
        return compile_file(file)
    except WorkflowError as error:
        raise CommandError(str(error)) from error


@workflows.command("list")
def list_workflows(as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """List workflows."""
    with reach.control() as api:
        items = api.call("GET", "/workflows")["items"]
    rows = [
        (w["workflow"], w["snapshot"], state("paused" if w["paused"] else "active"), w["rules"], when(w["applied_at"]))
        for w in items
    ]
    none = "no workflow yet: `headrace workflows apply FILE` uploads one"
    show(items, rows, ("workflow", "snapshot", "state", "rules", "applied"), as_json=as_json, none=none)


@workflows.command("show")
def show_workflow(workflow: Name, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Show a workflow's tasks with their newest run, and its rules with what they wait for."""
    base = f"/workflows/{segment(workflow)}"
    with reach.control() as api:
        told = api.call("GET", base)
        tasks = api.call("GET", f"{base}/tasks")["items"]
        whys = [_why(api, workflow, rule["rule"]) for rule in api.call("GET", f"{base}/rules")["items"]]
    if as_json:
        show_json(told | {"tasks": tasks, "rules": whys})
        return
    show_facts({
        "workflow": workflow, "snapshot": told["snapshot"], "state": state("paused" if told["paused"] else "active"),
    })  # fmt: skip
    rows = [
        (t["task"], state(t["status"]), when((t["last_run"] or {}).get("started_at")), (t["last_run"] or {}).get("run_id"),
         " ".join(t.get("run") or ()) if isinstance(t.get("run"), list) else t.get("run") or f"service {t.get('service', '')}")
        for t in tasks
    ]  # fmt: skip
    show(tasks, rows, ("task", "status", "started", "newest run", "runs"), as_json=False, none="no tasks")
    rules = [
        (w["rule"], f"{w['action']} {w['task']}", w["words"], "; ".join(w["missing"]),
         when(w["firings"][0]["time"]) if w["firings"] else "never")
        for w in whys
    ]  # fmt: skip
    show(whys, rules, ("rule", "does", "on", "missing", "fired last"), as_json=False, none="no rules")


@workflows.command()
def pause(workflow: Name, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Stop a workflow's rules; its runs go on."""
    _switch(workflow, "pause", as_json=as_json)


@workflows.command()
def resume(workflow: Name, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Let a workflow's rules see what happens from now on."""
    _switch(workflow, "resume", as_json=as_json)


def _switch(workflow: str, action: str, *, as_json: bool) -> None:
    with reach.control() as api:
        told = api.call("POST", f"/workflows/{segment(workflow)}/{action}")
    if as_json:
        show_json(told)
    else:
        tell(f"{workflow}: {'paused' if told['paused'] else 'active'}")


@workflows.command()
def start(workflow: Name, task: Task, event: Cause = None, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Start a task by hand; no effect while it runs."""
    _act(workflow, task, "start", {"event": event}, as_json=as_json)


@workflows.command()
def stop(workflow: Name, task: Task, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Stop a task."""
    _act(workflow, task, "stop", None, as_json=as_json)


@workflows.command()
def restart(workflow: Name, task: Task, event: Cause = None, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Restart a task."""
    _act(workflow, task, "restart", {"event": event}, as_json=as_json)


def _act(workflow: str, task: str, action: str, body: dict[str, Any] | None, *, as_json: bool) -> None:
    with reach.control() as api:
        path = f"/workflows/{segment(workflow)}/tasks/{segment(task)}/{action}"
        told = api.call("POST", path, **({"json": body} if body else {}))
    if as_json:
        show_json(told)
    else:
        tell(f"{workflow}.{task}: {told['effect']} {told['run_id'] or ''}".rstrip())


@workflows.command("runs")
def list_runs(  # the filters of the list
    workflow: Annotated[str | None, typer.Argument(help="all if not told", autocompletion=_names)] = None,
    task: Annotated[str | None, typer.Option(help="of this task")] = None,
    status: Annotated[str | None, typer.Option(help="e.g. RUNNING or FAILED", autocompletion=_words)] = None,
    limit: Limit = 20,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """List runs, newest first; `headrace why RUN` tells more of one."""
    if status is not None and status.upper() not in _STATUSES:
        raise WrongUsageError(f"--status {status}: want one of {', '.join(_STATUSES)}")
    wanted = {"workflow": workflow, "task": task, "status": status and status.upper(), "limit": limit}
    with reach.control() as api:
        if workflow is not None:
            api.call("GET", f"/workflows/{segment(workflow)}")  # an unknown one is told, not shown as empty
        items = api.call("GET", "/runs", params={k: v for k, v in wanted.items() if v is not None})["items"]
    rows = [
        (r["run_id"], f"{r['workflow']}.{r['task']}", state(r["status"]), r["attempt"], _cause(r["cause"]),
         when(r["started_at"]), _seconds(r), r["error"])
        for r in items
    ]  # fmt: skip
    columns = ("run", "task", "status", "attempt", "because of", "started", "took", "error")
    show(items, rows, columns, as_json=as_json, none="no run yet")


def _seconds(run: Mapping[str, Any]) -> str:
    if not run["started_at"] or not run["ended_at"]:
        return ""
    return f"{(run['ended_at'] - run['started_at']) / 1000:.1f} s"


def _cause(cause: Mapping[str, Any]) -> str:
    return " ".join([cause["rule"], *(f"#{event['offset']}" for event in cause["events"])])


def why(
    subject: Annotated[str, typer.Argument(metavar="WORKFLOW | RUN", autocompletion=_names)],
    rule: Annotated[str | None, typer.Argument(help="one of the workflow's rules; all if not told")] = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Tell why a rule fired or has not, or why a run started."""
    with reach.control() as api:
        if rule is None and (run := _run(api, subject)) is not None:
            if as_json:
                show_json(run)
            else:
                _tell_run(run)
            return
        whys = [_why(api, subject, rule)] if rule else [_why(api, subject, r, firings=3) for r in _rules(api, subject)]
    if as_json:
        show_json(whys[0] if rule else {"items": whys, "next": None})
        return
    for told in whys:
        _tell_why(told)


def _run(api: Api, run_id: str) -> dict[str, Any] | None:
    answer = api.ask("GET", f"/runs/{segment(run_id)}")
    return None if answer.status_code == 404 else body_of(answer)


def _rules(api: Api, workflow: str) -> list[str]:
    try:
        return [rule["rule"] for rule in api.call("GET", f"/workflows/{segment(workflow)}/rules")["items"]]
    except CommandError as error:
        if error.code != 1:
            raise
        raise CommandError(
            f"there is no run and no workflow {workflow}: `headrace workflows list` and `headrace workflows runs` tell them"
        ) from error


def _why(api: Api, workflow: str, rule: str, firings: int = 10) -> dict[str, Any]:
    path = f"/workflows/{segment(workflow)}/rules"
    answer = api.ask("GET", f"{path}/{segment(rule)}/why", params={"limit": firings})
    if answer.status_code == 404:
        known = ", ".join(r["rule"] for r in api.call("GET", path)["items"])
        raise CommandError(f"there is no rule {rule} in workflow {workflow}; there are: {known or 'none'}")
    return body_of(answer)


def _tell_run(run: Mapping[str, Any]) -> None:
    tell(f"{run['run_id']} ({run['status']}, attempt {run['attempt']}) was started by {run['cause']['rule']}")
    _tell_events(run["cause"]["events"], "  ")
    tell(f"  command: {' '.join(run['command'])}")
    if run["error"]:
        tell(f"  error: {run['error']}", style="red")


def _tell_why(told: Mapping[str, Any]) -> None:
    out().print(
        Text.assemble(
            (f"{told['workflow']} {told['rule']}", "bold"), f": {told['action']} {told['task']} on {told['words']}"
        )
    )
    if "conditions" in told:
        _tell_condition(told["conditions"], told["events"], 1)
    for lacking in told["missing"]:
        tell(f"  missing: {lacking}")
    if not told["firings"]:
        tell(f"  has not fired; sees events after {told['sees_events_after']}")
    for firing in told["firings"]:
        tell(f"  fired {when(firing['time'])}: {firing['effect']} {firing['run_id'] or ''}".rstrip())
        _tell_events(firing["events"], "    ")
    for aside in told["set_aside"]:
        event = aside["event"]
        tell(f"  set aside {when(aside['time'])}: {in_words(event) if event else '?'}: {aside['error']}", style="red")


def _tell_condition(condition: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> None:
    mark = state("met" if condition["met"] else "open")
    out().print(Text.assemble("  " * depth, "[", mark, "] ", condition["condition"]))
    if "of" not in condition:
        _tell_events((known[str(offset)] for offset in condition["events"]), "  " * depth + "      ")
    for inner in condition.get("of", ()):
        _tell_condition(inner, known, depth + 1)


def _tell_events(events: Iterable[Mapping[str, Any]], indent: str) -> None:
    for event in events:
        tell(f"{indent}{in_words(event)}")
