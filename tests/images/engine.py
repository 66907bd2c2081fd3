"""A Docker engine for tests: the one that runs, else Debian's, started for them alone where this is root on Debian."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.integration.stack_cli import wait_until

_PACKAGES: Final = ("docker.io", "debootstrap")
#: Without rules of a firewall and a bridge, which a container need not be given: builds and containers use the host's network.
_ALONE: Final = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
#: Networks as an engine has them by default, for privileged containers that have networks of their own.
_NETWORKED: Final = (f"--add-runtime=within={Path(__file__).parent / 'within.py'}", "--default-runtime=within")


@contextmanager
def running_engine(*, networks: bool = False) -> Iterator[None]:
    """An engine that the command `docker` finds; the test is skipped where there can be none.

    Args:
        networks: one that gives containers networks of their own, from which none reaches beyond this machine, and lets
            privileged ones do what this machine's root may.
    """
    if not shutil.which("debootstrap") or not (_answers() or shutil.which("dockerd")):
        _install()
    if _answers():
        yield
        return
    # Not below the folder of pytest, whose last three are kept: images are large.
    folder = Path(tempfile.mkdtemp(prefix="headrace-engine-"))
    address = f"unix://{folder}/docker.sock"
    kept = _firewall_kept() if networks else nullcontext()
    with kept, (folder / "dockerd.log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        process = psutil.Popen(
            ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
             "--host", address, "--storage-driver=overlay2", *(_NETWORKED if networks else _ALONE)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        patch.setenv("DOCKER_HOST", address)
        try:
            wait_until(lambda: _answers() or process.poll() is not None, "an engine that answers")
            if process.poll() is not None:
                last = (folder / "dockerd.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
                pytest.skip(f"no Docker engine can run here: {' '.join(last)}")
            if networks:
                _shut_in()
            yield
        finally:
            if networks:
                subprocess.run(["docker", "network", "prune", "--force"], capture_output=True, check=False)
            process.terminate()
            process.wait(60)
            # The network namespace of the machine, which the engine leaves mounted there.
            subprocess.run(["umount", folder / "exec" / "netns" / "default"], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _firewall_kept() -> Iterator[None]:
    """Give the machine back the rules and the bridge that it had: an engine leaves its own."""
    forwards = Path("/proc/sys/net/ipv4/ip_forward")
    before, rules = forwards.read_text(encoding="ascii"), {}
    for version in ("iptables", "ip6tables"):
        for table in ("filter", "nat"):  # is not saved, and so not put back, unless it was looked at
            subprocess.run([version, "-t", table, "-S"], capture_output=True, check=False)
        rules[version] = subprocess.run([f"{version}-save"], capture_output=True, check=False).stdout
    bridge = Path("/sys/class/net/docker0").exists()
    try:
        yield
    finally:
        for version, saved in rules.items():
            subprocess.run([f"{version}-restore"], input=saved, capture_output=True, check=False)
        forwards.write_text(before, encoding="ascii")
        if not bridge:
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)


def _shut_in() -> None:
    """Let no container out: a service's address that nobody serves yet could be answered by whoever is there."""
    for route in json.loads(
        subprocess.run(["ip", "-json", "route", "show", "default"], capture_output=True, check=True).stdout
    ):
        subprocess.run(["iptables", "-I", "DOCKER-USER", "-o", route["dev"], "-j", "REJECT"], check=True)


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
