"""A Docker engine for tests: the one that runs, else Debian's, started for them alone where this is root on Debian."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.integration.stack_cli import wait_until

_PACKAGES: Final = ("docker.io", "debootstrap")
#: Without rules of a firewall and a bridge, which a container need not be given: builds and containers use the host's network.
_OPTIONS: Final = (
    "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none", "--storage-driver=overlay2",
)  # fmt: skip


@contextmanager
def running_engine() -> Iterator[None]:
    """An engine that the command `docker` finds; the test is skipped where there can be none."""
    if not shutil.which("debootstrap") or not (_answers() or shutil.which("dockerd")):
        _install()
    if _answers():
        yield
        return
    # Not below the folder of pytest, whose last three are kept: images are large.
    folder = Path(tempfile.mkdtemp(prefix="headrace-engine-"))
    address = f"unix://{folder}/docker.sock"
    with (folder / "dockerd.log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        process = psutil.Popen(
            ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
             "--host", address, *_OPTIONS],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        patch.setenv("DOCKER_HOST", address)
        try:
            wait_until(lambda: _answers() or process.poll() is not None, "an engine that answers")
            if process.poll() is not None:
                last = (folder / "dockerd.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
                pytest.skip(f"no Docker engine can run here: {' '.join(last)}")
            yield
        finally:
            process.terminate()
            process.wait(60)
            # The network namespace of the machine, which the engine leaves mounted there.
            subprocess.run(["umount", folder / "exec" / "netns" / "default"], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def _answers() -> bool:
    try:
        return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _install() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"needs a Docker engine and debootstrap (Debian: apt-get install {' '.join(_PACKAGES)})")
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *_PACKAGES]):
        done = subprocess.run(
            ["apt-get", "-qq", *arguments], env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        pytest.skip(f"apt-get brought no Docker engine: {' '.join(done.stderr.split())[-300:]}")
