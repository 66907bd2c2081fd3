"""Commands of the embedded stack itself: up, down, status, logs, address, sql."""

import json
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from headrace_stack import look
from headrace_stack.commands import reach
from headrace_stack.commands.terminal import (
    EXIT_AWAY,
    AwayError,
    CommandError,
    Json,
    WrongUsageError,
    errors,
    show,
    show_json,
    state,
)
from headrace_stack.layout import Layout
from headrace_stack.services import PROFILES, SERVICES
from headrace_stack.stack import Stack


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, logs, address, sql):
        app.command()(command)


def parse_workers(values: list[str]) -> dict[str, int]:
    """`sample-joiner=2` as {"sample-joiner": 2}."""
    workers = {}
    for value in values:
        service, _, count = value.partition("=")
        if service not in SERVICES or not count.isdigit() or not int(count):
            raise WrongUsageError(f"--workers {value}: want SERVICE=COUNT with SERVICE one of {', '.join(SERVICES)}")
        workers[service] = int(count)
    return workers


def chosen_services(only: list[str], *, stores: bool) -> tuple[str, ...] | None:
    """The services to start; None for all."""
    for service in only:
        if service not in SERVICES:
            raise WrongUsageError(f"--only {service}: want one of {', '.join(SERVICES)}")
    if stores:
        return ()
    return tuple(service for service in SERVICES if service in only) if only else None


def _interrupted(number: int, _: FrameType | None) -> NoReturn:
    """End by the first signal, with what was started cleaned up; a second one does not disturb that."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    os.write(2, b"interrupted: ending what was started\n")  # not by print: the signal may have come amid one
    raise SystemExit(128 + number)


def _services(incomplete: str) -> list[str]:
    return [name for name in SERVICES if name.startswith(incomplete)]


def _profiles(incomplete: str) -> list[str]:
    return [name for name in PROFILES if name.startswith(incomplete)]


def _parts(incomplete: str) -> list[str]:
    return [name for name in ("gateway", "control", "model_server", "kafka", "postgres", "redis", "lake", "models", "definitions")
            if name.startswith(incomplete)]  # fmt: skip


def up(
    profile: Annotated[
        str | None, typer.Option(help="default or demo (short windows)", autocompletion=_profiles)
    ] = None,
    workers: Annotated[list[str] | None, typer.Option(help="replicas, e.g. sample-joiner=2")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="start this service and no other; may be repeated", autocompletion=_services),
    ] = None,
    only_stores: Annotated[bool, typer.Option("--only-stores", help="start no service")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Start the embedded stack and return when it is ready; prints stack.json."""
    if profile not in {None, *PROFILES}:
        raise WrongUsageError(f"--profile {profile}: want one of {', '.join(PROFILES)}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    stack = Stack(
        Layout.from_environment(), profile, parse_workers(workers or []), chosen_services(only or [], stores=only_stores),
        progress=lambda text: errors.print(Text(text, style="dim")),
    )  # fmt: skip
    try:
        described = stack.up()
    except OSError as error:
        raise AwayError(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}") from error
    print(json.dumps(described, indent=2))


def down() -> None:
    """Stop the embedded stack; returns when every process is gone."""
    Stack(Layout.from_environment()).down()


def status(as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Show the parts of the stack; exit code 0 when all are ready, 3 when not."""
    stack = Stack(Layout.from_environment())
    if not stack.is_up():
        raise AwayError(f"no stack runs in {stack.layout.home}: start one with `headrace up`")
    rows = list(stack.statuses())
    cells = [(r["service"], r["replica"], r["pid"], state(r["state"]), r["metrics"]) for r in rows]
    show(rows, cells, ("service", "replica", "pid", "state", "metrics"), as_json=as_json)
    if any(row["state"] != "ready" for row in rows):
        raise typer.Exit(EXIT_AWAY)


def logs(
    service: Annotated[str | None, typer.Argument(help="all if not told", autocompletion=_services)] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on as they are written")] = False,  # noqa: FBT002  # a flag
    lines: Annotated[int, typer.Option("-n", min=0, help="how many lines of each")] = 50,
) -> None:
    """Show the logs of the stack's processes."""
    folder = Layout.from_environment().logs
    files = sorted(p for p in folder.glob("*.log") if service is None or p.stem.startswith(service))
    if not files:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.log"))) or "none"
        raise CommandError(f"no log of {service or 'anything'} in {folder}; there are: {known}")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    sys.exit(subprocess.run(command, check=False).returncode)


def address(
    part: Annotated[str, typer.Argument(help="gateway, control, kafka, postgres, redis, …", autocompletion=_parts)],
) -> None:
    """Print an address of the stack, e.g. for curl or psql."""
    told = reach.described()
    if not isinstance(told.get(part), str):
        known = ", ".join(name for name, value in told.items() if isinstance(value, str) and name != "profile")
        raise WrongUsageError(f"the stack has no address of {part}: {known}")
    print(told[part])


def sql(
    question: Annotated[str, typer.Argument(help="e.g. SELECT count(*) FROM samples.current")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Ask the stack's PostgreSQL; nothing can be changed by it."""
    columns, rows = look.query(reach.address("postgres"), question)
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    if not columns:
        return
    cells = [columns, *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:  # without a frame: `grep` and `awk` read it
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
