"""Workflows: rules with what they wait for, tasks with their state, runs with their cause. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace_core.control.records import Run

from headrace_control_plane.console.markup import NONE, duration, moment, notice, pill, table, text

Json = Mapping[str, Any]

_SHOWN_FIRINGS: Final = 3
_NAMED_EVENTS: Final = 4


def flow(workflow: Json, tasks: Sequence[Json], whys: Sequence[Json]) -> str:
    """A workflow: each rule beside the task that it acts on, then tasks that no rule acts on.

    Args:
        workflow: its name, snapshot, whether it is paused.
        tasks: with their newest run.
        whys: what each rule waits for, in the order of the rules.
    """
    by_name = {task["task"]: task for task in tasks}
    ruled = {why["task"] for why in whys}
    rows = [_rule(why, by_name.get(why["task"])) for why in whys]
    rows += [_alone(task) for task in tasks if task["task"] not in ruled]
    paused = f" {pill('RETRYING', 'paused')}" if workflow.get("paused") else ""
    return (
        f"<h2>{text(workflow['workflow'])}{paused}<small>snapshot {workflow['snapshot']}, applied "
        f"{moment(workflow.get('applied_at'), ago=True)}</small></h2>"
        f'<div class="card">{"".join(rows) or notice("It has no tasks")}</div>'
    )


def _rule(why: Json, task: Json | None) -> str:
    return (
        f'<section class="rule" aria-label="rule {text(why["rule"])}"><div><h3>{text(why["rule"])}</h3>'
        f"{_conditions(why)}{_past(why)}</div>"
        f'<div class="then">{text(why["action"])}s</div>{_task(task) if task else ""}</section>'
    )


def _alone(task: Json) -> str:
    return (
        '<section class="rule"><div class="soft">No rule acts on it.</div><div class="then">by hand</div>'
        f"{_task(task)}</section>"
    )


def _task(task: Json) -> str:
    last = task.get("last_run")
    ended = (last.get("ended_at") or last.get("started_at") or last.get("created_at")) if last else None
    work = [task["service"]] if task["kind"] == "stream" else task.get("run", ())
    return (
        f'<div class="task"><header><h3>{text(task["task"])}</h3>{pill(task["status"])}</header>'
        f'<div class="soft">{text(task["kind"])} {moment(ended, ago=True)}</div>'
        f'<div class="mono">{" ".join(f"<span>{text(word)}</span>" for word in work)}</div></div>'
    )


def _conditions(why: Json) -> str:
    if "conditions" not in why:
        return (
            f'<ul class="conditions"><li class="wanted"><b class="mark" aria-label="waits for">○</b>{text(why["words"])}, '
            f"next {moment(why.get('next'))}</li></ul>"
        )
    events = why.get("events", {})
    lacking = [words for words in why.get("missing", ()) if words != why["conditions"].get("missing")]
    told = f'<div class="missing">Missing: {"; ".join(text(words) for words in lacking)}</div>' if lacking else ""
    return f'<ul class="conditions">{condition(why["conditions"], events)}</ul>{told}'


def condition(told: Json, events: Mapping[str, Json]) -> str:
    """A condition with its parts: a tick on what is met, and by which events.

    Args:
        told: as the API explains it.
        events: those that it names, by offset.
    """
    met = bool(told["met"])
    parts = told.get("of", ())
    words = told["condition"].partition(":")[0] if parts else told["condition"]
    by = ", ".join(_event(events.get(str(offset)), offset, when=True) for offset in told["events"]) if not parts else ""
    notes = [told.get("waits", ""), told.get("note", "")]
    if "time_left_ms" in told:
        notes.append(f"{duration(told['time_left_ms'] / 1000)} left")
    if not parts and told.get("missing") and told["missing"] != told["condition"]:
        notes.append(told["missing"])
    extra = "".join(f' <span class="soft">{text(note)}</span>' for note in notes if note)
    inner = f'<ul class="conditions">{"".join(condition(part, events) for part in parts)}</ul>' if parts else ""
    mark, meaning = ("✓", "met") if met else ("○", "not met")
    return (
        f'<li class="{"met" if met else "wanted"}"><b class="mark" role="img" aria-label="{meaning}">{mark}</b>{text(words)}'
        f"{f' <span class=soft>by</span> {by}' if by else ''}{extra}{inner}</li>"
    )


def _event(event: Json | None, offset: int, *, when: bool = False) -> str:
    if event is None:
        return f"#{offset}"
    value = f" = {text(event['value'])}" if event["value"] else ""
    ago = f' <span class="soft">({moment(event.get("create_time"), ago=True)})</span>' if when else ""
    return f"#{offset} {text(event['key'])}{value}{ago}"


def _events(found: Sequence[Any]) -> str:
    """Events in the order of their offsets; of many, the first and the last."""
    told = [_event(e, e["offset"]) if isinstance(e, Mapping) else f"#{text(e)}" for e in found]
    if len(told) > _NAMED_EVENTS:
        return f'{told[0]} <span class="soft">and {len(told) - 2} more, up to</span> {told[-1]}'
    return ", ".join(told)


def _past(why: Json) -> str:
    firings = why.get("firings", ())
    lines = [
        f'<div class="last">Fired {moment(f["time"], ago=True)}'
        f"{' on ' + _events(f['events']) if f['events'] else ''}: {text(f['effect'])}</div>"
        for f in firings[:_SHOWN_FIRINGS]
    ] or ['<div class="last">Has not fired yet.</div>']
    lines += [
        f'<div class="last bad">Set aside {moment(one["time"], ago=True)}: {text(one["error"])}</div>'
        for one in why.get("set_aside", ())[:_SHOWN_FIRINGS]
    ]
    return "".join(lines)


def runs(found: Sequence[Run]) -> str:
    """Runs, newest first, with what caused them."""
    if not found:
        return notice("No run yet", "A rule that fires, or a person, starts the first one.")
    rows = "".join(
        f'<tr data-row="{text(run.run_id)}"><td>{text(run.task)}</td><td>{pill(run.status)}</td>'
        f"<td>{moment(run.created_at, ago=True)}</td>"
        f'<td class="num wide-only">{_took(run)}</td><td class="why">{_cause(run)}</td>'
        f'<td class="why">{_outcome(run)}</td></tr>'
        for run in found
    )
    columns = [("Task", ""), ("Status", ""), ("Began", ""), ("Took", "num wide-only"), ("Cause", ""), ("Outcome", "")]
    return table(columns, rows)


def _took(run: Run) -> str:
    if run.started_at is None or run.ended_at is None:
        return NONE
    return duration((run.ended_at - run.started_at) / 1000)


def _cause(run: Run) -> str:
    events = _events(run.cause.get("events", ()))
    return text(run.cause.get("rule", "")) + (f' <span class="soft">on</span> {events}' if events else "")


def _outcome(run: Run) -> str:
    again = f' <span class="soft">attempt {run.attempt}</span>' if run.attempt > 1 else ""
    if run.error:
        return f'<span class="clip">{text(run.error)}</span>{again}'
    told = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in run.result.items()
        if not isinstance(value, dict | list)
    )
    return f'<span class="clip">{text(told)}</span>{again}'
