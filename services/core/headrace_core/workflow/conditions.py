"""Conditions over events, as authors write them; each compiles to JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_core.workflow.durations import Duration, milliseconds


@dataclass(frozen=True, slots=True)
class Condition:
    """What must have happened; met once, then it begins anew.

    Attributes:
        document: its JSON form.
    """

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A minute of the day, for values that are times.

    Attributes:
        document: its JSON form.
    """

    document: Mapping[str, str]


def at(time: str, timezone: str = "UTC") -> TimeOfDay:
    """For `event(value=at("10:00"))`: the value is a time (ms since the epoch, or ISO 8601) within this minute of its day."""
    return TimeOfDay({"at": time, "timezone": timezone})


def event(  # noqa: PLR0913  # the fields of an event
    key: str,
    type: str | None = None,  # noqa: A002  # the event's own word
    namespace: str | None = None,
    sender: str | None = None,
    *,
    value: str | TimeOfDay | None = None,
    matches: str | None = None,
) -> Condition:
    """An event of this key; what is not told may be anything.

    Args:
        key: of the event.
        type: its type.
        namespace: its namespace.
        sender: its sender.
        value: what its value is, or `at("10:00")`.
        matches: regular expression of the whole value.
    """
    told = {
        "type": type,
        "namespace": namespace,
        "sender": sender,
        "value": dict(value.document) if isinstance(value, TimeOfDay) else value,
        "matches": matches,
    }
    return Condition({"kind": "event", "key": key} | {name: field for name, field in told.items() if field is not None})


def all_of(*conditions: Condition) -> Condition:
    """Each of them, in any order."""
    return Condition({"kind": "all_of", "of": [c.document for c in conditions]})


def any_of(*conditions: Condition) -> Condition:
    """The first of them."""
    return Condition({"kind": "any_of", "of": [c.document for c in conditions]})


def sequence(*conditions: Condition, within: Duration | None = None) -> Condition:
    """One after the other; other events in between do not matter.

    Args:
        conditions: in their order.
        within: longest time from the first event to the last.
    """
    return Condition({"kind": "sequence", "of": [c.document for c in conditions]} | _within(within))


def count(condition: Condition, n: int, within: Duration | None = None) -> Condition:
    """One condition so many times; once is the condition itself.

    Args:
        condition: what is counted.
        n: how often.
        within: longest time from the first of the n to the last.
    """
    if n == 1:
        return condition
    return Condition({"kind": "count", "of": [condition.document], "n": n} | _within(within))


def _within(duration: Duration | None) -> dict[str, int]:
    return {} if duration is None else {"within_ms": milliseconds(duration)}
