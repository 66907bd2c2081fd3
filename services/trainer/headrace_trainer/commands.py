"""`headrace-train`: batch work of the trainer."""

import asyncio
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import asyncpg
import typer
from headrace_core.control.client import ControlClient, ControlError
from headrace_core.definitions.models import Model, ModelError, load_models
from headrace_core.telemetry import configure_logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace_trainer.base import NoSamplesError, train_base
from headrace_trainer.export import Exporter, prepare
from headrace_trainer.network.learner import pin_threads
from headrace_trainer.settings import TrainerSettings
from headrace_trainer.store.artifacts import Artifacts, Graphs
from headrace_trainer.store.scan import open_scan

_FAILED: Final = 1
_USAGE: Final = 2
_AWAY: Final = 3

app = typer.Typer(add_completion=False, help="Batch work of the trainer.")


@app.callback()
def _commands() -> None:
    """Keeps `base` a command of its own."""


@app.command()
def base(
    model: Annotated[str, typer.Option(help="Name of the model; its base is <model>_base.")] = "ctr",
    since: Annotated[int | None, typer.Option("--from", help="Only requests from here, ms since the epoch.")] = None,
    until: Annotated[int | None, typer.Option(help="Only requests before, ms since the epoch.")] = None,
) -> None:
    """Train a base model from the sample store and register it; prints its version and metrics as JSON."""
    settings = TrainerSettings()
    configure_logging(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every call
    try:
        models = load_models(settings.definitions / "models")
    except (ModelError, OSError) as error:
        raise _end(str(error), _USAGE) from error
    if model not in models:
        raise _end(f"no model {model} is defined in {settings.definitions / 'models'}", _USAGE)
    pin_threads(settings.train_threads)
    try:
        made = asyncio.run(_base(settings, models[model], since, until))
    except NoSamplesError as error:
        raise _end(str(error), _FAILED) from error
    except (OSError, asyncpg.PostgresError, ControlError) as error:
        raise _end(f"a dependency is away or refused: {error}", _AWAY) from error
    typer.echo(json.dumps(made))


async def _base(settings: TrainerSettings, model: Model, since: int | None, until: int | None) -> dict[str, Any]:
    async with open_scan(settings.postgres.get_secret_value(), since, until) as scan:
        with _progress() as progress:
            task = progress.add_task("requests", total=scan.requests * model.training.epochs)
            result = await train_base(model, scan, lambda n: progress.advance(task, n))
    learned = result.learned
    artifacts = Artifacts(settings.models)
    with tempfile.TemporaryDirectory(prefix="headrace-graph-") as folder:
        async with ControlClient(settings.control, "trainer") as control:
            exporter = Exporter(artifacts, Graphs(Path(folder)), control)
            metrics = result.quality.as_metrics()
            prepared = prepare(result.learner, learned, metrics, result.golden, result.state())
            version = await exporter.publish(model.base_name, prepared, None, os.environ.get("HEADRACE_RUN_TOKEN"))
    return {
        "model": model.base_name, "version": version.version, "artifact": version.artifact, "metrics": dict(metrics),
        "samples": learned.as_json(),
    }  # fmt: skip


def _progress() -> Progress:
    """On a terminal; elsewhere nothing is drawn."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal,
    )  # fmt: skip


def _end(message: str, code: int) -> typer.Exit:
    print(f"headrace-train: {message}", file=sys.stderr)  # noqa: T201  # a command line tells what is wrong
    return typer.Exit(code)


def main() -> None:
    """Entry point."""
    app()
