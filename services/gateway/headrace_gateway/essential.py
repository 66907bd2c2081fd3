"""Background work without which the process has no right to look alive."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, Final

log = logging.getLogger(__name__)

#: What has died; a process that ends with something in here ends with exit code 1.
DEATHS: Final[list[BaseException]] = []


def essential_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run in the background; if it ever fails the process is stopped, to be started anew by its manager."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_stop_process_on_death)
    return task


def _stop_process_on_death(task: asyncio.Task[None]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    DEATHS.append(error)
    log.critical("%s failed, the process ends", task.get_name(), exc_info=error)
    signal.raise_signal(signal.SIGTERM)
