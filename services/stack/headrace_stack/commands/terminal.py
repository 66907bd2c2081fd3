"""How every command speaks: exit codes, one line for an error, tables for people, JSON for scripts."""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import httpx
import psycopg
import typer
from aiokafka.errors import KafkaError
from headrace_core.control.bearer import KeyUnreadableError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup
from typer.exceptions import TyperException

from headrace_stack.layout import StackError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_AWAY: Final = 3
_EXIT_INTERRUPTED: Final = 130
#: Where nobody looks, rows are not broken at the 80 columns that a terminal is taken to have.
_UNSEEN_WIDTH: Final = 240
_AGES: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NEXT_STEP: Final = "`headrace status` shows what runs"

errors = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="for scripts")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=1, max=1_000, help="how many")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="go on as they come")]


class CommandError(Exception):
    """Ends the command; the message is one line that says what is wrong and what to do next."""

    code: int = EXIT_FAILED


class WrongUsageError(CommandError):
    """The command was called in a way that can't work."""

    code = EXIT_USAGE


class AwayError(CommandError):
    """Something that the command needs is down."""

    code = EXIT_AWAY


class Commands(TyperGroup):
    """The outermost group: whatever ends a command is told in one line, with the exit code that belongs to it."""

    def main(  # type: ignore[override]  # its other arguments are handed on
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **more: Any,
    ) -> Any:
        """Run a command line."""
        logging.getLogger("aiokafka").setLevel(
            logging.CRITICAL
        )  # what it has to say is in the error that ends the command
        try:
            ended = super().main(args, prog_name, standalone_mode=False, **more)
        except Exception as error:
            if not standalone_mode or os.environ.get("HEADRACE_TRACEBACK"):
                raise
            ended = say(error)
        if standalone_mode:
            sys.exit(ended if isinstance(ended, int) else 0)
        return ended

    def invoke(self, ctx: Any) -> Any:
        """Run what was parsed. Who reads and has seen enough (`headrace events -f | head`) ends it, and that is no failure."""
        try:
            ended = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return ended


class Defaulting(TyperGroup):
    """A group that is a command as well: what begins with no command's name goes to the command called `default`."""

    default: str
    bare: bool = False  # whether no argument at all goes there too

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command's name before what names none."""
        first = args[0] if args else None
        if (first is None and self.bare) or (
            first is not None and first not in self.commands and first not in ctx.help_option_names
        ):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def say(error: Exception) -> int:
    """Tell an error; the exit code."""
    text, code = _told(error)
    if text:  # a group that was called alone has shown its help
        errors.print(Text(f"headrace: {text}", style="red"))
    return code


def _told(error: Exception) -> tuple[str, int]:
    text, code = str(error), EXIT_AWAY
    match error:
        case CommandError():
            code = error.code
        case StackError() | KeyUnreadableError():
            pass
        case TyperException():
            text, code = _usage(error), EXIT_USAGE
        case httpx.TransportError():
            text = f"{error or type(error).__name__}: {_NEXT_STEP}"
        case KafkaError():
            text = f"Kafka does not answer ({_first_line(error)}): {_NEXT_STEP}"
        case psycopg.OperationalError():
            text = f"PostgreSQL does not answer ({_first_line(error)}): {_NEXT_STEP}"
        case psycopg.Error():
            text, code = f"PostgreSQL refuses it: {_first_line(error)}", EXIT_FAILED
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            text, code = f"{error.strerror or error}{where}", EXIT_FAILED
        case _:
            text = f"a fault of its own, {type(error).__name__}: {error}; HEADRACE_TRACEBACK=1 shows where"
            code = EXIT_FAILED
    return text, code


def _usage(error: TyperException) -> str:
    """What was wrong with the arguments, and where the right ones are told."""
    format_message = getattr(error, "format_message", lambda: str(error))
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "headrace"
    message = " ".join(str(format_message()).split()).rstrip(".")
    return message and f"{message}: see `{command} --help`"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def out() -> Console:
    """Where tables go; made anew, so that it is the stdout of this moment."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _UNSEEN_WIDTH)


def tell(line: str, style: str = "") -> None:
    """A line for a person; nothing in it is markup."""
    out().print(Text(line, style=style))


def hint(line: str) -> None:
    """A remark beside the output, on stderr."""
    errors.print(Text(line, style="dim"))


def show_json(value: Any) -> None:
    """One line of JSON."""
    print(json.dumps(value, default=str), flush=True)


def show(
    items: Any, rows: Sequence[Sequence[Any]], columns: Sequence[str], *, as_json: bool, none: str = "none yet"
) -> None:
    """A list: as JSON, or as a table.

    Args:
        items: what JSON holds.
        rows: cells for a person, a Text where it has a style.
        columns: their titles.
        as_json: for a script.
        none: said instead of an empty table.
    """
    if as_json:
        show_json(items)
        return
    if not rows:
        hint(none)
        return
    table = Table(*columns, header_style="bold", border_style="dim")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    out().print(table)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one pair a line; what is None is left out."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value is not None:
            table.add_row(Text(name, style="dim"), value if isinstance(value, Text) else Text(_cell(value)))
    out().print(table)


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else f"{value:.4g}" if isinstance(value, float) else str(value)


def when(ms: int | None) -> str:
    """A time, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if ms else "-"


_STYLES: Final = {
    "DEPLOYED": "bold green", "VALIDATED": "green", "SUCCEEDED": "green", "active": "green", "ready": "green", "met": "green",
    "REJECTED": "red", "FAILED": "red", "stopped": "red", "RUNNING": "cyan", "STARTING": "cyan", "RETRYING": "yellow",
    "paused": "yellow", "running": "yellow", "open": "yellow", "DEPRECATED": "dim", "DELETED": "dim", "STOPPED": "dim",
}  # fmt: skip


def state(word: str) -> Text:
    """A stage or status in its colour."""
    return Text(word, style=_STYLES.get(word, ""))


def moment(text: str | None, option: str, now: datetime | None = None) -> int | None:
    """A time that a person gave, in ms: `15m` ago, ISO 8601 (UTC unless told), or ms since the epoch.

    Raises:
        WrongUsageError: it is none of them.
    """
    if text is None:
        return None
    if ago := re.fullmatch(r"(\d+)([smhd])", text):
        at = (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _AGES[ago[2]])
    elif re.fullmatch(r"\d{10,}", text):
        return int(text)
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise WrongUsageError(f"{option} {text}: want 15m (ago), 2026-01-31T08:00 or ms since the epoch") from None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)
