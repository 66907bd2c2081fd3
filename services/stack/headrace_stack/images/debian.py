"""A base for the images out of Debian's packages alone, where no registry of images is reached.

debootstrap makes it, as root. It is what python:3.11-slim is, with Debian's own Python 3.11.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from headrace_stack.images.docker import docker, exists
from headrace_stack.layout import StackError

BASE: Final = "headrace/base-debian:bookworm"
#: The same with what the build stage needs.
BUILDER: Final = "headrace/builder-debian:bookworm"
_PACKAGES: Final = ("python3", "ca-certificates", "netbase", "tzdata")
_BUILD_PACKAGES: Final = ("python3-venv", "binutils")
#: What Debian's slim images leave out, too; licences stay.
_LEFT_OUT: Final = (
    "./usr/share/doc/*/[!c]*", "./usr/share/info/*", "./usr/share/locale/*", "./usr/share/man/*", "./var/cache/apt/*",
    "./var/lib/apt/lists/*", "./var/log/*", "./dev/*", "./proc/*", "./sys/*", "*/__pycache__/*",
)  # fmt: skip
_AUTHORITIES: Final = Path("etc/ssl/certs/ca-certificates.crt")


def make() -> tuple[str, str]:
    """Make both where they are missing; their names.

    Raises:
        StackError: this is not root on a machine with debootstrap, or it failed.
    """
    if exists(BASE) and exists(BUILDER):
        return BASE, BUILDER
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise StackError("a base of Debian's packages is made by root with debootstrap (apt-get install debootstrap)")
    with tempfile.TemporaryDirectory(prefix="headrace-base-") as name:
        root = Path(name)
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", "bookworm", root)
        _import(root, BASE)
        _run("chroot", root, "apt-get", "-qq", "install", "-y", "--no-install-recommends", *_BUILD_PACKAGES)
        # The authorities that this machine trusts: what is fetched in the build may come through a proxy of its own.
        shutil.copy(Path("/") / _AUTHORITIES, root / _AUTHORITIES)
        _import(root, BUILDER, "--change", f"ENV PIP_CERT=/{_AUTHORITIES}")
    return BASE, BUILDER


def _import(root: Path, image: str, *arguments: str) -> None:
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        _run("tar", "-C", root, *left_out, "-cf", archive.name, ".")
        docker("import", *arguments, archive.name, image)


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StackError(f"{command[0]} failed: {' '.join((done.stdout + done.stderr).split())[-500:]}")
