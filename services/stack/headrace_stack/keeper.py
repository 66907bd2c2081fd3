"""The process manager of a stack: circus with one watcher per part, and stack.json kept current.

Run as `python -m headrace_stack.keeper HOME`. Watchers do not start by themselves: `headrace up` starts them in order
and waits for each; from then on circus restarts what ends.
"""

import json
import logging
import os
import shlex
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import circus
import psutil
from circus.exc import ConflictError
from circus.watcher import Watcher
from tornado.ioloop import PeriodicCallback

from headrace_stack.layout import Layout
from headrace_stack.part import Part


def endpoints(layout: Layout) -> tuple[str, str]:
    """Addresses of the control and event sockets."""
    return f"ipc://{layout.sockets}/control.sock", f"ipc://{layout.sockets}/events.sock"


def write_json(path: Path, content: Any) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part; for this user only."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123  # with its mode
        file.write(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def describe(plan: dict[str, Any], pids: dict[str, int]) -> dict[str, Any]:
    """Content of stack.json."""
    processes = [
        {"service": p["service"], "replica": p["replica"], "pid": pids[p["name"]]}
        | ({"metrics": p["metrics"]} if p["metrics"] else {})
        for p in plan["parts"]
        if p["name"] in pids
    ]
    return {**plan["addresses"], "profile": plan["profile"], "processes": processes}


def _watcher(part: Part, layout: Layout) -> dict[str, Any]:
    log = layout.logs / f"{part.name}.log"
    # `exec` in a shell: the pid is the service's own, and its streams are files, not pipes of ours.
    line = f"exec {shlex.join(part.command)} >> {shlex.quote(str(log))} 2>&1 < /dev/null"
    return {
        "name": part.name,
        "cmd": "/bin/sh",
        "args": ["-c", line],
        "env": {**os.environ, **part.environment},
        "copy_env": False,
        "autostart": False,
        "respawn": True,
        "max_retry": -1,
        "stop_signal": part.stop_signal,
        "graceful_timeout": part.grace_s,
        "numprocesses": 1,
        "working_dir": str(layout.home),
    }


class _NoConflicts(logging.Filter):
    """Circus looks after its processes every 0.3 s, and complains each time that a command is at work just then."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ConflictError))


class Keeper:
    """Runs circus and rewrites stack.json and pids.json when a process changes."""

    def __init__(self, layout: Layout) -> None:
        """Read the plan that `headrace up` wrote."""
        self._layout = layout
        self._plan = json.loads(layout.plan.read_text(encoding="utf-8"))
        self._spawned = {os.getpid(): psutil.Process().create_time()}
        self._starts: Counter[str] = Counter()
        self._written: dict[str, Any] = {}
        control, events = endpoints(layout)
        watchers = [_watcher(Part(**part), layout) for part in self._plan["parts"]]
        for watcher in watchers:
            watcher["hooks"] = {"after_spawn": (self._record, True)}
        self._arbiter = circus.get_arbiter(
            watchers, controller=control, pubsub_endpoint=events, check_delay=0.3, debug=False
        )

    def run(self) -> None:
        """Keep until told to quit."""
        self._write_pids()
        PeriodicCallback(self._publish, 100).start()
        self._arbiter.start()  # until a client says quit, or SIGTERM

    def _record(self, *, watcher: Watcher, pid: int, **_: Any) -> bool:
        """Write a process down before anything else can happen to it: what is not written is not found by `down`."""
        self._starts[watcher.name] += 1
        with suppress(psutil.NoSuchProcess):
            self._spawned[pid] = psutil.Process(pid).create_time()
        self._write_pids()
        return True

    def _write_pids(self) -> None:
        self._spawned = {pid: at for pid, at in self._spawned.items() if psutil.pid_exists(pid)}
        write_json(self._layout.pids, {"keeper": os.getpid(), "started": self._spawned, "starts": self._starts})

    def _publish(self) -> None:
        """Bring stack.json up to date, from the moment that everything is ready."""
        if not self._layout.ready_mark.exists():
            return
        pids = {w.name: next(iter(w.processes.values())).pid for w in self._arbiter.watchers if w.processes}
        content = describe(self._plan, pids)
        if content != self._written:
            write_json(self._layout.stack_file, content)
            self._written = content


def main() -> None:
    """Entry point: `python -m headrace_stack.keeper HOME`."""
    logging.getLogger("tornado.application").addFilter(_NoConflicts())
    Keeper(Layout(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
