"""The control plane and the trainer as processes of their own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def control_plane(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """A control plane on the stores; its URL."""
    port = a_free_port()
    told = os.environ | dict(environment) | {"HEADRACE_CONTROL_PORT": str(port), "HEADRACE_RUNS": str(folder / "runs")}
    with (folder / "control.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "headrace_control_plane"], env=told, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "control.log").read_text(encoding="utf-8")[-3_000:])
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own
            return bool(answer.status == 200)
    except OSError:
        return False


def train_base(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Runs `headrace-train base`; what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("headrace-train")), "base", *arguments],
        env=os.environ | dict(environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3_000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


class Trainer:
    """`python -m headrace_trainer`, to be killed and started again."""

    def __init__(self, environment: Mapping[str, str], folder: Path, state: Path) -> None:
        self._environment = os.environ | dict(environment) | {"HEADRACE_TRAIN_STATE": str(state)}
        self._log, self.port = folder / f"{state.name}.log", 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = a_free_port()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace_trainer"], stdout=log, stderr=log,
                env=self._environment | {"HEADRACE_METRICS_PORT": str(self.port)},
            )  # fmt: skip

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def learned(self) -> float:
        """Samples learned since its start."""
        return sum(self._metrics("headrace_learned_samples_total").values())

    def seqs(self) -> dict[int, int]:
        """Per source, the last change that is in the weights."""
        return {
            int(labels.split('source="')[1].split('"')[0]): int(v)
            for labels, v in self._metrics("headrace_learned_seq").items()
        }

    def _metrics(self, name: str) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        found = (line.rsplit(" ", 1) for line in lines if line.startswith(name + "{"))
        return {labels: float(value) for labels, value in found}

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float = 60.0) -> None:
        """Wait for something that needs a living trainer."""
        deadline = time.monotonic() + deadline_s
        while not await condition():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the trainer ended before {what}:\n{self.log()[-4_000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} in {deadline_s} s:\n{self.log()[-4_000:]}")
            await asyncio.sleep(0.1)
