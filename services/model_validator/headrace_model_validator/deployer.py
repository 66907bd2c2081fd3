"""Deploys a validated version.

It is loaded beside the one that serves, on every model server; has answered on each before it is DEPLOYED; and what served before
goes after a grace. Until the control plane says DEPLOYED nobody is told of it, so whatever fails changes nothing for a request.
"""

import asyncio
import logging
from typing import Any, Final

from headrace_core.control.client import ControlClient
from headrace_core.serving.client import ModelServerClient
from headrace_core.telemetry import STAGE_SECONDS

from headrace_model_validator.artifact import ArtifactError, read_manifest
from headrace_model_validator.fleet import Fleet, added, replaced
from headrace_model_validator.job import Job
from headrace_model_validator.serving_check import golden_columns, repeated
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.validator import supersede

log = logging.getLogger(__name__)

_DEPLOY: Final = STAGE_SECONDS.labels("deploy")
_WARM_UP_S: Final = 10.0
_WARM_UP_ROWS: Final = (1, 20, 200)


class DeployError(Exception):
    """The version can't be deployed. The message tells why."""


class Deployer:
    """Puts versions in place.

    Args:
        control: the control plane.
        fleet: the model servers.
        settings: bounds and addresses.
    """

    def __init__(self, control: ControlClient, fleet: Fleet, settings: ModelValidatorSettings) -> None:
        self._control, self._fleet, self._settings = control, fleet, settings

    async def deploy(self, job: Job) -> dict[str, Any]:
        """Deploy a version, unless a later one waits or serves; what came of it.

        Raises:
            DeployError: it is not validated.
            LoadError: a server can't load it.
            NotInTimeError: a server takes too long to load it.
            ControlError, ServingError, OSError, asyncpg.PostgresError: a dependency refused or is away.
        """
        found = await self._control.version(job.model, job.version)
        deployed = await self._control.deployed(job.model)
        if found.stage == "DEPLOYED":
            await self.ensure(job.model)
            return {"stage": "DEPLOYED", "why": "it was deployed before"}
        if found.stage != "VALIDATED":
            raise DeployError(f"{job.model} {job.version} is {found.stage}, only what is VALIDATED is deployed")
        waiting = await self._control.versions(job.model, stage="VALIDATED")
        later = [v.version for v in [*waiting, *([deployed] if deployed else [])] if v.version > job.version]
        if later:
            why = f"superseded by {max(later)}"
            await self._control.move(job.model, job.version, "DEPRECATED", why, run=job.token)
            return {"stage": "DEPRECATED", "why": why}
        with _DEPLOY.time():
            beside = {deployed.version} if deployed else set()
            await self._fleet.change(replaced({job.model: frozenset({job.version, *beside})}))
            await self._fleet.wait_available(job.model, job.version, self._settings.load_timeout_ms / 1000)
            for server in await self._fleet.servers():
                await self._warm_up(server, job, found.artifact)
            why = f"loaded beside {deployed.version}" if deployed else "the first to serve"
            await self._control.move(job.model, job.version, "DEPLOYED", why, run=job.token)
            await supersede(self._control, job, "VALIDATED")
        log.info("a version was deployed", extra={"fields": {**job.told(), "why": why}})
        return {"stage": "DEPLOYED", "why": why}

    async def retire(self, model: str) -> None:
        """Unload, after the grace, what does not serve any more."""
        await asyncio.sleep(self._settings.deploy_grace_ms / 1000)
        deployed = await self._control.deployed(model)
        if deployed is not None:
            # Later ones are being loaded: their own deployment takes care of them.
            serving = deployed.version
            await self._fleet.change(
                lambda has: {**has, model: frozenset(v for v in has.get(model, ()) if v >= serving) | {serving}}
            )

    async def ensure(self, model: str) -> int | None:
        """See to it that every server has the deployed version, also one that lost its state; its number."""
        deployed = await self._control.deployed(model)
        if deployed is None:
            return None
        await self._fleet.change(added(model, deployed.version))
        await self._fleet.wait_available(model, deployed.version, self._settings.load_timeout_ms / 1000)
        return deployed.version

    async def _warm_up(self, server: ModelServerClient, job: Job, artifact: str) -> None:
        """Ask for scores of several sizes: the first of a size pays for what the later ones have."""
        try:
            manifest = await asyncio.to_thread(read_manifest, artifact)
            columns = golden_columns(manifest)
        except (ArtifactError, ValueError) as error:
            raise DeployError(f"{job.model} {job.version}: {error}") from error
        for rows in _WARM_UP_ROWS if columns else ():
            await server.predict(job.model, job.version, repeated(columns or {}, rows), timeout_s=_WARM_UP_S)
