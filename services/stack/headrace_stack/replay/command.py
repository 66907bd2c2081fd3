"""`headrace replay`."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from headrace_client import AsyncClient, HeadraceError, Retries
from headrace_core.control.bearer import BearerAuth
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace_stack import look
from headrace_stack.commands.reach import address, described
from headrace_stack.commands.terminal import (
    AwayError,
    CommandError,
    Json,
    WrongUsageError,
    errors,
    hint,
    show_facts,
    show_json,
)
from headrace_stack.layout import Layout, StackError
from headrace_stack.replay import freshness, open_bandit, report
from headrace_stack.replay.delay import MEAN_S, drawn_delay
from headrace_stack.replay.journal import Journal
from headrace_stack.replay.logged import FiguresWatch, HoldWatch
from headrace_stack.replay.mapping import Mapping
from headrace_stack.replay.own_log import OwnLog
from headrace_stack.replay.pace import Pace
from headrace_stack.replay.player import Player
from headrace_stack.replay.slate import Log
from headrace_stack.replay.table import columns_of

OPEN_BANDIT: Final = "open-bandit"
#: A replay waits out an outage of the gateway for so long.
_PATIENCE_S: Final = 300.0
_TIMEOUT_S: Final = 30.0
_SHOW_EVERY_S: Final = 0.25
_INTERRUPTED: Final = 130


def replay(  # noqa: PLR0913, PLR0917  # the options of one command
    source: Annotated[
        str, typer.Argument(metavar="open-bandit|FILE", help="the Open Bandit logs, or your own .csv or .parquet")
    ],
    columns: Annotated[
        str, typer.Option("--map", help="own logs: user_id=COLUMN,item_id=…,click=…,time=…; docs/replay.md")
    ] = "",
    speed: Annotated[str, typer.Option(help="real, max, or how many times faster than it was")] = "max",
    folder: Annotated[
        Path | None, typer.Option("--from", help="the Open Bandit logs on this machine instead of a download")
    ] = None,
    page: Annotated[str, typer.Option(help="own logs: page_id where no column tells it")] = "replay",
    first_position: Annotated[int, typer.Option(min=0, max=1, help="own logs: number of the first position")] = 0,
    click_delay: Annotated[
        float, typer.Option(min=0.001, help="mean seconds to a click whose time is not told")
    ] = MEAN_S,
    limit: Annotated[int | None, typer.Option(min=1, help="open-bandit: only so many rows of each file")] = None,
    seed: Annotated[int, typer.Option(help="of what the log does not tell")] = 1,
    state: Annotated[
        Path | None, typer.Option(help="file that tells what was sent; in the stack's data unless told")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget an unfinished replay and begin anew")] = False,  # noqa: FBT002  # a flag
    settle: Annotated[
        float, typer.Option(min=0, help="seconds to wait at the end until no impression is pending")
    ] = 30.0,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Send a log of impressions and clicks through the HTTP API as if it happened now.

    Ctrl-C interrupts it; the same command goes on where it was, and nothing is sent twice or left out.
    """
    pace = Pace.of(speed)
    delay = drawn_delay(seed, click_delay)
    salt = f"{seed}:{click_delay}"
    log: Log
    if source == OPEN_BANDIT:
        if columns:
            raise WrongUsageError("--map is for logs of your own; the columns of open-bandit are known")
        log = open_bandit.OpenBandit(open_bandit.obtain(folder, hint), delay, limit, salt)
    else:
        file = Path(source)
        log = OwnLog(file, Mapping.of(columns, columns_of(file)), delay, page, first_position, salt)
    gateway = address("gateway")
    dsn, processes = _looking()
    now_ms = time.time_ns() // 1_000_000
    journal = Journal.open(
        state or Layout.from_environment().data / "replay" / f"{log.fingerprint}.jsonl", log.fingerprint,
        now_ms=now_ms, before=look.accounting(dsn) if dsn else None, fresh=fresh,
    )  # fmt: skip
    before = freshness.scrape(processes())
    if journal.answers:
        hint(f"going on with {journal.path}")
    try:
        player = _play(gateway, _gateways(processes()), log, journal, pace)
    finally:
        journal.close()
    if player is None or player.stopped:
        hint("interrupted: the same command goes on where it was")
        raise typer.Exit(_INTERRUPTED)
    told = _report(log, player, journal, dsn, settle, before, processes())
    if as_json:
        show_json(told.to_json())
    else:
        show_facts(told.facts())
    if told.faults:
        raise CommandError("; ".join(told.faults))


