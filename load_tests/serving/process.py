"""Services of learning as processes of their own, that can be killed."""

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
from typing import Final

_POLL_SECONDS: Final = 0.05


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServiceProcess:
    """One service with its /readyz.

    Args:
        module: run by `python -m`.
        environment: HEADRACE_… settings; the port of /readyz is set here.
        folder: for its log.
        port: the setting that tells it where to answer /readyz.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str], folder: Path, port: str = "HEADRACE_METRICS_PORT"
    ) -> None:
        self.metrics_port = free_port()
        self.log_file = folder / f"{module}-{self.metrics_port}.log"
        self._module = module
        self._environment = os.environ | dict(environment) | {port: str(self.metrics_port)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    def start(self, ready_within_s: float = 90.0) -> None:
        """Start and wait until /readyz says so."""
        self.spawn()
        self.wait_ready(ready_within_s)

    def wait_ready(self, within_s: float = 90.0) -> None:
        """Wait until /readyz says so.

        Raises:
            RuntimeError: it ended, or was not ready in time; the message holds the end of its log.
        """
        end = time.monotonic() + within_s
        while not self._is_ready():
            if self._running().poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self._module} is not ready:\n{self.log()}")
            time.sleep(_POLL_SECONDS)

    def spawn(self) -> None:
        """Start without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._running().send_signal(signal.SIGKILL)
        self._running().wait()

    def wait(self, within_s: float) -> int:
        """Wait for the end; the exit code."""
        return self._running().wait(within_s)

    def stop(self) -> None:
        """End it, gently at first."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-4_000:] if self.log_file.exists() else ""

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started")
        return self._process

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


class ModelServerProcess(ServiceProcess):
    """A model server on a port of its own, with a state of its own.

    Args:
        folder: for its log and state.
        settings: beyond its addresses.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        own = {
            "HEADRACE_MODEL_SERVER_PORT": str(self.port),
            "HEADRACE_MODEL_SERVER_STATE": str(folder / f"model-server-{self.port}"),
        }
        super().__init__("headrace_model_server", own | dict(settings or {}), folder)
