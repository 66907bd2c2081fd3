"""Pods of the chart as containers of one machine: the chart's command, user, variables and mounts, the machine's network."""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from headrace_stack.images.docker import docker
from headrace_stack.layout import StackError

from tests.charts.helm import Manifest, containers, environment, pod

_SIZES: Final = {"Mi": "m", "Gi": "g"}


@dataclass(frozen=True)
class Pod:
    """A workload of the chart.

    Attributes:
        name: of the container.
        workload: as the chart renders it.
        files: folder that stands for each volume of a secret or a ConfigMap, by the volume's name.
        told: variables in place of the chart's, which name hosts of a cluster.
    """

    name: str
    workload: Manifest
    files: Mapping[str, Path]
    told: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def container(self) -> Manifest:
        """The first one."""
        return containers(self.workload)[0]

    @property
    def image(self) -> str:
        """That it runs."""
        return str(self.container["image"])

    def start(self) -> None:
        """Start it, and do not wait."""
        docker("run", "--detach", "--name", self.name, *self._arguments())

    def run(self) -> str:
        """Run it to its end; what it printed.

        Raises:
            StackError: it did not end well.
        """
        code, output = _printed("run", "--rm", "--name", self.name, *self._arguments())
        if code:
            raise StackError(f"{self.name} ended with {code}:\n{output}")
        return output

    def stop(self) -> int:
        """End it by SIGTERM as Kubernetes does, with its time to end; its exit code."""
        docker("stop", "--time", str(pod(self.workload)["terminationGracePeriodSeconds"]), self.name)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def remove(self) -> None:
        """End and forget it, if it is there."""
        docker("rm", "--force", self.name)

    def log(self, lines: int = 20) -> str:
        """Its last lines."""
        return _printed("logs", "--tail", str(lines), self.name)[1]

    def changed(self) -> set[str]:
        """Paths of its own file system that are not as in the image."""
        return {line.split(maxsplit=1)[1] for line in docker("diff", self.name).splitlines()}

    def mounts(self) -> set[str]:
        """Paths at which something is mounted."""
        return {mount["mountPath"] for mount in self.container["volumeMounts"]}

    def _arguments(self) -> list[str]:
        security, own = pod(self.workload)["securityContext"], self.container["securityContext"]
        told = ["--network", "host", "--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
        if own["readOnlyRootFilesystem"]:
            told.append("--read-only")
        if not own["allowPrivilegeEscalation"]:
            told += ["--security-opt", "no-new-privileges"]
        told += [f"--cap-drop={capability}" for capability in own["capabilities"]["drop"]]
        told += ["--memory", _bytes(self.container["resources"]["limits"]["memory"])]
        sizes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in pod(self.workload)["volumes"] if "emptyDir" in v}
        for mount in self.container["volumeMounts"]:
            name, path = mount["name"], mount["mountPath"]
            if name in sizes:
                told += ["--tmpfs", f"{path}:rw,mode=1777,size={_bytes(sizes[name])}"]
            else:
                told += ["--volume", f"{self.files[name] / mount.get('subPath', '')}:{path}:ro"]
        variables = {name: value for name, value in environment(self.container).items() if isinstance(value, str)}
        told += [part for name, value in {**variables, **self.told}.items() for part in ("--env", f"{name}={value}")]
        command, *arguments = self.container["command"]
        return [*told, "--entrypoint", command, self.image, *arguments]


def _printed(*arguments: str) -> tuple[int, str]:
    """Exit code of the command docker, and both streams of what it printed: services log to the second."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def _bytes(quantity: str) -> str:
    """A quantity of Kubernetes as Docker takes it."""
    match = re.fullmatch(r"(\d+)([MG]i)", quantity)
    assert match, quantity
    return match[1] + _SIZES[match[2]]


def config(image: str) -> dict[str, Any]:
    """What an image tells of itself."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]["Config"]
    return found
