"""A gateway as a process of its own, that can be killed."""

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


class GatewayProcess:
    """One gateway on a port of its own.

    Args:
        environment: HEADRACE_… settings.
        folder: for its log.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"gateway-{self.port}.log"
        self._environment = os.environ | dict(environment) | {"HEADRACE_GATEWAY_PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    def start(self, ready_within_s: float = 30.0) -> None:
        """Start and wait until /readyz says so.

        Raises:
            RuntimeError: it ended, or was not ready in time; the message holds the end of its log.
        """
        self.spawn()
        end = time.monotonic() + ready_within_s
        while not self._is_ready():
            if self._running().poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the gateway is not ready:\n{self.log()}")
            time.sleep(_POLL_SECONDS)

    def spawn(self) -> None:
        """Start without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace_gateway"],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._running().send_signal(number)

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
            raise RuntimeError("the gateway was not started")
        return self._process

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310  # loopback, our own
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
