"""Programs of a cluster with nodes that no package brings, each built once out of its Go module into `.headrace/cache`."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from headrace_stack.layout import cache

from tests.cluster.program import BuildError

#: What nodes run and how they are made, by the package of the program; Go's checksum database vouches for what the proxy serves.
TOOLS: Final = {
    "kind": "sigs.k8s.io/kind@v0.33.0",
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd@v2.4.2",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.4.2",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr@v2.4.2",
    "crictl": "sigs.k8s.io/cri-tools/cmd/crictl@v1.37.0",
    "coredns": "github.com/coredns/coredns@v1.15.0",
    "local-path-provisioner": "github.com/rancher/local-path-provisioner@v0.0.30",
    "kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0",
}
_GO: Final = "go"
_ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
_BUILD_SECONDS: Final = 1_200


def tool(name: str) -> Path:
    """The program of this name.

    Raises:
        BuildError: Go can't build it.
    """
    package = TOOLS[name]
    target = cache() / "go" / f"{name}-{package.partition('@')[2]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            # Without file systems of snapshots that would link C libraries.
            _go("install", "-trimpath", "-ldflags=-s -w", "-tags=no_btrfs,no_devmapper,no_zfs", package, GOBIN=folder)
            shutil.move(Path(folder) / name, target)
    return target


def sources(name: str) -> Path:
    """The folder of a program's module, read-only."""
    return Path(json.loads(_go("mod", "download", "-json", TOOLS[name]))["Dir"])


def _go(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [_GO, *arguments], env=os.environ | _ENVIRONMENT | environment, cwd=tempfile.gettempdir(), capture_output=True,
        text=True, timeout=_BUILD_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"go {' '.join(arguments)}: {done.stderr[-2_000:]}")
    return done.stdout
