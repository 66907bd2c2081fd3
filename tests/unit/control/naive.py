"""What conditions mean, told anew from the whole history after every event; slow, and without any state."""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace_control_plane.rules.conditions import Happened, matches

Found = tuple[int, list[int]]  # index of the event that completes it, offsets of all that met it


def first(condition: Mapping[str, Any], history: Sequence[Happened], start: int) -> Found | None:
    """The earliest completion of a condition that looks only at events from `start` on."""
    kind = condition["kind"]
    if kind == "event":
        return next(
            ((n, [history[n].offset]) for n in range(start, len(history)) if matches(condition, history[n])), None
        )
    parts = condition["of"]
    if kind == "any_of":
        found = [f for f in (first(c, history, start) for c in parts) if f is not None]
        return min(found, key=lambda f: f[0], default=None)
    if kind == "all_of":
        every = [first(c, history, start) for c in parts]
        if any(f is None for f in every):
            return None
        known = [f for f in every if f is not None]
        return max(f[0] for f in known), sorted({o for f in known for o in f[1]})
    return _count(condition, history, start) if kind == "count" else _sequence(condition, history, start)


def firings(condition: Mapping[str, Any], history: Sequence[Happened]) -> list[list[int]]:
    """The offsets of each firing of a rule with this condition."""
    fired, start = [], 0
    while (found := first(condition, history, start)) is not None:
        fired.append(found[1])
        start = found[0] + 1
    return fired


def _chain(parts: Sequence[Mapping[str, Any]], history: Sequence[Happened], start: int) -> list[Found] | None:
    chain: list[Found] = []
    for part in parts:
        found = first(part, history, start)
        if found is None:
            return None
        chain.append(found)
        start = found[0] + 1
    return chain


def _sequence(condition: Mapping[str, Any], history: Sequence[Happened], start: int) -> Found | None:
    times = {event.offset: event.time for event in history}
    best: Found | None = None
    for begin in range(start, len(history) if "within_ms" in condition else start + 1):
        chain = _chain(condition["of"], history, begin)
        if chain is None:
            continue
        end, offsets = chain[-1][0], sorted({o for f in chain for o in f[1]})
        limit = condition.get("within_ms")
        if (limit is None or history[end].time - times[offsets[0]] <= limit) and (best is None or end < best[0]):
            best = (end, offsets)
    return best


def _count(condition: Mapping[str, Any], history: Sequence[Happened], start: int) -> Found | None:
    found: list[Found] = []
    while (one := first(condition["of"][0], history, start)) is not None:
        found.append(one)
        start = one[0] + 1
        last = found[-condition["n"] :]
        limit = condition.get("within_ms")
        if len(last) == condition["n"] and (limit is None or history[one[0]].time - history[last[0][0]].time <= limit):
            return one[0], sorted({o for f in last for o in f[1]})
    return None
