"""The keeper as seen from outside: calls over its socket, and its end by pid when it does not answer."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from circus.client import CircusClient
from circus.exc import CallError

from headrace_stack.keeper import endpoints, write_json
from headrace_stack.layout import Layout, StackError

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 45.0
#: A keeper that was not ready to be told ends by a signal; it may miss one while it begins.
_KEEPER_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.02
#: What a batch task's run is started as.
_RUN: Final = "headrace_core.control.run"


class KeeperAwayError(StackError):
    """No keeper answers."""


class Control:
    """Starts, asks and ends the keeper of one stack."""

    def __init__(self, layout: Layout) -> None:
        """Nothing is started or asked yet."""
        self._layout = layout
        self._child: subprocess.Popen[bytes] | None = None

    def start_keeper(self) -> None:
        """Start it, without waiting for it; it keeps none of our streams."""
        with (self._layout.logs / "keeper.log").open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "headrace_stack.keeper", str(self._layout.home)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self._layout.home,
            )  # fmt: skip
        pid = self._child.pid
        write_json(self._layout.pids, {"keeper": pid, "started": {pid: psutil.Process(pid).create_time()}})

    def wait_for_keeper(self) -> None:
        """Wait until it answers.

        Raises:
            KeeperAwayError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers(timeout=1):
            ended = self._child is not None and self._child.poll() is not None
            if ended or time.monotonic() > deadline:
                raise KeeperAwayError("the process manager did not start")
            time.sleep(_POLL_SECONDS)

    def answers(self, timeout: float = 5.0) -> bool:
        """Whether a keeper runs and answers."""
        if not (self._layout.sockets / "control.sock").exists():
            return False  # a call would wait for its timeout
        try:
            self.call("numwatchers", timeout)
        except StackError:
            return False
        return True

    def start(self, name: str) -> None:
        """Start one part."""
        self._call_when_idle("start", name)

    def stop(self, name: str) -> None:
        """Stop one part, gently, until `start`; back when it has ended."""
        self._call_when_idle("stop", name)

    def pid(self, name: str) -> int | None:
        """Process id of one part, if it runs."""
        found = self.call("list", name=name)["pids"]
        return int(found[0]) if found else None

    def starts(self, name: str) -> int:
        """How often one part was started, the restarts included."""
        recorded = json.loads(self._layout.pids.read_text(encoding="utf-8"))
        return int(recorded.get("starts", {}).get(name, 0))

    def call(self, command: str, timeout: float = 10.0, **properties: Any) -> dict[str, Any]:
        """One call.

        Raises:
            KeeperAwayError: nobody answers.
            StackError: the keeper refused.
        """
        client = CircusClient(endpoint=endpoints(self._layout)[0], timeout=timeout)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        except CallError as error:
            raise KeeperAwayError(f"the process manager does not answer: {error}") from None
        finally:
            client.stop()
        if answer.get("status") == "error":
            raise StackError(f"{command} {properties.get('name', '')}: {answer.get('reason')}")
        return answer

    def _call_when_idle(self, command: str, name: str) -> None:
        """Circus does one command that changes something at a time and refuses the others."""
        deadline = time.monotonic() + _STOP_SECONDS
        while True:
            try:
                self.call(command, _STOP_SECONDS, name=name, waiting=True)
            except KeeperAwayError:
                raise
            except StackError as error:
                if "already running" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return

    def end(self, services: str) -> None:
        """End every process of the stack: services first, then the stores they write to; back when all are gone.

        Args:
            services: pattern of the names of the parts that are no stores; empty when there are none.
        """
        keeper, started = self._recorded()
        if keeper is not None and keeper in _living(started):
            with suppress(StackError):  # one that does not answer, or is busy with a start, is ended by its pid
                if self.answers():
                    if services:
                        self.stop(services)  # all at once
                    self.call("quit", _STOP_SECONDS, waiting=True)
            _end({keeper: started[keeper]}, _KEEPER_SECONDS)  # before the others, which it would start again
            _, started = self._recorded()
        _end(started)
        _end_runs(self._layout.runs)
        if self._child is not None:
            self._child.wait(10)
            self._child = None
        self._layout.pids.unlink(missing_ok=True)
        for socket in ("control.sock", "events.sock"):
            (self._layout.sockets / socket).unlink(missing_ok=True)

    def _recorded(self) -> tuple[int | None, dict[int, float]]:
        try:
            found = json.loads(self._layout.pids.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None, {}
        return int(found["keeper"]), {int(pid): started for pid, started in found["started"].items()}


def _end_runs(folder: Path) -> None:
    """End the runs of batch tasks, and with them their commands.

    They are no one's children, so that they outlive their control plane; when the stack comes up again it sees that they are gone,
    and tries them again.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _RUN in process.cmdline() and process.environ().get("HEADRACE_RUNS") == str(folder):
                run = [process, *process.children(recursive=True)]  # of a command's own children nobody else knows
                for each in run:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
                psutil.wait_procs(run, timeout=10)


def _living(recorded: dict[int, float]) -> dict[int, psutil.Process]:
    """Recorded processes that still live; start times tell them from others that got their pids."""
    living = {}
    for pid, started in recorded.items():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                living[pid] = process
    return living


def _end(recorded: dict[int, float], timeout: float = 15.0) -> None:
    processes = list(_living(recorded).values())
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # PostgreSQL waits for its clients at SIGTERM; SIGINT ends it at once, and the rest as well.
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
    _, stubborn = psutil.wait_procs(processes, timeout=timeout)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=10)
