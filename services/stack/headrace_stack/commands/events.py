"""Commands of control events."""

import getpass
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from headrace_stack.commands import reach
from headrace_stack.commands.reach import Api
from headrace_stack.commands.terminal import (
    Defaulting,
    Follow,
    Json,
    Limit,
    WrongUsageError,
    hint,
    show_json,
    tell,
    when,
)

_POLL_SECONDS: Final = 20
_PAGE: Final = 5_000


class _Events(Defaulting):
    default, bare = "list", True


events = typer.Typer(cls=_Events, help="Control events: `headrace events` shows the newest, `-f` goes on as they come.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(events, name="events")


def in_words(event: Mapping[str, Any]) -> str:
    """An event in a line."""
    return f"#{event['offset']} {event['key']} {event['type']} {event['value']}"


@events.command("list")
def list_events(
    key: Annotated[list[str] | None, typer.Option(help="only of this key; may be repeated")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="the oldest after this offset, instead of the newest")
    ] = None,
    follow: Follow = False,  # noqa: FBT002  # a flag
    limit: Limit = 20,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show the newest events, oldest of them first, or those after an offset; a line each."""
    with reach.control(_POLL_SECONDS + 10) as api:
        if after is None:
            found, after = _newest(api, key or [], limit)
        else:
            page = api.call("GET", "/events", params={"key": key or [], "after": after, "limit": limit})
            found, after = page["items"], page["next"]
        _print(found, as_json=as_json)
        if not found and not follow:
            hint(f"no event{' of ' + ', '.join(key) if key else ''} yet")
        while follow:
            wanted = {"key": key or [], "after": after, "limit": _PAGE, "wait_s": _POLL_SECONDS}
            page = api.call("GET", "/events", params=wanted)
            _print(page["items"], as_json=as_json)
            after = page["next"]


def _newest(api: Api, keys: Sequence[str], limit: int) -> tuple[list[dict[str, Any]], int]:
    """The newest events of keys, oldest first, and the offset to go on after.

    Lists go forward only, so ever longer stretches before the newest are read until one holds enough.
    """
    top = api.call("GET", "/events/newest")["offset"]
    reach_back = limit
    while True:
        begin = after = max(0, top - reach_back)
        found: deque[dict[str, Any]] = deque(maxlen=limit)
        while after < top:
            page = api.call("GET", "/events", params={"key": keys, "after": after, "limit": _PAGE})
            found.extend(event for event in page["items"] if event["offset"] <= top)
            after = page["next"]
        if len(found) == limit or begin == 0:
            return list(found), top
        reach_back *= 4


def _print(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    for event in found:
        print(json.dumps(event) if as_json else f"{when(event['create_time'])} {in_words(event)}", flush=True)


@events.command("send")
def send_event(  # noqa: PLR0913, PLR0917  # the fields of the call
    key: Annotated[str, typer.Argument(help="what it is about, e.g. samples")],
    value: Annotated[str, typer.Argument(help="what is said of it")],
    type_: Annotated[str, typer.Option("--type", help="kind of event")] = "",
    namespace: Annotated[str, typer.Option("--namespace", help="in which rules look for it")] = "default",
    context: Annotated[str | None, typer.Option("--context", help="a JSON object")] = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Append an event, which rules may react to."""
    try:
        told = json.loads(context or "{}")
    except ValueError as error:
        raise WrongUsageError(f"--context: no JSON ({error}); want an object, e.g. '{{\"to\": 1}}'") from None
    if not isinstance(told, dict):
        raise WrongUsageError("--context: want a JSON object, e.g. '{\"to\": 1}'")
    body = {"key": key, "value": value, "type": type_, "namespace": namespace, "sender": _person(), "context": told}
    with reach.control() as api:
        answer = api.call("POST", "/events", json=body)
    if as_json:
        show_json(answer)
    else:
        tell(f"#{answer['offset']} {key} {type_} {value}")


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "cli"
