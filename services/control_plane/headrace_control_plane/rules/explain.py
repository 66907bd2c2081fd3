"""Why a rule fired or has not: its conditions in words, what meets them, what is missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from headrace_core.contracts import Millis

from headrace_control_plane.rules.conditions import Condition, State

Told = dict[str, Any]


def words(condition: Condition) -> str:
    """A condition in words."""
    match condition["kind"]:
        case "event":
            return _event(condition)
        case "any_of":
            return "any of: " + "; ".join(words(c) for c in condition["of"])
        case "all_of":
            return "all of: " + "; ".join(words(c) for c in condition["of"])
        case "count":
            return f"{condition['n']} times{_within(condition)}: {words(condition['of'][0])}"
        case _:
            return f"in this order{_within(condition)}: " + "; then ".join(words(c) for c in condition["of"])


def explain(condition: Condition, state: State, now: Millis) -> Told:
    """A condition with `met`, the offsets of the events that meet it or its parts, and what is `missing`.

    Args:
        condition: to explain.
        state: of it, never a finished one: a condition that is met starts anew.
        now: tells whether a sequence has outlived its limit.
    """
    told = {"condition": words(condition), "met": False, "events": []}
    match condition["kind"]:
        case "event":
            return told | {"missing": words(condition)}
        case "any_of":
            states = state or [None] * len(condition["of"])
            return told | {"of": [explain(c, s, now) for c, s in zip(condition["of"], states, strict=True)]}
        case "all_of":
            slots = state or [(None, None)] * len(condition["of"])
            of = [
                _met(c, met) if met is not None else explain(c, inner, now)
                for c, (met, inner) in zip(condition["of"], slots, strict=True)
            ]
            return told | {"of": of}
        case "count":
            return told | _count(condition, state, now)
        case _:
            return told | _sequence(condition, state, now)


def missing(told: Mapping[str, Any]) -> list[str]:
    """What would have to happen next, in words; of an any_of each alternative."""
    return list(_missing(told))


def _missing(told: Mapping[str, Any]) -> Iterator[str]:
    if told["met"]:
        return
    if told.get("missing"):
        yield told["missing"]
    for inner in told.get("of", ()):
        yield from _missing(inner)


def _met(condition: Condition, refs: Any) -> Told:
    return {"condition": words(condition), "met": True, "events": [ref[0] for ref in refs]}


def _count(condition: Condition, state: State, now: Millis) -> Told:
    times = list(state["met"]) if state else []
    if "within_ms" in condition:
        times = [refs for refs in times if now - refs[-1][1] <= condition["within_ms"]]
    return {
        "events": [ref[0] for refs in times for ref in refs],
        "missing": f"{condition['n'] - len(times)} more of {condition['n']}: {words(condition['of'][0])}",
    }


def _sequence(condition: Condition, state: State, now: Millis) -> Told:
    met = list(state["met"]) if state else []
    inner = state["inner"] if state else None
    told: Told = {}
    if met and "within_ms" in condition:
        left = condition["within_ms"] - (now - met[0][0][1])
        if left < 0:
            # What is kept of it is gone through again at the next event that matters.
            met, inner = [], None
            told["note"] = "the first event is older than the limit"
        else:
            told["time_left_ms"] = left
    of = [_met(c, refs) for c, refs in zip(condition["of"], met, strict=False)]
    for n, c in enumerate(condition["of"][len(met) :]):
        if n == 0:
            of.append(explain(c, inner, now))
        else:
            of.append({"condition": words(c), "met": False, "events": [], "waits": "for the one before"})
    return told | {"of": of, "events": [ref[0] for refs in met for ref in refs]}


def _within(condition: Condition) -> str:
    return f" within {condition['within_ms'] / 1000:g} s" if "within_ms" in condition else ""


def _event(leaf: Condition) -> str:
    text = f"event {leaf['key']}" + (f" {leaf['type']}" if leaf.get("type") else "")
    value = leaf.get("value")
    if isinstance(value, Mapping):
        text += f" with a time at {value['at']} ({value['timezone']})"
    elif value is not None:
        text += f" = {value!r}"
    if "matches" in leaf:
        text += f" matching {leaf['matches']!r}"
    for field in ("namespace", "sender"):
        if field in leaf:
            text += f", {field} {leaf[field]}"
    return text
