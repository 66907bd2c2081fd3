"""`headrace demo`."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from headrace_stack.demo.home import PROFILE, start_from_nothing
from headrace_stack.demo.scene import Scene
from headrace_stack.demo.show import picture, write_svg
from headrace_stack.demo.story import Figures, StepFailedError, Telling
from headrace_stack.layout import Layout, StackError
from headrace_stack.stack import Stack

_SHOW_EVERY_S = 0.5


def demo(
    ci: Annotated[bool, typer.Option("--ci", help="tell the story once, check it, print the figures, stop")] = False,  # noqa: FBT002  # a flag
    keep: Annotated[bool, typer.Option(help="with --ci: leave the stack running")] = False,  # noqa: FBT002  # a flag
    record: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="a picture of the table at the end")] = None,
) -> None:
    """Start everything from nothing, tell the demo's story live, and leave it running until Ctrl-C."""
    console = Console(stderr=True)
    unattended = ci or not sys.stdout.isatty()
    began = time.monotonic()
    stack = Stack(Layout.from_environment(), PROFILE, progress=lambda text: console.print(text, style="dim"))
    try:
        start_from_nothing(stack)
        described = stack.up()
    except StackError as error:
        console.print(f"headrace: {error}", style="red", markup=False)
        raise typer.Exit(3) from None
    ready = time.monotonic() - began
    try:
        telling = asyncio.run(_tell(described, console))
        _print_figures(telling.figures, ready, time.monotonic() - began, console)
        if record is not None:
            write_svg(picture(telling, described["control"]), record)
        if not unattended:
            console.print(
                f"\nIt stays up: console at {described['control']}/, gateway at {described['gateway']}/docs. Ctrl-C ends it."
            )
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    except KeyboardInterrupt:
        raise typer.Exit(1) from None
    finally:
        if not (unattended and keep):
            stack.down()
    if not telling.figures.ok:
        raise typer.Exit(1)


async def _tell(described: dict[str, Any], console: Console) -> Telling:
    scene = Scene(described)

    async def compare(since_ms: int, version: int) -> dict[str, Any]:
        return await _compare(described, since_ms, version)

    patience = float(os.environ.get("HEADRACE_DEMO_PATIENCE", "1"))
    telling = Telling(scene, described["gateway"], compare, patience)
    work = asyncio.create_task(telling.tell())
    try:
        with Live(picture(telling, described["control"]), console=console, transient=False) as live:
            while not work.done():
                await asyncio.wait([work], timeout=_SHOW_EVERY_S)
                live.update(picture(telling, described["control"]))
        with contextlib.suppress(StepFailedError):  # the figures tell
            await work
    finally:
        work.cancel()
        await scene.aclose()
    return telling


async def _compare(described: dict[str, Any], since_ms: int, version: int) -> dict[str, Any]:
    """What `headrace-compare` of the model validator says; nothing while there are too few samples."""
    command = [
        str(Path(sys.executable).parent / "headrace-compare"), "--model", "ctr", "--version", str(version),
        "--since", str(since_ms),
    ]  # fmt: skip
    environment = os.environ | {
        "HEADRACE_POSTGRES": described["postgres"],
        "HEADRACE_MODELS": described["models"],
        "HEADRACE_CONTROL": described["control"],
        "HEADRACE_MODEL_SERVER": described["model_server"],
        "HEADRACE_DEFINITIONS": str(Layout.from_environment().definitions),
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    if process.returncode:
        return {}
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def _print_figures(figures: Figures, ready: float, whole: float, console: Console) -> None:
    print(
        json.dumps(
            {"ok": figures.ok, "ready_s": round(ready, 1), "whole_s": round(whole, 1), **asdict(figures)}, indent=2
        )
    )
    for step in figures.steps:
        console.print(f"{'✔' if step.seconds is not None else '✘'} {step.name} {step.failed or ''}", markup=False)
