"""A control plane of Kubernetes: etcd, the API server and the controllers, as three processes on the loopback."""

import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.cluster.api import Api, Object, path
from tests.cluster.program import built

#: Those that what the chart makes needs. None that looks after nodes: there are none, see `tests.cluster.kubelet`.
CONTROLLERS: Final = (
    "clusterrole-aggregation-controller", "deployment-controller", "disruption-controller", "endpointslice-controller",
    "garbage-collector-controller", "job-controller", "namespace-controller", "persistentvolume-binder-controller",
    "persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller", "replicaset-controller",
    "resourcequota-controller", "root-ca-certificate-publisher-controller", "serviceaccount-controller",
    "statefulset-controller",
)  # fmt: skip
_READY_SECONDS: Final = 180.0


class Server:
    """The three processes.

    Args:
        folder: for data, certificate, tokens and logs.

    Attributes:
        program: all of it, and kubectl.
        url: of the API server, by TLS.
        authority: who signed its certificate, and the certificate; a file.
        key: of the certificate; a file.
        token: of an administrator.
        kubeconfig: the administrator's; a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.key = folder / "tls.crt", folder / "tls.key"
        self.kubeconfig = folder / "kubeconfig.json"
        self.program = built()
        self._etcd, self._peers, self._port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.token = secrets.token_hex(16)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start them, and wait until the API server is ready and namespaces are made usable."""
        self.certify(self.folder)
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f'{self.token},administrator,administrator,"system:masters"\n', encoding="ascii")
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(self.configuration(self.token)), encoding="ascii")
        etcd, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peers}"
        self._spawn(
            "etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        self.start_api()
        self._spawn(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}", "--secure-port=0", "--leader-elect=false",
            "--use-service-account-credentials=true", f"--service-account-private-key-file={self.key}",
            f"--root-ca-file={self.authority}", f"--controllers={','.join(CONTROLLERS)}",
        )  # fmt: skip
        with self.api() as api:
            account = path("serviceaccounts", "default", "default")
            self._wait(lambda: api.find(account) is not None, "the controllers have made an account")

    def certify(self, folder: Path) -> None:
        """Make a certificate of the loopback with an authority of its own: tls.crt and tls.key in a folder."""
        subprocess.run(["certificate", folder], executable=self.program, check=True)

    def start_api(self) -> None:
        """Start the API server, and wait until it is ready."""
        self._spawn(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self._port}", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC", "--anonymous-auth=false",
            f"--token-auth-file={self.folder / 'tokens.csv'}", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.key}", f"--service-account-signing-key-file={self.key}",
            f"--tls-cert-file={self.authority}", f"--tls-private-key-file={self.key}", f"--cert-dir={self.folder}",
        )  # fmt: skip
        with self.api() as api:

            def ready() -> bool:
                try:
                    return api.status("/readyz") == 200
                except httpx.RequestError:
                    return False

            self._wait(ready, "the API server is ready")

    def kill_api(self) -> None:
        """End the API server as a power cut does."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def compact(self) -> None:
        """Let etcd forget what was before now."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self._etcd}/v3/kv", timeout=30) as etcd:
            told = etcd.post("/range", json={"key": base64.b64encode(b"/").decode(), "limit": 1}).raise_for_status()
            revision = told.json()["header"]["revision"]
            etcd.post("/compaction", json={"revision": revision, "physical": True}).raise_for_status()

    def api(self, token: str = "") -> Api:
        """The API, as the administrator or as whoever has this token."""
        return Api(self.url, self.trust(), token or self.token)

    def trust(self) -> ssl.SSLContext:
        """For clients: trusts the authority of its certificate, and no other."""
        return ssl.create_default_context(cafile=str(self.authority))

    def configuration(self, token: str, namespace: str = "default") -> Object:
        """A kubeconfig."""
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": self.url, "certificate-authority": str(self.authority)}}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        }  # fmt: skip

    def close(self) -> None:
        """End them at once: nothing of theirs is kept."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        self._processes.clear()

    def log(self, part: str) -> str:
        """The end of a process's log."""
        return (self.folder / f"{part}.log").read_text(encoding="utf-8", errors="replace")[-4_000:]

    def _spawn(self, part: str, *arguments: str) -> None:
        with (self.folder / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                [part, *arguments], executable=self.program, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            )  # fmt: skip

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _READY_SECONDS
        while not holds():
            for part, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{part} has ended with {process.returncode}:\n{self.log(part)}")
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {_READY_SECONDS} s\n{self.log('kube-apiserver')}")
            time.sleep(0.1)


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A control plane that is ready, gone afterwards."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
