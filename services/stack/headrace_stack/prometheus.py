"""Debian's Prometheus and promtool, unpacked into the cache and not installed: tests of dashboards and alerts run both."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from headrace_stack.layout import cache


def folder() -> Path:
    """Where `prometheus` and `promtool` are, if they are there."""
    return cache() / "prometheus"


def fetch() -> None:
    """Unpack them where apt-get can; elsewhere say so: only tests need them, and skip."""
    if folder().is_dir():
        return
    fault = "no apt-get" if shutil.which("apt-get") is None else _unpack()
    if fault is not None:
        print(f"headrace: no Prometheus ({fault}): tests of dashboards and alerts are left out", file=sys.stderr)


def _unpack() -> str | None:
    """None, or why not."""
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        updating = [["apt-get", "-qq", "update"]] if os.geteuid() == 0 else []
        for command in (*updating, ["apt-get", "-qq", "download", "prometheus"]):
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        packages = list(Path(place).glob("prometheus_*.deb"))
        if not packages:
            return " ".join(done.stderr.split())[-300:] or "apt-get brought nothing"
        unpacked = Path(place) / "unpacked"
        done = subprocess.run(["dpkg", "-x", packages[0], unpacked], capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip()[-300:]
        (unpacked / "usr" / "bin").rename(folder())
    return None
