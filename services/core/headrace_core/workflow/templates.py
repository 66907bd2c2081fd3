"""Fields of an event in a command: {event.key}, {event.value}, {event.context[to]}."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_FIELD: Final = re.compile(r"\{event\.(?:(key|value|type|namespace|sender|offset)|context\[([^\]{}]+)\])\}")
_ANY: Final = re.compile(r"\{event[^}]*\}")


class TemplateError(ValueError):
    """A command names what is not there."""


def check(command: Sequence[str]) -> None:
    """Refuse fields that no event has.

    Raises:
        TemplateError: there is one.
    """
    for argument in command:
        for found in _ANY.findall(argument):
            if not _FIELD.fullmatch(found):
                raise TemplateError(f"{found} is no field of an event: write {{event.value}} or {{event.context[to]}}")


def needs_event(command: Sequence[str]) -> bool:
    """Whether the command can't be made without an event."""
    return any(_FIELD.search(argument) for argument in command)


def fill(command: Sequence[str], event: Mapping[str, Any] | None) -> list[str]:
    """The command with the event's fields; an argument stays one argument, whatever the field holds.

    Raises:
        TemplateError: the event lacks a field, or there is no event.
    """

    def field(match: re.Match[str]) -> str:
        if event is None:
            raise TemplateError(f"{match[0]}: there is no event to take it from")
        if match[1] is not None:
            return str(event[match[1]])
        try:
            value = event["context"][match[2]]
        except KeyError:
            raise TemplateError(f"{match[0]}: event {event['offset']} has no {match[2]!r} in its context") from None
        return value if isinstance(value, str) else str(value)

    return [_FIELD.sub(field, argument) for argument in command]
