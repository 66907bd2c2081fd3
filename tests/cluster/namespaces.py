"""The end of a namespace."""

from tests.cluster.api import Api, path
from tests.cluster.waiting import eventually


def remove(api: Api, namespace: str) -> None:
    """Take it away with all that is in it.

    Pods go first, by force: Kubernetes itself looks again for what ends gently after a quarter of a minute.
    """
    for resource in ("deployments", "statefulsets", "jobs"):
        api.delete(path(resource, namespace))
    pods = path("pods", namespace)

    def none_left() -> bool:
        api.call("DELETE", pods, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
        return not api.list("pods", namespace)

    eventually(none_left, f"{namespace} has no pods")
    whole = path("namespaces", name=namespace)
    api.delete(whole)
    eventually(lambda: api.find(whole) is None, f"{whole} is gone")
