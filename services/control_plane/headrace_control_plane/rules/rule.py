"""A rule: a condition or a clock, and when it fires."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from croniter import croniter
from headrace_core.contracts import Millis
from headrace_core.workflow.document import leaves

from headrace_control_plane.rules.conditions import Happened, Ref, feed

Rule = Mapping[str, Any]

#: A start by the clock that is later than this was missed: what then happens is the task's `catch_up`.
LATE_MS: Final = 60_000
#: Most missed starts that are caught up.
MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule fired.

    Attributes:
        events: that met its conditions, oldest first; none by the clock.
        time: of the last event, or of the clock's mark.
    """

    events: Sequence[Ref]
    time: Millis


def keys(rule: Rule) -> frozenset[str]:
    """Keys of the events that can change the rule's state; events of other keys need not be shown to it."""
    return frozenset(leaf["key"] for leaf in leaves(rule["when"])) if "when" in rule else frozenset()


def begin(rule: Rule, now: Millis) -> dict[str, Any]:
    """State of a rule that was just uploaded."""
    return {"tree": None} if "when" in rule else {"next": _after(rule, now)}


def see(rule: Rule, state: Mapping[str, Any], event: Happened) -> tuple[dict[str, Any], Fired | None]:
    """State after an event, and whether it fired."""
    rest = rule.get("at_most_every_ms")
    if rest is not None and "fired" in state and event.time - state["fired"] < rest:
        return dict(state), None
    tree, met = feed(rule["when"], state["tree"], event)
    if met is None:
        return {**state, "tree": tree}, None
    return ({"tree": None} if rest is None else {"tree": None, "fired": event.time}), Fired(met, event.time)


def tick(rule: Rule, state: Mapping[str, Any], now: Millis, catch_up: str) -> tuple[dict[str, Any], list[Fired]]:
    """State after the clock showed `now`, and the starts that are due."""
    due = state["next"]
    if due > now:
        return dict(state), []
    latest = max(due, _before(rule, now, due))
    if catch_up == "all":
        marks = [due]
        while len(marks) < MOST and (mark := _after(rule, marks[-1])) <= now:
            marks.append(mark)
    else:
        marks = [latest] if catch_up == "latest" or now - latest <= LATE_MS else []
    return {"next": _after(rule, latest)}, [Fired([], mark) for mark in marks]


def _after(rule: Rule, time: Millis) -> Millis:
    if "every_ms" in rule:
        return time + int(rule["every_ms"])
    return _ms(croniter(rule["cron"], _local(rule, time)).get_next(datetime))


def _before(rule: Rule, now: Millis, due: Millis) -> Millis:
    """The last mark that is not later than now."""
    if "every_ms" in rule:
        every = int(rule["every_ms"])
        return due + (now - due) // every * every
    return _ms(croniter(rule["cron"], _local(rule, now + 1)).get_prev(datetime))


def _local(rule: Rule, time: Millis) -> datetime:
    return datetime.fromtimestamp(time / 1000, ZoneInfo(rule["timezone"]))


def _ms(time: datetime) -> Millis:
    return round(time.timestamp() * 1000)
