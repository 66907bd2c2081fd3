"""A container as a process of this machine: its command and variables are what tests are about, its image is not."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def start(container: Mapping[str, Any], laid_over: Mapping[str, str | None], output: Path) -> subprocess.Popen[bytes]:
    """Start the command of a container, in a session of its own.

    Args:
        container: of a pod's specification.
        laid_over: variables over those of the container, None to take one away: names of the cluster mean nothing here.
        output: file for what it prints.
    """
    told = {e["name"]: e.get("value", "") for e in container.get("env", [])} | dict(laid_over)
    base = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    base["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{base.get('PATH', os.defpath)}"
    with output.open("wb") as out:
        return subprocess.Popen(
            container["command"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env=base | {k: v for k, v in told.items() if v is not None},
        )  # fmt: skip
