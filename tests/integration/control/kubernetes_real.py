"""The real API server for tests of the control plane, as its service account sees it in a pod.

etcd, API server and controllers are Kubernetes' own; see `tests.cluster`. The account, its rights and the Deployments are the
chart's. What stands in for nodes runs a Job's container as a process here; what goes wrong, a proxy does.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.charts.helm import CHART, NAMESPACE, named, of_kind, template
from tests.cluster.api import Object, path
from tests.cluster.background import Background
from tests.cluster.containers import start
from tests.cluster.faults import Faults
from tests.cluster.kubelet import Kubelet
from tests.cluster.namespaces import make, remove
from tests.cluster.proxy import Proxy
from tests.cluster.server import Server
from tests.cluster.waiting import eventually

_ACCOUNT: Final = "headrace-control-plane"
#: Field manager of what a release makes.
_HELM: Final = "helm"
#: As k8s/namespaces.yaml has it.
_STRICT: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
_PROGRESS_SECONDS: Final = 600


class Real:
    """A namespace on a real server, with the chart's accounts and rights.

    Args:
        server: it.
        folder: for what is mounted into the control plane's pod, and for the output of Jobs.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.account = folder
        self.environment: dict[str, str | None] = {}
        self.server = server
        self.api = server.api()
        self._tokens = 0
        self._background = Background()
        self._kubelet = Kubelet(server, NAMESPACE, self._start)
        self._proxy = Proxy(server, self._background)
        self._proxy.start()
        self.manifests = template(CHART, "--set", "jobs.executor=kubernetes")
        make(self.api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _STRICT}})
        for manifest in of_kind(self.manifests, "ServiceAccount", "Role", "RoleBinding"):
            self.api.apply(manifest, NAMESPACE, _HELM)
        authorities = path("configmaps", NAMESPACE, "kube-root-ca.crt")
        eventually(lambda: self.api.find(authorities), "the authority is published")
        (folder / "ca.crt").write_text(self.api.call("GET", authorities)["data"]["ca.crt"])
        self.replace_token()
        self._background.keep(self._kubelet.work())

    def close(self) -> None:
        """Take the namespace away, and all that is in it."""
        remove(self.api, NAMESPACE)
        self._proxy.close()
        self._background.close()
        self.api.close()

    # What tests set and see.

    @property
    def faults(self) -> Faults:
        """What goes wrong on the way to the server."""
        return self._proxy.faults

    @property
    def requests(self) -> list[str]:
        """What the control plane asked for."""
        return self._proxy.requests

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Of Jobs, by name."""
        return self._kubelet.processes

    @property
    def kubelet(self) -> bool:
        """Whether Jobs are run; else their pods stay pending."""
        return self._kubelet.takes

    @kubelet.setter
    def kubelet(self, takes: bool) -> None:
        self._kubelet.takes = takes

    @property
    def rolls(self) -> bool:
        """Whether new pods of Deployments become ready."""
        return self._kubelet.readies

    @rolls.setter
    def rolls(self, readies: bool) -> None:
        self._kubelet.readies = readies

    def roll(self) -> None:
        """Let Deployments come up, those included that wait."""
        self.rolls = True
        for deployment in self.all("deployments"):
            if deployment["spec"]["progressDeadlineSeconds"] != _PROGRESS_SECONDS:
                self._set(deployment["metadata"]["name"], progressDeadlineSeconds=_PROGRESS_SECONDS)
        self._background.do(self._kubelet.look())

    def settings(self) -> dict[str, str]:
        """Of a control plane that works on it, by the template of the chart."""
        file = self.account / "job-template.yaml"
        file.write_text(named(self.manifests, "ConfigMap", "headrace-job-template")["data"]["job-template.yaml"])
        return {
            "HEADRACE_EXECUTOR": "kubernetes",
            "HEADRACE_JOB_TEMPLATE": str(file),
            "HEADRACE_KUBERNETES_API": self._proxy.url,
            "HEADRACE_KUBERNETES_ACCOUNT": str(self.account),
        }

    def nodes_see(self, control_url: str) -> None:
        """Where Jobs find the control plane; the chart's Secrets are nowhere here."""
        self.environment = {
            "HEADRACE_CONTROL": control_url, "HEADRACE_SECRETS_DIR": None, "HEADRACE_API_KEY_FILE": None,
        }  # fmt: skip

    def all(self, what: str) -> list[Object]:
        """All objects of a resource."""
        return self.api.list(what, NAMESPACE)

    def accounts(self) -> list[str]:
        """Names of the release's service accounts."""
        return [m["metadata"]["name"] for m in of_kind(self.manifests, "ServiceAccount")]

    def job_of(self, run_id: str) -> Object | None:
        """The newest Job of a run."""
        of = [j for j in self.all("jobs") if j["metadata"].get("annotations", {}).get("headrace/run-id") == run_id]
        return max(of, key=lambda j: int(j["metadata"]["annotations"]["headrace/attempt"]), default=None)

    def deployment(self, name: str) -> Object:
        """The one of this name."""
        return self.api.call("GET", path("deployments", NAMESPACE, name))

    def add(self, what: str, thing: Object) -> None:
        """Make an object as a release does; of a Deployment, wait until it is up."""
        self.api.apply(thing, NAMESPACE, _HELM)
        if what == "deployments":
            wanted = thing["spec"]["replicas"]
            at = path(what, NAMESPACE, thing["metadata"]["name"])
            eventually(lambda: self.api.call("GET", at)["status"].get("availableReplicas") == wanted, f"{at} is up")

    def scale(self, name: str, replicas: int) -> None:
        """Have so many replicas of a Deployment, as somebody else."""
        self._set(name, replicas=replicas)

    def stall(self, name: str) -> None:
        """Let the time for the rollout of a Deployment be over."""
        self._set(name, progressDeadlineSeconds=1)

    def remove(self, what: str, name: str) -> None:
        """Take an object away as somebody else, at once; its process is killed."""
        at = path(what, NAMESPACE, name)
        self.api.delete(at)
        eventually(lambda: self.api.find(at) is None, f"{at} is gone")
        if name in self.processes:
            os.killpg(self.processes[name].pid, signal.SIGKILL)

    def replace_token(self) -> None:
        """Lay another token into the account's folder; the one before is refused from then on."""
        before = self._tokens
        self._tokens += 1
        name = f"token-{self._tokens}"
        holder = self.api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}, NAMESPACE)
        of = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": holder["metadata"]["uid"]}
        asked = {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": of},
        }  # fmt: skip
        at = path("serviceaccounts", NAMESPACE, _ACCOUNT)
        file = self.account / "token"
        old = file.read_text() if before else ""
        file.write_text(self.api.call("POST", f"{at}/token", asked)["status"]["token"])
        if before:
            self.api.delete(path("secrets", NAMESPACE, f"token-{before}"))
            with self.server.api(old) as api:
                eventually(lambda: api.status(path("pods", NAMESPACE)) == 401, "the old token is refused")

    def end_watches(self) -> None:
        """End all watches."""
        self._proxy.end_watches()

    def compact(self) -> None:
        """Forget what happened until now, and end all watches; the next must read everything anew.

        The API server keeps what happened last in its memory as well, so it is started anew.
        """
        self.server.kill_api()
        self.server.compact()
        self.server.start_api()

    def deafen(self) -> None:
        """Let the watches that there are hear of nothing more."""
        self._proxy.deafen()

    def _set(self, name: str, **spec: Any) -> None:
        self.api.merge(path("deployments", NAMESPACE, name), {"spec": spec})

    def _start(self, pod: Object) -> subprocess.Popen[bytes]:
        output = self.account / f"{pod['metadata']['name']}.log"
        return start(pod["spec"]["containers"][0], self.environment, output)
