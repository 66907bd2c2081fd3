"""The charts on a real API server: it takes every manifest, admits every pod, and goes from one set of values to another."""

import pytest

from tests.charts.helm import CHART, VALUES
from tests.cluster.conftest import MakeInstallation
from tests.cluster.installation import Installation

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]

_FILES = {
    name: " ".join(f"-f {file.relative_to(CHART.parents[1])}" for file in files) for name, files in VALUES.items()
}


def refused(there: Installation, rendered: str) -> str:
    """What the server would refuse of manifests; a field that it does not know is enough."""
    return there.tried(f"{rendered} | kubectl apply --server-side --dry-run=server --validate=strict -f -").stderr


@pytest.mark.parametrize("values", VALUES)
def test_server_takes_every_manifest_and_admits_every_pod(make_installation: MakeInstallation, values: str) -> None:
    there = make_installation(f"values-{values}")
    files = _FILES[values]

    said = refused(there, f"helm template headrace charts/headrace {files}")
    there.run(f"helm install headrace charts/headrace {files}")

    assert said == ""
    there.up()
    assert there.complaints() == []
    assert [name.removesuffix("-init").endswith(("headrace", "recommender")) for name in there.kubelet.done] == [True]


@pytest.mark.parametrize("options", ["", "--set objects.enabled=true"])
def test_server_takes_the_stores_for_one_machine(make_installation: MakeInstallation, options: str) -> None:
    there = make_installation("stores")

    said = refused(there, f"helm template headrace-dev-stores charts/headrace-dev-stores {options}")
    there.run(f"helm install headrace-dev-stores charts/headrace-dev-stores {options}")

    assert said == ""
    there.up()
    assert there.complaints() == []


def test_server_refuses_what_it_does_not_know(make_installation: MakeInstallation) -> None:
    there = make_installation("unknown")

    said = refused(
        there, "helm template headrace charts/headrace | sed 's/revisionHistoryLimit/revisionHistoryLimits/'"
    )

    assert "field not declared in schema" in said or 'unknown field "spec.revisionHistoryLimits"' in said


def test_namespace_refuses_a_pod_that_may_become_root(make_installation: MakeInstallation) -> None:
    there = make_installation("root")

    said = refused(there, "kubectl run root --image=none --dry-run=client -o yaml")

    assert 'violates PodSecurity "restricted:latest"' in said


def test_release_goes_from_one_set_of_values_to_another_and_back(make_installation: MakeInstallation) -> None:
    there = make_installation("changes")
    there.run("helm install headrace charts/headrace")
    there.up()
    before = there.one("deployments", "headrace-gateway")["spec"]["template"]

    for number, values in enumerate(("bare", "object-store", "secured", "tensorflow-serving", "default"), 2):
        there.run(f"helm upgrade headrace charts/headrace {_FILES[values]}")
        assert there.run("helm list -o json").count(f'"revision":"{number}"') == 1
        there.up()
    there.run("helm rollback headrace 3")
    there.up()
    server = there.one("statefulsets", "headrace-model-server")
    there.run("helm rollback headrace 1")
    there.up()

    assert there.complaints() == []
    assert "s3://headrace-models/production" in str(server)
    assert there.one("deployments", "headrace-gateway")["spec"]["template"] == before
