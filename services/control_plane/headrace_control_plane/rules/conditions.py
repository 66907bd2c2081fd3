"""Conditions over events, fed one event at a time.

The state of a condition is JSON; None is the state in which nothing has happened. A condition that is met starts anew.

Time is the events' own create_time, which never goes back from one offset to the next.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from headrace_core.contracts import Millis

Condition = Mapping[str, Any]
State = Any

#: A sequence with a limit remembers so many events from which it may begin anew; beyond it the oldest are forgotten.
REMEMBERED: Final = 1_000


class Happened(NamedTuple):
    """An event as conditions see it."""

    offset: int
    time: Millis
    key: str
    value: str
    type: str
    namespace: str
    sender: str


class Ref(NamedTuple):
    """Which event, and when."""

    offset: int
    time: Millis


def feed(condition: Condition, state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    """The state after an event, and the events that met the condition, oldest first, if this one completed it."""
    match condition["kind"]:
        case "event":
            return None, [Ref(event.offset, event.time)] if matches(condition, event) else None
        case "any_of":
            return _any_of(condition["of"], state, event)
        case "all_of":
            return _all_of(condition["of"], state, event)
        case "count":
            return _count(condition, state, event)
        case _:
            return _sequence(condition, state, event)


def matches(leaf: Condition, event: Happened) -> bool:
    """Whether an event is the one that an event condition means."""
    if leaf["key"] != event.key:
        return False
    for field in ("type", "namespace", "sender"):
        if field in leaf and leaf[field] != getattr(event, field):
            return False
    value = leaf.get("value")
    if isinstance(value, str) and value != event.value:
        return False
    if isinstance(value, Mapping) and not _is_at(value["at"], value["timezone"], event.value):
        return False
    return "matches" not in leaf or _pattern(leaf["matches"]).fullmatch(event.value) is not None


@lru_cache(maxsize=1_000)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _is_at(minute: str, timezone: str, value: str) -> bool:
    """Whether a value, ms since the epoch or ISO 8601, lies in a minute of its day."""
    zone = ZoneInfo(timezone)
    try:
        if re.fullmatch(r"-?[0-9]{1,15}", value):
            time = datetime.fromtimestamp(int(value) / 1000, zone)
        else:
            told = datetime.fromisoformat(value)
            time = told.astimezone(zone) if told.tzinfo else told.replace(tzinfo=UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return False
    return time.strftime("%H:%M") == minute


def _any_of(of: Sequence[Condition], state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    states = list(state or [None] * len(of))
    for n, inner in enumerate(of):
        states[n], met = feed(inner, states[n], event)
        if met is not None:
            return None, met
    return (states if any(s is not None for s in states) else None), None


def _all_of(of: Sequence[Condition], state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    """The state is a pair per member: the events that met it, or None, and its own state."""
    slots = [list(slot) for slot in state or [(None, None)] * len(of)]
    for inner, slot in zip(of, slots, strict=True):
        if slot[0] is None:
            slot[1], slot[0] = feed(inner, slot[1], event)
    if all(slot[0] is not None for slot in slots):
        return None, _together([slot[0] for slot in slots])
    return (slots if any(s is not None for slot in slots for s in slot) else None), None


def _count(condition: Condition, state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    inner, times = (state["inner"], list(state["met"])) if state else (None, [])
    inner, met = feed(condition["of"][0], inner, event)
    if met is not None:
        times.append(met)
        if (within := condition.get("within_ms")) is not None:
            times = [refs for refs in times if event.time - Ref(*refs[-1]).time <= within]
        if len(times) >= condition["n"]:
            return None, _together(times)
    return ({"inner": inner, "met": times} if inner is not None or times else None), None


def _sequence(condition: Condition, state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    """Members one after the other, each looking only at what comes after the one before.

    With a limit, the match that began first is followed until it is too old; then the events after its first one are gone
    through again. That finds a match as soon as there is any, and of several the one that began first: a match that begins
    later never ends earlier.
    """
    of, within = condition["of"], condition.get("within_ms")
    if within is None:
        return _step(of, state, event)
    seen = list(state["seen"]) if state else []
    if any(matches(leaf, event) for leaf in _leaves(condition)):
        seen.append(event)
    state, done = _step(of, state, event)
    while (first := _first(done, state)) is not None and event.time - first.time > within:
        seen = [one for one in seen if one[0] > first.offset]
        state, done = None, None
        for one in seen:
            state, done = _step(of, state, Happened(*one))
    if done is not None:
        return None, done
    return (state | {"seen": [list(one) for one in seen[-REMEMBERED:]]} if state else None), None


def _step(of: Sequence[Condition], state: State, event: Happened) -> tuple[State, list[Ref] | None]:
    """One event without regard to the limit. `met` holds the events of each member that is met."""
    met, inner = (list(state["met"]), state["inner"]) if state else ([], None)
    inner, done = feed(of[len(met)], inner, event)
    if done is not None:
        met.append(done)
        if len(met) == len(of):
            return None, _together(met)
    return ({"met": met, "inner": inner} if met or inner is not None else None), None


def _first(done: list[Ref] | None, state: State) -> Ref | None:
    if done is not None:
        return done[0]
    return Ref(*state["met"][0][0]) if state and state["met"] else None


def _leaves(condition: Condition) -> list[Condition]:
    return [condition] if condition["kind"] == "event" else [leaf for c in condition["of"] for leaf in _leaves(c)]


def _together(parts: Sequence[Sequence[Sequence[int]]]) -> list[Ref]:
    return sorted({Ref(*ref) for part in parts for ref in part})
