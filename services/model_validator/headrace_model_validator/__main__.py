"""Runs the resident validator and deployer: `python -m headrace_model_validator`.

Exit codes: 0 after SIGTERM or SIGINT, 1 when a part of it failed, 2 for settings or definitions that can't be.
"""

import asyncio
import logging
import signal
import sys

from headrace_core.control.client import ControlClient
from headrace_core.definitions.models import ModelError
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
        asyncio.run(_serve(settings))
    except ModelError as error:
        sys.stderr.write(f"headrace-model-validator: {error}\n")
        sys.exit(2)


async def _serve(settings: ModelValidatorSettings) -> None:
    async with opened(settings, SERVICE) as workers, ControlClient(settings.control, SERVICE) as control:
        resident = Resident(control, workers, settings.model)
        serve_metrics(settings, lambda: None if resident.ready else "the control plane")
        work = asyncio.ensure_future(resident.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            log.info("stopped")


if __name__ == "__main__":
    main()
