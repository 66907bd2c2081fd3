"""The parts of the control plane, put together; started and stopped in the order they need one another."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace_core.runtime.kafka_clients import idempotent_producer

from headrace_control_plane.essential import essential
from headrace_control_plane.executors.executor import Executor
from headrace_control_plane.executors.kubernetes import JobExecutor
from headrace_control_plane.executors.kubernetes_api import KubernetesApi, nearest
from headrace_control_plane.executors.kubernetes_streams import DeploymentExecutor
from headrace_control_plane.executors.kubernetes_template import JobTemplate
from headrace_control_plane.executors.process import ProcessExecutor
from headrace_control_plane.executors.streams import StreamExecutor
from headrace_control_plane.notification.appender import Appender
from headrace_control_plane.notification.bell import Bell
from headrace_control_plane.notification.relay import Relay
from headrace_control_plane.scheduler.house import Bounds
from headrace_control_plane.scheduler.leader import Leader
from headrace_control_plane.settings import ControlPlaneSettings
from headrace_control_plane.shipped import documents_in, upload
from headrace_control_plane.store.database import Pool, open_pool
from headrace_control_plane.store.workflows import Document

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """Everything the routes use. Nothing is connected until `running`.

    Attributes:
        closing: closes what executors have open.
        shipped: workflows that are active from the start.
        stopping: the process was told to end; whoever waits is answered.
    """

    settings: ControlPlaneSettings
    pool: Pool
    bell: Bell
    appender: Appender
    leader: Leader
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    shipped: Sequence[Document] = ()
    stopping: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, and at the end stop."""
        await self.pool
        self.bell.start()
        self.appender.start()
        self.leader.start()
        uploading = essential(upload(self.pool, self.shipped), "the upload of shipped workflows")
        try:
            yield
        finally:
            self.stopping = True
            uploading.cancel()
            await self.leader.stop()
            for close in self.closing:
                await close()
            await self.appender.stop()
            await self.bell.stop()
            self.pool.terminate()
            log.info("stopped")


def assemble(settings: ControlPlaneSettings, url: str) -> Parts:
    """Put the parts together; needs a running event loop.

    Args:
        settings: of the control plane.
        url: where it listens.

    Raises:
        ExecutorError: runs can't be carried out by these settings.
        WorkflowError: a shipped workflow is wrong.
    """
    shipped = [] if settings.workflows is None else documents_in(settings.workflows)
    dsn = settings.postgres.get_secret_value()
    pool = open_pool(dsn, settings.control_connections)
    bell = Bell(dsn)
    relay = Relay(pool, bell, lambda: idempotent_producer(settings), settings.control_poll_ms / 1000)
    chosen = _kubernetes(settings, pool) if settings.executor == "kubernetes" else _here(settings, pool, url)
    leader = Leader(
        dsn,
        pool,
        bell,
        executors=chosen.executors,
        beside=(relay.run, *chosen.beside),
        bounds=Bounds(lost_ms=settings.run_lost_ms, stop_ms=settings.run_stop_ms),
    )
    return Parts(settings, pool, bell, Appender(pool), leader, chosen.closing, shipped)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Executors, what runs beside them, and what closes them."""

    executors: Sequence[Executor]
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    closing: Sequence[Callable[[], Awaitable[None]]] = ()


def _here(settings: ControlPlaneSettings, pool: Pool, url: str) -> _Chosen:
    processes = ProcessExecutor(pool, settings.hostname, url, settings.runs_folder, settings.run_stop_ms)
    return _Chosen((processes, StreamExecutor(pool, settings.process_manager)))


def _kubernetes(settings: ControlPlaneSettings, pool: Pool) -> _Chosen:
    template = JobTemplate.read(settings.job_template)
    api = KubernetesApi(nearest(settings.kubernetes_api, os.environ), settings.kubernetes_account)
    jobs = JobExecutor(pool, api, template)
    deployments = DeploymentExecutor(pool, api, template.namespace, template.instance)
    return _Chosen((jobs, deployments), (jobs.watch, deployments.watch), (api.close,))
