"""A namespace for a release, and a shell in which its administrator works."""

import json
import os
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from headrace_stack.helm import binary

from tests.charts.helm import ROOT
from tests.charts.test_kubernetes import CUSTOM
from tests.cluster.api import Api, Object, path
from tests.cluster.background import Background
from tests.cluster.kubelet import Kubelet
from tests.cluster.namespaces import make, remove
from tests.cluster.program import built
from tests.cluster.server import Server
from tests.cluster.waiting import eventually

#: What the page on the installation tells to make first, without the examples of custom resources.
NAMESPACE_FILE: Final = ROOT / "k8s" / "namespaces.yaml"
#: Volumes that somebody provides, for each installation.
_VOLUMES: Final = 8
#: What an administrator's folder holds of the checkout.
_CHECKOUT: Final = ("charts", "k8s", "definitions")


class Installation:
    """A namespace of which Kubernetes admits only restricted pods, whose pods become ready and whose Jobs succeed at once.

    Args:
        server: of the cluster.
        namespace: its name.
        folder: to work in; holds charts/, k8s/ and definitions/ as a checkout does.

    Attributes:
        kubelet: what stands in for nodes.
        values: the file our-values.yaml.
    """

    def __init__(self, server: Server, namespace: str, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder / namespace
        self.values = self.folder / "our-values.yaml"
        self.api = server.api()
        self.kubelet = Kubelet(server, namespace)
        self._server = server
        self._volumes = [f"{namespace}-{uuid.uuid4().hex[:8]}" for _ in range(_VOLUMES)]
        self._background = Background()
        self._environment = self._laid_out()

    def __enter__(self) -> Self:
        namespace: Object = yaml.safe_load(NAMESPACE_FILE.read_text(encoding="utf-8"))
        namespace["metadata"]["name"] = self.namespace
        make(self.api, namespace)
        for volume in self._volumes:
            self.api.apply(_volume(volume))
        self._background.keep(self.kubelet.work())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        remove(self.api, self.namespace)
        for volume in self._volumes:
            self.api.delete(path("persistentvolumes", name=volume))
        self._background.close()
        self.api.close()

    def run(self, command: str) -> str:
        """What a command of the shell prints.

        Raises:
            AssertionError: it failed, with what it said.
        """
        done = self.tried(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def tried(self, command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """A command of the shell that may fail, with a text for it to read."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.folder, env=self._environment, input=text,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    def all(self, resource: str) -> list[Object]:
        """All objects of a resource."""
        return self.api.list(resource, self.namespace)

    def one(self, resource: str, name: str) -> Object:
        """The one of this name."""
        return self.api.call("GET", path(resource, self.namespace, name))

    def names(self, resource: str) -> set[str]:
        """Of all objects of a resource."""
        return {one["metadata"]["name"] for one in self.all(resource)}

    def up(self) -> None:
        """Wait until every replica is available, and no pod but theirs is there."""
        eventually(self.is_up, "all replicas are available")

    def is_up(self) -> bool:
        """Whether it is so now."""
        workloads = [*self.all("deployments"), *self.all("statefulsets")]
        wanted = sum(w["spec"]["replicas"] for w in workloads)
        seen = all(w["status"].get("observedGeneration") == w["metadata"]["generation"] for w in workloads)
        ready = all(
            w["status"].get("availableReplicas", 0)
            == w["status"].get("updatedReplicas", 0)
            == w["status"].get("replicas", 0)
            == w["spec"]["replicas"]
            for w in workloads
        )
        return bool(workloads) and seen and ready and len(self.all("pods")) == wanted

    def complaints(self) -> list[str]:
        """Why pods could not be made."""
        return [
            f"{e['involvedObject']['name']}: {e['message']}"
            for e in self.all("events")
            if e["reason"] == "FailedCreate"
        ]

    def _laid_out(self) -> dict[str, str]:
        self.folder.mkdir()
        for name in _CHECKOUT:
            (self.folder / name).symlink_to(ROOT / name)
        programs = self.folder / "programs"
        programs.mkdir()
        (programs / "helm").symlink_to(binary())
        (programs / "kubectl").symlink_to(built())
        configuration = self.folder / "kubeconfig.json"
        configuration.touch(0o600)
        told = self._server.configuration(self._server.token, self.namespace)
        configuration.write_text(json.dumps(told), encoding="ascii")
        homes = {f"HELM_{part}_HOME": str(self.folder / "helm" / part.lower()) for part in ("CACHE", "CONFIG", "DATA")}
        return {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder), "KUBECONFIG": str(configuration),
            **homes,
        }  # fmt: skip


def _volume(name: str) -> Object:
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "500Gi"}, "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": f"/nowhere/{name}"},
        },
    }  # fmt: skip


def custom_resources(api: Api) -> None:
    """Define those of `tests/charts/custom_resources`, which checks their fields, and a class of priorities."""
    at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = []
    for file in sorted(CUSTOM.glob("*.json")):
        kind, _, version = file.stem.partition("-")
        group, _, version = version.rpartition("-")
        proper = {"kafkanodepool": "KafkaNodePool", "prometheusrule": "PrometheusRule", "scaledobject": "ScaledObject"}
        proper["servicemonitor"] = "ServiceMonitor"
        names = {"plural": f"{kind}s", "singular": kind, "kind": proper.get(kind, kind.capitalize())}
        anything: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        told = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{kind}s.{group}"},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [told]},
        }  # fmt: skip
        api.call("POST", at, definition)
        made.append(f"{at}/{kind}s.{group}")
    for one in made:
        eventually(lambda one=one: _established(api.call("GET", one)), f"{one} is established")  # type: ignore[misc]
    high = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
    api.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", high)


def _established(definition: Object) -> bool:
    conditions = definition.get("status", {}).get("conditions", [])
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
