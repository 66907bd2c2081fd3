"""Workflows that are active from the start: those of a folder, which somebody's own of the same name takes the place of."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from headrace_core.workflow import compile_file

from headrace_control_plane.store import workflows
from headrace_control_plane.store.database import AWAY, Pool, now_ms
from headrace_control_plane.store.workflows import Document

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 1.0


def documents_in(folder: Path) -> list[Document]:
    """What the files of a folder define, in the order of their names. The files are run: it is a folder of the image.

    Raises:
        WorkflowError: a file is wrong.
    """
    return [document for file in sorted(folder.glob("*.py")) for document in compile_file(file)]


async def upload(pool: Pool, documents: Sequence[Document]) -> None:
    """Upload them, as soon as PostgreSQL is there. May be done any number of times, and by several at once."""
    for document in documents:
        told = {"workflow": document["workflow"]}
        while True:
            try:
                snapshot = await workflows.apply_shipped(pool, document, now_ms())
            except AWAY as error:
                log.warning("shipped workflows wait for PostgreSQL", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                break
        if snapshot is None:
            log.info("a shipped workflow was uploaded by somebody, whose own stays", extra={"fields": told})
        else:
            log.info("a shipped workflow is active", extra={"fields": told | {"snapshot": snapshot}})
