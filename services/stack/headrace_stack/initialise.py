"""Runs `headrace-init` as the job that it is in a cluster, beside the start of the stores that it waits for."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

_WAIT_MS: Final = 60_000


class Initialisation:
    """One run of the job."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it; it waits for Kafka and PostgreSQL by itself."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headrace_core.init"],
            env={**environment, "HEADRACE_INIT_WAIT_MS": str(_WAIT_MS)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def failure(self) -> str | None:
        """Wait for its end; what failed, if anything did."""
        _, errors = self._process.communicate()
        if self._process.returncode == 0:
            return None
        last = errors.strip().splitlines()[-1:]
        return _message(last[0]) if last else f"it ended with {self._process.returncode}"

    def end(self) -> None:
        """End it if it still runs: a migration is a transaction, so nothing is left half done."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def _message(line: str) -> str:
    """What a log line in JSON says, or the line as it is."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
