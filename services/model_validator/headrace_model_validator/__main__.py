"""Runs the resident validator and deployer: `python -m headrace_model_validator`.

Exit codes: 0 after SIGTERM or SIGINT, 1 when a part of it failed, 2 for settings or definitions that can't be.
"""

import asyncio
import logging
import signal
import sys

from headrace_core.control.client import ControlClient
from headrace_core.definitions.models import Model, ModelError, watch_models
from headrace_core.definitions.watch import Watch
from headrace_core.telemetry import configure_logging, serve_metrics
from pydantic import ValidationError

from headrace_model_validator.resident import SERVICE, Resident
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.workers import opened

log = logging.getLogger("headrace_model_validator")


def main() -> None:
    """Entry point of the console script."""
    try:
        settings = ModelValidatorSettings()
    except ValidationError as error:
        for fault in error.errors():
            field = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"headrace-model-validator: HEADRACE_{field}: {fault['msg']}\n")
        sys.exit(2)
    configure_logging(settings)
    try:
        watch = watch_models(settings.definitions / "models")
    except (ModelError, OSError) as error:
        sys.stderr.write(f"headrace-model-validator: {error}\n")
        sys.exit(2)
    asyncio.run(_serve(settings, watch))


async def _serve(settings: ModelValidatorSettings, watch: Watch[dict[str, Model]]) -> None:
    async with opened(settings, SERVICE, watch.taken) as workers, ControlClient(settings.control, SERVICE) as control:
        resident = Resident(control, workers, settings.model)
        serve_metrics(settings, lambda: None if resident.ready else "the control plane")
        work = asyncio.ensure_future(resident.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        renewing = asyncio.create_task(_end_when_renewed(resident, watch, work))
        try:
            await work
        except asyncio.CancelledError:
            log.info("stopped")
        finally:
            renewing.cancel()


async def _end_when_renewed(resident: Resident, watch: Watch[dict[str, Model]], work: "asyncio.Future[None]") -> None:
    """Changed definitions are taken by the next process; it finds the runs that wait."""
    await watch.renewed()
    async with resident.between_runs:
        work.cancel()


if __name__ == "__main__":
    main()
