"""The control plane of Kubernetes, built once out of its Go modules: one program, whose parts `go/main.go` names."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from headrace_stack.layout import cache

SOURCES: Final = Path(__file__).parent / "go"
_GO: Final = "go"
_BUILD_SECONDS: Final = 3_000


class BuildError(Exception):
    """The program could not be built; the message is Go's."""


def missing() -> str | None:
    """Why there is no such program here and none can be made; None when there is or can be."""
    if program().exists() or shutil.which(_GO):
        return None
    return "Go is missing (https://go.dev/dl), which builds Kubernetes' API server"


def version() -> str:
    """Of Kubernetes, as go.mod pins it."""
    found = re.search(r"^\s*k8s\.io/kubernetes v(\S+)$", (SOURCES / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "go.mod requires no k8s.io/kubernetes"
    return found[1]


def program() -> Path:
    """Where it is once it was built; other sources have another place."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.read_bytes())
    return cache() / f"kubernetes-{version()}-{digest.hexdigest()[:12]}"


def built() -> Path:
    """The program, built if it is not there, which takes a quarter of an hour on two cores; one build at a time.

    Raises:
        BuildError: it can't be built.
    """
    target = program()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "kubernetes.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    major, minor, _ = version().split(".")
    told = {
        "k8s.io/component-base/version.gitVersion": f"v{version()}",
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
    }
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in told.items())])
    unfinished = target.with_suffix(f".{os.getpid()}")
    began = time.monotonic()
    done = subprocess.run(
        [_GO, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", unfinished, "."], cwd=SOURCES,
        env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}, capture_output=True, text=True,
        timeout=_BUILD_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"Kubernetes can't be built ({time.monotonic() - began:.0f} s): {done.stderr[-2_000:]}")
    unfinished.rename(target)
