"""`down` leaves nothing of a run: neither the process that did it, nor what its command started."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
from headrace_stack.control import _RUN, _end_runs

#: A command with a child of its own, which it tells and waits for.
_COMMAND = "import subprocess, sys; c = subprocess.Popen(['sleep', '300']); print(c.pid, flush=True); c.wait()"


def started(folder: Path) -> tuple["subprocess.Popen[str]", psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, _RUN], env=os.environ | {"HEADRACE_RUNS": str(folder)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_run_ends_with_the_children_of_its_command_and_other_stacks_runs_go_on(tmp_path: Path) -> None:
    mine, mine_child = started(tmp_path / "mine")
    other, other_child = started(tmp_path / "other")
    try:
        _end_runs(tmp_path / "mine")

        assert not psutil.pid_exists(mine.pid)  # ended, and its end seen
        assert is_gone(mine_child)
        assert other.poll() is None
        assert not is_gone(other_child)
    finally:
        for child in (mine_child, other_child):
            if child.is_running():
                child.kill()
        for parent in (mine, other):
            parent.wait(10)
            assert parent.stdout is not None
            parent.stdout.close()
