"""The shell of somebody who has a cluster on his machine, as docs/operations/install.md tells: docker, kind, helm, kubectl."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from headrace_stack.helm import binary

from tests.charts.helm import ROOT
from tests.cluster.program import built
from tests.cluster.waiting import eventually
from tests.kind.tools import tool

#: What images are built of.
_CHECKOUT: Final = (".dockerignore", "Dockerfile", "charts", "definitions", "k8s", "locks", "services", "skaffold.yaml")


class Shell:
    """Commands with a home of their own, in the checkout or in a copy of it.

    Args:
        folder: the home.
        checkout: where commands are run.
    """

    def __init__(self, folder: Path, checkout: Path = ROOT) -> None:
        self.folder, self.checkout = folder, checkout
        programs = folder / "programs"
        if not programs.exists():
            programs.mkdir(parents=True)
            for name, program in {"helm": binary(), "kind": tool("kind"), "kubectl": built()}.items():
                (programs / name).symlink_to(program)
        self._environment = os.environ | {
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig"),
            # `make images` where no registry of images is reached, and no container gets out.
            "BASE": "debian", "NETWORK": "host",
        }  # fmt: skip
        self._environment.pop("HEADRACE_HOME", None)

    def run(self, command: str, within_s: float = 1_500) -> str:
        """What a command prints.

        Raises:
            AssertionError: it failed, with what it said.
        """
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.checkout, env=self._environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=within_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
        return done.stdout

    @contextmanager
    def started(self, command: str, says: str, within_s: float = 60) -> Iterator[Path]:
        """A command that goes on until it is interrupted as by Ctrl-C; the file that it writes to, once it has said a text."""
        descriptor, name = tempfile.mkstemp(".log", dir=self.folder)
        file = Path(name)
        with os.fdopen(descriptor, "wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.checkout, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            eventually(lambda: says in self._so_far(file, process), f"{command} says {says!r}", within_s)
            yield file
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(180)

    def _so_far(self, file: Path, process: "subprocess.Popen[bytes]") -> str:
        said = file.read_text(encoding="utf-8", errors="replace")
        assert process.poll() is None, said[-4_000:]
        return said

    def objects(self, kind: str, namespace: str = "headrace") -> list[dict[str, Any]]:
        """All of a kind in a namespace."""
        items: list[dict[str, Any]] = json.loads(self.run(f"kubectl -n {namespace} get {kind} -o json"))["items"]
        return items

    def copied(self) -> "Shell":
        """The same in a copy of what images are built of, whose files a test may change."""
        copy = self.folder / "checkout"
        if not copy.exists():
            copy.mkdir()
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            for name in _CHECKOUT:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=left_out)
                else:
                    shutil.copy(ROOT / name, copy / name)
        return Shell(self.folder, copy)
