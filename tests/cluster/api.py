"""The API of Kubernetes for tests, as whoever holds a token."""

import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

Object = dict[str, Any]

#: Resources by kind, of what tests make or look at; those that belong to no namespace are in `_CLUSTER`.
RESOURCES: Final = {
    "ConfigMap": "configmaps", "Deployment": "deployments", "Event": "events", "Job": "jobs", "Namespace": "namespaces",
    "PersistentVolume": "persistentvolumes", "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods",
    "ResourceQuota": "resourcequotas", "Role": "roles", "RoleBinding": "rolebindings", "Secret": "secrets",
    "ServiceAccount": "serviceaccounts", "StatefulSet": "statefulsets",
}  # fmt: skip
_CLUSTER: Final = {"Namespace", "PersistentVolume"}
_APIS: Final = {
    "deployments": "/apis/apps/v1", "statefulsets": "/apis/apps/v1", "jobs": "/apis/batch/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1", "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
}  # fmt: skip
#: Whoever tests make things as.
MANAGER: Final = "tests"


class RefusedError(Exception):
    """The server's no.

    Attributes:
        status: of HTTP.
        document: its answer, of the kind Status.
    """

    def __init__(self, status: int, document: Object) -> None:
        super().__init__(f"{status} {document.get('message', document)}")
        self.status, self.document = status, document


def path(resource: str, namespace: str | None = None, name: str | None = None) -> str:
    """Where objects of a resource are, or the one of this name."""
    parts = [_APIS.get(resource, "/api/v1")]
    parts += ["namespaces", namespace] if namespace else []
    return "/".join([*parts, resource, *([name] if name else [])])


def path_of(manifest: Object, namespace: str) -> str:
    """Where a manifest's object is."""
    kind = manifest["kind"]
    return path(RESOURCES[kind], None if kind in _CLUSTER else namespace, manifest["metadata"]["name"])


def read(answer: httpx.Response) -> Object:
    """What an answer holds.

    Raises:
        RefusedError: it is no.
    """
    try:
        told: Object = answer.json()
    except json.JSONDecodeError:
        told = {"message": answer.text}
    if answer.is_error:
        raise RefusedError(answer.status_code, told)
    return told


class Api:
    """Calls that wait for their answer."""

    def __init__(self, url: str, trust: ssl.SSLContext, token: str) -> None:
        self._client = httpx.Client(
            base_url=url, verify=trust, headers={"authorization": f"Bearer {token}"}, timeout=30
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def call(
        self,
        method: str,
        at: str,
        body: Object | None = None,
        kind: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> Object:
        """The answer.

        Raises:
            RefusedError: it is no.
        """
        content = None if body is None else json.dumps(body)
        return read(self._client.request(method, at, content=content, params=params, headers={"content-type": kind}))

    def status(self, at: str) -> int:
        """Of HTTP, that reading something is answered with."""
        return self._client.get(at).status_code

    def find(self, at: str) -> Object | None:
        """An object, None if there is none."""
        try:
            return self.call("GET", at)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, resource: str, namespace: str | None = None) -> list[Object]:
        """All objects of a resource."""
        items: list[Object] = self.call("GET", path(resource, namespace))["items"]
        return items

    def apply(self, manifest: Object, namespace: str = "", manager: str = MANAGER, *, force: bool = True) -> Object:
        """Server-side apply, by force if need be; a field that the server does not know is refused."""
        params = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return self.call("PATCH", path_of(manifest, namespace), manifest, "application/apply-patch+yaml", params)

    def merge(self, at: str, fields: Object) -> Object:
        """Set fields of an object."""
        return self.call("PATCH", at, fields, "application/merge-patch+json", {"fieldManager": MANAGER})

    def delete(self, at: str, propagation: str = "Background") -> None:
        """Delete an object, if it is there."""
        try:
            self.call("DELETE", at, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation})
        except RefusedError as refused:
            if refused.status != 404:
                raise