def _looking() -> tuple[str | None, Callable[[], list[dict[str, Any]]]]:
    """Address of the database, and how to list the processes; none of either where only a gateway is known."""

    def processes() -> list[dict[str, Any]]:
        try:
            return list(described().get("processes", []))
        except (StackError, CommandError):
            return []

    return _optional("postgres"), processes


def _optional(part: str) -> str | None:
    try:
        return address(part)
    except (StackError, CommandError):
        return None


def _play(gateway: str, gateways: list[str], log: Log, journal: Journal, pace: Pace) -> Player | None:
    """Send what is left; the player, None when it was ended at once.

    Raises:
        AwayError: the gateway was away for too long, or is none.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_played(gateway, gateways, log, journal, pace))
    except asyncio.CancelledError:
        return None
    except HeadraceError as error:
        raise _away(error) from error
    except ExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise (_away(first) if isinstance(first, HeadraceError) else first) from group


def _away(error: HeadraceError) -> AwayError:
    return AwayError(f"{error}: when the gateway is there again, the same command goes on where it was")


def _finish_on_signals(player: Player) -> None:
    """Let the first Ctrl-C, or SIGTERM, finish what is on the way; the second one ends it at once."""
    loop, playing = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        if player.stopped and playing is not None:
            playing.cancel()
        else:
            hint("finishing what is on the way; once more ends it at once")
            player.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def _gateways(processes: list[dict[str, Any]]) -> list[str]:
    """Where each gateway shows its figures; none where they are not known one by one."""
    if os.environ.get("HEADRACE_GATEWAY"):
        return []
    return [process["metrics"] for process in processes if process["service"] == "gateway" and process.get("metrics")]


async def _played(gateway: str, gateways: list[str], log: Log, journal: Journal, pace: Pace) -> Player:
    retries = Retries(_PATIENCE_S, longest_pause_s=2.0)
    bar = Progress(
        TextColumn("replaying {task.fields[log]}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn(),
        console=errors, transient=True, disable=not errors.is_terminal, refresh_per_second=1 / _SHOW_EVERY_S,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=log.rows, log=log.name)
        async with (
            AsyncClient(
                gateway, api_key=BearerAuth.from_environment().key, timeout_s=_TIMEOUT_S, retries=retries
            ) as client,
            AsyncExitStack() as watching,
        ):
            figures = FiguresWatch(gateways, _PATIENCE_S) if gateways else None
            watch = await watching.enter_async_context(figures) if figures else HoldWatch(client)
            player = Player(client, watch, journal, pace, progressed=lambda rows: bar.advance(task, rows))
            _finish_on_signals(player)
            await player.play(log.slates())
    return player


def _report(  # noqa: PLR0913, PLR0917  # what it is made of
    log: Log, player: Player, journal: Journal, dsn: str | None, settle_s: float, before: freshness.Counts,
    processes: list[dict[str, Any]],
) -> report.Report:  # fmt: skip
    accounting = None
    if dsn is not None and journal.head.before is not None:
        hint(f"waiting up to {settle_s:g} s for the samples")
        accounting = report.settled(dsn, journal.head.before, player.tally, settle_s)
    control = _optional("control")
    return report.Report(
        log=log.name,
        seconds=player.seconds,
        sent_now=player.sent_now,
        tally=player.tally,
        bad_rows=(log.faults.count, log.faults.first),
        accounting=accounting,
        freshness=freshness.quantiles(before, freshness.scrape(processes)),
        versions=report.versions_since(control, journal.head.began_ms) if control else {},
        judged=report.judgements(player.tally),
    )
