"""Events as they come. Pure."""

import json
from collections.abc import Sequence
from typing import Final

from headrace_core.control.records import Event

from headrace_control_plane.console.markup import moment, notice, table, text

SHOWN: Final = 100


def chosen(events: Sequence[Event], wanted: str, most: int = SHOWN) -> list[Event]:
    """The newest events, newest first, that have every word of `wanted` in their key, value, type or sender."""
    words = wanted.lower().split()
    found: list[Event] = []
    for event in reversed(events):
        told = f"{event.key} {event.value} {event.type} {event.sender} {event.namespace}".lower()
        if all(word in told for word in words):
            found.append(event)
            if len(found) == most:
                break
    return found


def tail(events: Sequence[Event], opened: int | None) -> str:
    """A table; the opened event with its context."""
    if not events:
        return (
            f'<div class="card">{notice("No such event", "Events appear here as services and people send them.")}</div>'
        )
    rows = "".join(_row(event, opened=event.offset == opened) for event in events)
    columns = [
        ("Event", ""),
        ("Time", ""),
        ("Key", ""),
        ("Type", "wide-only"),
        ("Value", "wide-only"),
        ("Sender", "wide-only"),
    ]
    return table(columns, rows)


def _row(event: Event, *, opened: bool) -> str:
    key = text(event.key) if event.namespace == "default" else f"{text(event.namespace)}/{text(event.key)}"
    value = f'<span class="clip">{text(event.value)}</span>'
    row = (
        f'<tr data-row="{event.offset}"{" class=open" if opened else ""}><td>'
        f'<button class="row" data-act="open:{event.offset}" data-focus="open:{event.offset}" '
        f'aria-expanded="{"true" if opened else "false"}">#{event.offset}</button></td>'
        f'<td>{moment(event.create_time)}</td><td class="key">{key}<div class="soft narrow-only">{text(event.type)} {value}'
        f'</div></td><td class="wide-only">{text(event.type)}</td><td class="why wide-only">{value}</td>'
        f'<td class="wide-only">{text(event.sender)}</td></tr>'
    )
    if not opened:
        return row
    context = text(json.dumps(event.context, indent=2, ensure_ascii=False))
    return row + f'<tr class="more"><td colspan="6"><pre class="mono inner">{context}</pre></td></tr>'
