"""A control plane as a process of its own, that can be killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path


class ControlPlane:
    """One control plane on a port of its own.

    Args:
        environment: HEADRACE_… settings.
        folder: for its log and those of its runs.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"control-{self.port}.log"
        self._environment = (
            os.environ
            | {"HEADRACE_RUNS": str(folder / "runs"), "HEADRACE_CONTROL_PORT": str(self.port)}
            | dict(environment)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace_control_plane"],
                env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self, ready_within_s: float = 60.0) -> None:
        """Start and wait until /readyz says so."""
        self.spawn()
        self.wait_ready(ready_within_s)

    def wait_ready(self, within_s: float = 60.0) -> None:
        """Wait until /readyz says so.

        Raises:
            RuntimeError: it ended, or was not ready in time; the message holds the end of its log.
        """
        assert self._process is not None
        end = time.monotonic() + within_s
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the control plane is not ready:\n{self.log()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it gently; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-6_000:]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310  # loopback, our own
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
