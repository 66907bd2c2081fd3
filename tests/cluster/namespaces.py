"""Namespaces, made and taken away."""

from tests.cluster.api import Api, Object, path
from tests.cluster.waiting import eventually


def make(api: Api, manifest: Object) -> None:
    """Make one, when the one that had its name before is gone, and wait until pods can be made in it."""
    name = manifest["metadata"]["name"]
    whole = path("namespaces", name=name)
    eventually(lambda: api.find(whole) is None, f"{whole} is gone")
    api.apply(manifest)
    account = path("serviceaccounts", name, "default")
    eventually(lambda: api.find(account), f"{name} has an account")


def remove(api: Api, namespace: str) -> None:
    """Take one away with all that is in it; Kubernetes goes on with it by itself.

    Pods go first, by force, since nobody looks after them any more.
    """
    for resource in ("deployments", "statefulsets", "jobs"):
        api.delete(path(resource, namespace))
    pods = path("pods", namespace)

    def none_left() -> bool:
        api.call("DELETE", pods, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
        return not api.list("pods", namespace)

    eventually(none_left, f"{namespace} has no pods")
    api.delete(path("namespaces", name=namespace))
