"""Validator and deployer with what they need, and how a run's command reaches them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from headrace_core.control.client import ControlAwayError, ControlClient
from headrace_core.definitions.models import Model, load_models
from headrace_core.serving.client import ServingError

from headrace_model_validator.deployer import Deployer
from headrace_model_validator.fleet import Fleet, NotInTimeError, names_of
from headrace_model_validator.job import Job
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.validator import Validator

log = logging.getLogger(__name__)

VALIDATE: Final = "headrace-validate"
DEPLOY: Final = "headrace-deploy"

#: Errors that another try may be free of.
AWAY_ERRORS: Final = (ControlAwayError, ServingError, OSError, asyncpg.PostgresError, NotInTimeError)


class Workers:
    """Do what a command says.

    Args:
        validator: for headrace-validate.
        deployer: for headrace-deploy.
    """

    def __init__(self, validator: Validator, deployer: Deployer) -> None:
        self.validator, self.deployer = validator, deployer
        self._retiring: set[asyncio.Task[None]] = set()

    async def work(self, program: str, job: Job) -> dict[str, Any]:
        """Validate or deploy; what came of it. What a deployment replaced is unloaded later, in the background.

        Raises:
            ValueError: the command is another one.
        """
        if program == VALIDATE:
            return await self.validator.validate(job)
        if program != DEPLOY:
            raise ValueError(f"{program} is no command of this service")
        result = await self.deployer.deploy(job)
        if result["stage"] == "DEPLOYED":
            task = asyncio.create_task(self._retire(job.model), name=f"retire before {job.version}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return result

    async def _retire(self, model: str) -> None:
        try:
            await self.deployer.retire(model)
        except AWAY_ERRORS as error:  # a version too many costs memory; the next deployment unloads it
            log.warning("a version could not be unloaded", extra={"fields": {"model": model, "error": str(error)}})

    async def finish(self) -> None:
        """Wait until what was replaced is unloaded."""
        await asyncio.gather(*self._retiring)


@asynccontextmanager
async def opened(
    settings: ModelValidatorSettings, sender: str, models: Mapping[str, Model] | None = None
) -> AsyncIterator[Workers]:
    """Workers with their clients, closed afterwards.

    Args:
        settings: addresses and bounds.
        sender: name in histories.
        models: definitions by name; None reads those in force.

    Raises:
        ModelError: a definition is wrong.
    """
    if models is None:
        models = load_models(settings.definitions / "models")
    postgres = settings.postgres.get_secret_value()
    async with (
        ControlClient(settings.control, sender) as control,
        Fleet(settings.model_server, settings.models, names_of(models.values()), postgres) as fleet,
    ):
        yield Workers(Validator(control, fleet, models, settings), Deployer(control, fleet, settings))
