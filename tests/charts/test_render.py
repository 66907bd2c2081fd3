"""Each file of values renders, and makes exactly these objects."""

from collections import Counter

import pytest

from tests.charts.helm import CHART, DEV_STORES, NAMESPACE, VALUES, helm, rendered, template

SERVICES = (
    "gateway", "feature-worker", "sample-joiner", "control-plane", "trainer", "model-validator", "model-server",
)  # fmt: skip
#: Objects of an installation by the values as they are.
DEFAULT = {
    *(f"ServiceAccount/headrace-{name}" for name in (*SERVICES, "init")),
    *(f"Service/headrace-{name}" for name in SERVICES),
    *(f"Deployment/headrace-{name}" for name in SERVICES if name != "model-server"),
    *(f"PodDisruptionBudget/headrace-{name}" for name in SERVICES),
    *(f"NetworkPolicy/headrace-{name}" for name in (*SERVICES, "init", "run")),
    "StatefulSet/headrace-model-server",
    "HorizontalPodAutoscaler/headrace-gateway",
    "PersistentVolumeClaim/headrace-models",
    "PersistentVolumeClaim/headrace-trainer",
    "ConfigMap/headrace-job-template",
    "Job/headrace-init",
    "ServiceAccount/headrace-run",
    "Role/headrace-control-plane",
    "RoleBinding/headrace-control-plane",
    "Secret/headrace-console-sessions",
}
#: What other values add to it (+) and leave out of it (-).
OTHER: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "development": (set(), set()),
    "small": (set(), {"HorizontalPodAutoscaler/headrace-gateway", "Secret/headrace-console-sessions"}),
    "large": (
        {"ScaledObject/headrace-feature-worker", "ScaledObject/headrace-sample-joiner", "ServiceMonitor/headrace"},
        set(),
    ),
    "bare": (
        set(),
        {
            "HorizontalPodAutoscaler/headrace-gateway",
            "ServiceAccount/headrace-run",
            "Role/headrace-control-plane",
            "RoleBinding/headrace-control-plane",
            *(n for n in DEFAULT if n.startswith("NetworkPolicy/")),
        },
    ),
    "object-store": (set(), {"PersistentVolumeClaim/headrace-models"}),
    "tensorflow-serving": (
        {"Deployment/headrace-model-server", "ConfigMap/headrace-model-server"},
        {"StatefulSet/headrace-model-server"},
    ),
}


@pytest.mark.parametrize("values", VALUES)
def test_values_pass_lint(values: str) -> None:
    done = helm("lint", "--strict", CHART, *(part for file in VALUES[values] for part in ("-f", file)))

    assert done.returncode == 0, done.stdout + done.stderr


def test_dev_stores_pass_lint() -> None:
    done = helm("lint", "--strict", DEV_STORES)

    assert done.returncode == 0, done.stdout + done.stderr


def inventory(values: str) -> list[str]:
    found = [f"{m['kind']}/{m['metadata']['name']}" for m in rendered()[values]]
    # Dashboards and rules are as many as there are files.
    return [name for name in found if not name.startswith(("PrometheusRule/", "ConfigMap/headrace-dashboard-"))]


@pytest.mark.parametrize("values", OTHER)
def test_makes_exactly_these_objects(values: str) -> None:
    more, less = OTHER[values]

    assert less <= DEFAULT
    assert Counter(inventory(values)) == Counter((DEFAULT - less) | more)


def test_everything_makes_one_of_each_kind_of_switch() -> None:
    kinds = {name.split("/")[0] for name in inventory("everything")}

    assert kinds == {name.split("/")[0] for name in DEFAULT} | {"ScaledObject", "ServiceMonitor", "Ingress"}


@pytest.mark.parametrize("values", VALUES)
def test_objects_belong_to_the_release(values: str) -> None:
    for manifest in rendered()[values]:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "headrace"
        assert labels["app.kubernetes.io/instance"] == "headrace"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert len(manifest["metadata"]["name"]) <= 63


def test_names_stay_within_bounds_whatever_the_release_is_called() -> None:
    manifests = template(
        CHART, "-f", CHART / "ci" / "everything.yaml", release="a-name.as-long-as-helm-takes-it-for-a-release-that-is"
    )

    for manifest in manifests:
        name = manifest["metadata"]["name"]
        # What pods' names add to their workload's has to fit, too.
        most = (
            52
            if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}
            else 253
            if manifest["kind"] in {"ConfigMap", "PrometheusRule"}
            else 63
        )
        assert len(name) <= most, name
        if manifest["kind"] == "Service":
            assert "." not in name


def test_notes_tell_where_acknowledged_events_can_be_lost() -> None:
    kept, lost = (
        helm("install", "headrace", CHART, "--dry-run=client", "--namespace", NAMESPACE, *arguments).stdout
        for arguments in ((), ("-f", CHART / "values-small.yaml"))
    )

    assert "ATTENTION" not in kept
    assert "with 1 replica(s) of a topic, a broker that is lost takes acknowledged events" in lost
