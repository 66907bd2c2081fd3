"""Commands of API keys."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from headrace_core.web.keys import SCOPES, KeysError, entry, new_key

from headrace_stack.commands.terminal import Json, WrongUsageError, show_facts, show_json

_DAYS: Final = re.compile(r"(\d{1,5})d")

keys = typer.Typer(help="API keys: docs/security.md tells where they are put.", no_args_is_help=True)

Scopes = Annotated[
    list[str], typer.Option("--scope", help=f"what it is for, may be repeated: {', '.join(SCOPES)} (holds the others)")
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="WHEN", help="90d from now, a date, or a time in ISO 8601 (UTC)")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")


@keys.command("new")
def new(
    scope: Scopes,
    name: Annotated[str, typer.Option(help="of who will hold it; told in audits and refusals")] = "caller",
    expires: Expires = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Make a key: shows it, this once, and the line that makes it known to the services."""
    key = new_key()
    try:
        line = entry(name, list(dict.fromkeys(scope)), key, _until(expires, datetime.now(UTC)))
    except KeysError as error:
        raise WrongUsageError(str(error).removeprefix("entry, line 1: ")) from error
    if as_json:
        show_json({"key": key, "entry": line})
        return
    show_facts({"key": key, "entry": line})


def _until(told: str | None, now: datetime) -> datetime | None:
    if told is None:
        return None
    if days := _DAYS.fullmatch(told):
        return now + timedelta(days=int(days[1]))
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        raise WrongUsageError(f"--expires {told}: want 90d, 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
