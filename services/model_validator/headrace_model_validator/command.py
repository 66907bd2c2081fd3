"""The commands `headrace-validate --model M --version V` and `headrace-deploy --model M --version V`.

What came of it is printed as JSON. Exit codes: 0 when it was decided, 1 when something failed, 2 for arguments, settings or
definitions that can't be, 3 when a dependency is away.
"""

import asyncio
import json
import logging
import os
import sys
from typing import Any, Final

from headrace_core.definitions.models import ModelError
from headrace_core.telemetry import configure_logging
from pydantic import ValidationError

from headrace_model_validator.job import Job, parse_job
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.workers import AWAY_ERRORS, DEPLOY, VALIDATE, opened

log = logging.getLogger(__name__)

_FAILED, _USAGE, _AWAY = 1, 2, 3
_TOKEN: Final = "HEADRACE_RUN_TOKEN"  # noqa: S105  # the variable's name


def validate() -> None:
    """Entry point of headrace-validate."""
    _run(VALIDATE)


def deploy() -> None:
    """Entry point of headrace-deploy."""
    _run(DEPLOY)


def _run(program: str) -> None:
    try:
        job = parse_job(program, sys.argv[1:], os.environ.get(_TOKEN))
        settings = ModelValidatorSettings()
    except (ValueError, ValidationError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_USAGE)
    configure_logging(settings)
    try:
        result = asyncio.run(_work(settings, job, program))
    except (ModelError, LookupError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        sys.exit(_USAGE)
    except AWAY_ERRORS as error:
        sys.stderr.write(f"{program}: a dependency is away: {error}\n")
        sys.exit(_AWAY)
    except Exception as error:  # the edge of the command: told, and logged with its trace
        log.exception("%s failed", program)
        sys.stderr.write(f"{program}: {error}\n")
        sys.exit(_FAILED)
    sys.stdout.write(json.dumps(result) + "\n")


async def _work(settings: ModelValidatorSettings, job: Job, program: str) -> dict[str, Any]:
    async with opened(settings, program) as workers:
        result = await workers.work(program, job)
        await workers.finish()
        return result
