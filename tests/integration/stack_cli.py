"""The `headrace` command as a person runs it, with a home of its own, and the processes that it leaves."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

HEADRACE: Final = str(Path(sys.executable).parent / "headrace")
#: Shorter than the demo's own, so that a base and each increment are there sooner.
SHORT: Final = {
    "HEADRACE_ATTRIBUTION_WINDOW_MS": "5000",
    "HEADRACE_LATENESS_MS": "1000",
    "HEADRACE_JOINED_MARK_MS": "1500",
    "HEADRACE_TRAIN_EVERY_MS": "3000",
}


@dataclass(frozen=True)
class Cli:
    """One home.

    Attributes:
        home: HEADRACE_HOME.
        environment: on top of this process's.
    """

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Run the command without waiting; its output is piped, so a child that kept it would be waited for."""
        return subprocess.Popen(
            [HEADRACE, *arguments],
            env=os.environ | dict(self.environment) | {"HEADRACE_HOME": str(self.home)} | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def up(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """A start that succeeds; content of stack.json."""
        done = self.run("up", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def stack(self) -> dict[str, Any]:
        """Content of stack.json as it is now."""
        told: dict[str, Any] = json.loads((self.home / "stack.json").read_text(encoding="utf-8"))
        return told

    def pid(self, service: str, replica: int = 0) -> int:
        """Process id of a service by stack.json."""
        return next(
            int(p["pid"]) for p in self.stack()["processes"] if (p["service"], p["replica"]) == (service, replica)
        )

    def keeper(self) -> psutil.Process:
        """The process manager."""
        return psutil.Process(json.loads((self.home / "pids.json").read_text(encoding="utf-8"))["keeper"])

    def states(self) -> dict[str, str]:
        """State of each part by `status`."""
        rows = json.loads(self.run("status", "--json").stdout)
        return {f"{row['service']}-{row['replica']}": row["state"] for row in rows}

    def processes(self) -> list[psutil.Process]:
        """Everything that works in the home, whoever knows of it."""
        return [p for p in psutil.process_iter() if _works_in(p, str(self.home))]


def _works_in(process: psutil.Process, home: str) -> bool:
    with suppress(psutil.Error):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.cwd().startswith(home) or any(home in argument for argument in process.cmdline())
    return False


def answers(url: str) -> int:
    """Status of a GET."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own http address
        return int(answer.status)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come true in time.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {deadline_s} s")
        time.sleep(0.05)


def running(cli: Cli, *arguments: str, **environment: str) -> Iterator[Cli]:
    """A stack for a fixture: up before, down after, whatever a test did to it."""
    try:
        cli.up(*arguments, **environment)
        yield cli
    finally:
        cli.run("down")
