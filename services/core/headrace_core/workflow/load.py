"""Loads a workflow file."""

import runpy
from pathlib import Path
from typing import Any

from headrace_core.workflow.document import WorkflowError
from headrace_core.workflow.parameters import parameters_beside
from headrace_core.workflow.tasks import Workflow


def compile_file(path: Path) -> list[dict[str, Any]]:
    """The documents of the workflows that a file defines, in their order. The file is run: load only what you trust.

    `<its name>.parameters.yaml` beside it gives the values that it asks for by `parameter`.

    Raises:
        WorkflowError: it defines none, or one is wrong; whatever the file's own code raises is told as such.
    """
    try:
        with parameters_beside(path):
            names = runpy.run_path(str(path))
    except WorkflowError:
        raise
    except Exception as error:
        raise WorkflowError(f"{path}: {type(error).__name__}: {error}") from error
    found = [value for value in names.values() if isinstance(value, Workflow)]
    if not found:
        raise WorkflowError(f"{path}: defines no workflow: write `with Workflow(…) as flow:`")
    return [flow.compile() for flow in dict.fromkeys(found)]
