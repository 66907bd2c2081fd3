"""`headrace simulate`."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from headrace_client import HeadraceError
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from headrace_stack.commands.reach import address
from headrace_stack.commands.terminal import AwayError, WrongUsageError, errors, hint, show_json, tell
from headrace_stack.simulate.story import StoryWorld
from headrace_stack.simulate.visitors import Habits, Tally, Visitors
from headrace_stack.simulate.world import LatentWorld, World
from headrace_stack.simulate.written import write_log

_SHOW_EVERY_S = 0.5
#: 2026-01-01: a log of the same seed is the same on every day.
_LOG_BEGINS_MS = 1_767_225_600_000


def simulate(  # noqa: PLR0913, PLR0917  # the options of one command
    rate: Annotated[float, typer.Option(help="visits a second", min=0.1)] = 20.0,
    seconds: Annotated[float, typer.Option(help="how long", min=1.0)] = 60.0,
    world: Annotated[str, typer.Option(help="latent (many users and items, drift) or story (the demo's)")] = "latent",
    users: Annotated[int, typer.Option(min=1)] = 1_000,
    items: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(help="the same seed is the same world")] = 1,
    late: Annotated[float, typer.Option(help="share of clicks that come after the window", min=0, max=1)] = 0.02,
    count: Annotated[int, typer.Option(help="items that a visit asks for", min=1, max=100)] = 3,
    to: Annotated[
        Path | None, typer.Option(help="write a log (.parquet or .csv) for `headrace replay`, send nothing")
    ] = None,
    rows: Annotated[int, typer.Option(help="with --to: impressions", min=1)] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures for scripts")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Let a seeded crowd visit the running stack; tells how far the answers are from an oracle's."""
    habits = Habits(count=count, late=late)
    if world not in {"latent", "story"}:
        raise WrongUsageError(f"--world {world}: want latent or story")
    if to is not None:
        if world != "latent":
            raise WrongUsageError(f"--to writes a log of the latent world, not of {world}")
        _write(to, LatentWorld(users, items, seed), habits, rows, rate, seed, as_json=as_json)
        return
    gateway = address("gateway")
    played: World = StoryWorld(users) if world == "story" else LatentWorld(users, items, seed)
    try:
        tally = asyncio.run(_play(gateway, played, habits, rate, seconds, seed, errors))
    except HeadraceError as error:
        raise AwayError(f"{gateway} does not take the catalog: {error}") from error
    if as_json:
        print(json.dumps(tally.to_json()))
    else:
        Console().print(_table(tally))


def _write(to: Path, world: LatentWorld, habits: Habits, rows: int, rate: float, seed: int, *, as_json: bool) -> None:  # noqa: PLR0913, PLR0917  # the options of one command
    if to.suffix not in {".parquet", ".csv"}:
        raise WrongUsageError(f"--to {to}: want a name that ends in .parquet or .csv")
    if not to.parent.is_dir():
        raise WrongUsageError(f"--to {to}: there is no folder {to.parent}")
    if habits.count > len(world.things):
        raise WrongUsageError(f"--count {habits.count}: there are {len(world.things)} items")
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("writing", total=rows)
        written = write_log(
            to,
            world,
            habits,
            rows=rows,
            rate=rate,
            seed=seed,
            start_ms=_LOG_BEGINS_MS,
            progressed=lambda n: bar.advance(task, n),
        )
    if as_json:
        show_json({"file": str(to), **asdict(written)})
    else:
        tell(f"{written.rows:,} impressions of {written.requests:,} requests and {written.clicks:,} clicks in {to}")
        hint(f"`headrace replay {to}` sends it")


async def _play(  # noqa: PLR0913, PLR0917  # the options of one command
    gateway: str, world: World, habits: Habits, rate: float, seconds: float, seed: int, console: Console
) -> Tally:
    visitors = Visitors(gateway, world, habits, seed)
    over = asyncio.Event()
    try:
        await visitors.introduce()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, over.set)
        visiting = asyncio.create_task(visitors.come(lambda: rate, over))
        with Live(_table(visitors.tally), console=console, transient=True) as live:
            while not visiting.done():
                await asyncio.wait([visiting], timeout=_SHOW_EVERY_S)
                live.update(_table(visitors.tally))
        await visiting
    finally:
        await visitors.aclose()
    return visitors.tally


def _table(tally: Tally) -> Table:
    table = Table(show_header=False)
    for name in ("visits", "impressions", "clicks", "late_clicks", "cancelled", "duplicates"):
        table.add_row(name.replace("_", " "), str(getattr(tally, name)))
    table.add_row("clicks of an oracle's lists that were missed", f"{tally.regret:.1%}")
    table.add_row("answers by model version", ", ".join(f"{v}: {n}" for v, n in sorted(tally.versions.items())))
    table.add_row("degraded", ", ".join(f"{k}: {n}" for k, n in tally.degraded.items()) or "-")
    table.add_row("failed", ", ".join(f"{k}: {n}" for k, n in tally.failed.items()) or "-")
    return table
