"""A stream worker: what the `__main__` of a service calls."""

import asyncio
import gc
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import asyncpg
import faust
from aiokafka.errors import KafkaError

from headrace_core.runtime.checkpoint_store import CheckpointStore
from headrace_core.runtime.dead_letters import DeadLetterWriter
from headrace_core.runtime.faust_driver import EXIT_FENCED, HeadraceApp, build_app
from headrace_core.runtime.job import Job
from headrace_core.runtime.kafka_clients import idempotent_producer
from headrace_core.runtime.kafka_identity import read_identity
from headrace_core.runtime.newest import newest_published
from headrace_core.runtime.publisher import Publisher
from headrace_core.runtime.runner import JobRunner
from headrace_core.settings import (
    DefinitionsSettings,
    KafkaSettings,
    PostgresSettings,
    StreamSettings,
    TelemetrySettings,
)
from headrace_core.telemetry import configure_logging, serve_metrics

log = logging.getLogger(__name__)


class WorkerSettings(KafkaSettings, PostgresSettings, TelemetrySettings, DefinitionsSettings, StreamSettings):
    """Kafka, PostgreSQL, telemetry, definitions and stream settings: what every stream worker needs."""


def make_runner(service: str, job: Job, settings: WorkerSettings) -> JobRunner:
    """A runner with its stores, nothing connected yet."""
    owner = f"{service}-{settings.replica}:{socket.gethostname()[:20]}:{os.getpid()}:{job.name}"[:63]
    store = CheckpointStore(settings.postgres.get_secret_value(), job, owner)
    publisher = newest = None
    if job.outbox is not None:
        publisher = Publisher(job.outbox.topic, lambda: idempotent_producer(settings), store.unpublished)
        newest = partial(newest_published, settings, job.outbox.topic)
    dead_letters = DeadLetterWriter(service, lambda: idempotent_producer(settings))
    return JobRunner(
        service, job, store=store, dead_letters=dead_letters, publisher=publisher, settings=settings, newest=newest
    )


def calm_garbage_collector() -> None:
    """Look for cycles rarely: state and rows of a checkpoint have none, and going over them cost a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _ending_after(awaited: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def end() -> None:
        await awaited()
        signal.raise_signal(signal.SIGTERM)

    return end


def run_worker(
    service: str,
    settings: WorkerSettings,
    jobs: Sequence[Job],
    companions: Sequence[Callable[[], Awaitable[None]]] = (),
    until: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Work until SIGTERM; a dependency that is away at the start ends the process with exit code 3.

    Companions run beside the jobs, each for ever. `until` returns when the process is to end as by SIGTERM, and be started anew.

    The process exits with code 3 also when it was fenced or a checkpoint kept failing: it is meant to be started again
    and goes on from the last checkpoint.
    """
    configure_logging(settings)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    runners = [make_runner(service, job, settings) for job in jobs]
    topics = {topic for job in jobs for topic in job.inputs}
    app: HeadraceApp | None = None

    def waiting_for() -> str | None:
        assigned = app.assigned() if app is not None else set()
        if not assigned:
            return "assignment of partitions"
        wanted = {(tp.topic, tp.partition) for tp in assigned}
        claimed = {(topic, n) for r in runners for topic in r.job.inputs for n in r.partitions}
        return None if claimed >= {w for w in wanted if w[0] in topics} else "claim of partitions"

    serve_metrics(settings, waiting_for)
    try:
        loop.run_until_complete(read_identity(settings, sorted(topics)))  # tells early and clearly what is missing
        for runner in runners:
            loop.run_until_complete(runner.open())
    except (OSError, KafkaError, asyncpg.PostgresError) as error:
        log.critical("a dependency is away: %s", error)
        raise SystemExit(EXIT_FENCED) from error
    calm_garbage_collector()
    # Faust wants a data folder, though it keeps nothing in it without tables.
    app = build_app(service, runners, settings, datadir=str(Path(tempfile.gettempdir()) / "headrace-faust"))
    for companion in companions:
        app.task(companion)
    if until is not None:
        app.task(_ending_after(until))
    worker = faust.Worker(app, loop=loop, loglevel=settings.log_level, override_logging=False, quiet=True)
    worker.execute_from_commandline()
