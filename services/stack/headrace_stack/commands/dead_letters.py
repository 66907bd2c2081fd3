"""Commands of dead letters: messages that no one could use, beside their topics."""

import sys
from typing import Annotated, Any, Final

import typer

from headrace_stack import tail
from headrace_stack.commands.reach import address
from headrace_stack.commands.terminal import (
    CommandError,
    Defaulting,
    Json,
    Limit,
    show,
    show_facts,
    show_json,
    tell,
    when,
)

_SHOWN_BYTES: Final = 2_000


class _DeadLetters(Defaulting):
    default, bare = "list", True


dlq = typer.Typer(cls=_DeadLetters, help="Dead letters: messages that no one could use, with the reason.")

Topics = Annotated[list[str] | None, typer.Argument(metavar="TOPIC...", help="source topics; all if not told")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dlq, name="dlq")


@dlq.command("list")
def list_letters(topics: Topics = None, limit: Limit = 20, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """List the newest dead letters with their reasons, oldest of them first."""
    kafka = address("kafka")
    known = tail.dead_letter_topics(kafka)
    if unknown := [t for t in topics or () if t not in known]:
        raise CommandError(f"{', '.join(unknown)} has no dead letters; topics that may: {', '.join(known) or 'none'}")
    found = tail.dead_letters(kafka, topics or (), limit)[-limit:]
    items = [{name: value for name, value in letter.items() if name != "raw"} for letter in found]
    rows = [
        (
            when(i["reject_time"]),
            f"{i['topic']}/{i['partition']}/{i['offset']}",
            i["consumer"],
            i["key"],
            i["bytes"],
            i["reason"],
        )
        for i in items
    ]
    columns = ("set aside", "topic/partition/offset", "by", "key", "bytes", "reason")
    show({"items": items, "next": None}, rows, columns, as_json=as_json, none="no dead letters")


@dlq.command("show")
def show_letter(
    place: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="as `headrace dlq` tells it")],
    raw: Annotated[bool, typer.Option("--raw", help="the bytes of the message alone, to stdout")] = False,  # noqa: FBT002  # a flag
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show one dead letter with its message."""
    found = _find(place)
    if raw:
        sys.stdout.buffer.write(found["raw"])
        return
    told = found | {"raw": found["raw"].hex()}
    if as_json:
        show_json(told)
        return
    show_facts({"message": place, "key": told["key"], "set aside": when(told["reject_time"]), "by": told["consumer"],
                "reason": told["reason"], "bytes": told["bytes"]})  # fmt: skip
    tell(repr(found["raw"][:_SHOWN_BYTES]))


def _find(place: str) -> dict[str, Any]:
    topic, _, rest = place.partition("/")
    letters = tail.dead_letters(address("kafka"), [topic], sys.maxsize)
    for letter in letters:
        if f"{letter['partition']}/{letter['offset']}" == rest:
            return letter
    raise CommandError(f"there is no dead letter {place}: `headrace dlq` lists them")
