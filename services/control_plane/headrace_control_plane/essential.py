"""Background work without which the process is of no use: when it dies, the process ends with it."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, Final

log = logging.getLogger(__name__)

#: Names of what died; the process then exits with 1.
DEATHS: Final[list[str]] = []


def essential(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """Run work in the background; should it end by an error, so does the process."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_look)
    return task


def _look(task: "asyncio.Task[None]") -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    DEATHS.append(task.get_name())
    log.critical("%s died: %r", task.get_name(), error, exc_info=error)
    signal.raise_signal(signal.SIGTERM)
