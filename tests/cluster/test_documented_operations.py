"""The commands of the pages on operations, run as they stand on a real API server."""

import base64
import json

import pytest

from tests.charts.helm import ROOT
from tests.cluster import documented
from tests.cluster.api import path
from tests.cluster.conftest import MakeInstallation
from tests.cluster.documented import commands
from tests.cluster.installation import Installation
from tests.cluster.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]


@pytest.fixture
def there(make_installation: MakeInstallation) -> Installation:
    """The namespace that the pages name."""
    return make_installation("headrace")


def install(there: Installation, values: str = "{}") -> None:
    """Do what the page on the installation tells."""
    there.values.write_text(values)
    for command in commands(documented.INSTALL):
        there.run(command)


def replicas(there: Installation) -> dict[str, int]:
    """Of each Deployment."""
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in there.all("deployments")}


def gateway(there: Installation) -> dict[str, str]:
    """Variables of the gateway."""
    (container,) = there.one("deployments", "headrace-gateway")["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_installation_is_up_when_its_last_command_ends(there: Installation) -> None:
    install(there)

    assert there.is_up()
    assert there.complaints() == []
    assert there.kubelet.done == ["headrace-init"]
    assert there.names("jobs") == set()  # the hook that went well is gone


def test_definitions_are_replaced_by_a_config_map(there: Installation) -> None:
    install(there)

    make, upgrade = commands(documented.DEFINITIONS)
    there.run(make)
    there.run(upgrade.replace("…", "headrace charts/headrace"))

    there.up()
    files = {file.name for file in (ROOT / "definitions" / "features").iterdir() if file.is_file()}
    assert set(there.one("configmaps", "our-features")["data"]) == files
    for one in there.all("pods"):
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "feature-worker":
            assert any(v.get("configMap", {}).get("name") == "our-features" for v in one["spec"]["volumes"])


def test_upgrade_runs_the_hook_and_rollback_brings_the_version_before(there: Installation) -> None:
    install(there)

    there.values.write_text("gateway: {settings: {max_event_age: 14d}}\nsampleJoiner: {replicas: 3}\n")
    (upgrade,) = commands(documented.UPGRADE)
    there.run(upgrade)
    upgraded = gateway(there), replicas(there)["headrace-sample-joiner"]
    there.run("helm rollback headrace")
    there.up()

    assert there.kubelet.done == ["headrace-init"] * 2
    assert (upgraded[0]["HEADRACE_MAX_EVENT_AGE"], upgraded[1]) == ("14d", 3)
    assert "HEADRACE_MAX_EVENT_AGE" not in gateway(there)
    assert replicas(there)["headrace-sample-joiner"] == 2


def sessions(there: Installation) -> str:
    """What signs the console's sessions, as it is stored."""
    (text,) = there.one("secrets", "headrace-console-sessions")["data"].values()
    return str(text)


def test_secret_of_the_console_is_made_once_and_kept(there: Installation) -> None:
    install(there)
    made = sessions(there)
    (upgrade,) = commands(documented.UPGRADE)

    there.run(upgrade)
    upgraded = sessions(there)
    there.run("helm rollback headrace")
    rolled_back = sessions(there)
    there.run("kubectl -n headrace delete secret headrace-console-sessions")
    there.run(upgrade)

    assert made == upgraded == rolled_back
    assert len(made) > 60
    assert sessions(there) != made


def test_secret_of_the_console_that_was_replaced_stays_so(there: Installation) -> None:
    install(there)
    (upgrade,) = commands(documented.UPGRADE)
    replaced = base64.b64encode(b"another long text, of whoever looks after it").decode()
    change = json.dumps({"data": {"secret": replaced}})

    there.run(f"kubectl -n headrace patch secret headrace-console-sessions -p '{change}'")
    there.run(upgrade)
    upgraded = sessions(there)
    there.run("helm rollback headrace")

    assert upgraded == sessions(there) == replaced


def test_release_whose_hook_fails_stays_as_it_was(there: Installation) -> None:
    install(there)
    before = there.one("deployments", "headrace-gateway")["spec"]

    there.values.write_text("gateway: {settings: {max_event_age: 14d}}\n")
    there.kubelet.fails = True
    (upgrade,) = commands(documented.UPGRADE)
    done = there.tried(upgrade)

    assert done.returncode != 0
    assert "headrace-init" in done.stderr
    assert there.one("deployments", "headrace-gateway")["spec"] == before
    assert there.names("jobs") == {"headrace-init"}  # kept for its log


def test_upgrade_sets_back_what_was_scaled_by_hand(there: Installation) -> None:
    install(there)
    there.run("kubectl scale deployment/headrace-trainer --replicas=0")
    by_hand = replicas(there)["headrace-trainer"]

    (upgrade,) = commands(documented.UPGRADE)
    there.run(upgrade)

    assert (by_hand, replicas(there)["headrace-trainer"]) == (0, 1)


def test_upgrade_stops_at_replicas_that_an_autoscaler_has_set(there: Installation) -> None:
    install(there)
    scale = f"{path('deployments', there.namespace, 'headrace-sample-joiner')}/scale"
    there.api.call("PUT", scale, there.api.call("GET", scale) | {"spec": {"replicas": 5}})

    (upgrade,) = commands(documented.UPGRADE)
    stopped = there.tried(upgrade)
    there.run(f"{upgrade} --force-conflicts")

    assert stopped.returncode != 0
    assert 'with subresource "scale" using apps/v1: .spec.replicas' in stopped.stderr
    assert replicas(there)["headrace-sample-joiner"] == 2


def test_upgrade_stops_at_replicas_that_the_control_plane_has_set(there: Installation) -> None:
    install(there)
    of = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: headrace-trainer}, spec: {replicas: 0}}"
    apply = "kubectl apply --server-side --force-conflicts --field-manager=headrace-scale -f -"
    assert there.tried(apply, of).returncode == 0

    (upgrade,) = commands(documented.UPGRADE)
    stopped = there.tried(upgrade)
    there.run(f"{upgrade} --force-conflicts")

    assert stopped.returncode != 0
    assert 'conflict with "headrace-scale"' in stopped.stderr
    assert ".spec.replicas" in stopped.stderr
    assert replicas(there)["headrace-trainer"] == 1


def test_model_servers_get_other_volumes_one_after_the_other(there: Installation) -> None:
    install(there)
    there.values.write_text("modelServer: {state: {size: 5Gi}}\n")
    (upgrade,) = commands(documented.UPGRADE)
    refused = there.tried(upgrade)
    pods = {p["metadata"]["name"]: p["metadata"]["uid"] for p in there.all("pods")}

    orphan, replace = commands(documented.VOLUMES)
    there.run(orphan)
    there.run(upgrade)
    kept = {p["metadata"]["name"]: p["metadata"]["uid"] for p in there.all("pods")}
    there.run(replace)
    there.up()

    assert "field is immutable" in refused.stderr
    assert kept == pods
    sizes = {
        c["metadata"]["name"]: c["spec"]["resources"]["requests"]["storage"]
        for c in there.all("persistentvolumeclaims")
    }
    assert sizes["state-headrace-model-server-0"] == "5Gi"
    assert sizes["state-headrace-model-server-1"] == "2Gi"


def test_restart_of_the_control_plane_outlives_an_upgrade(there: Installation) -> None:
    install(there)
    of = "{spec: {template: {metadata: {annotations: {headrace/run-id: flow.t.1}}}}}"
    of = f"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: headrace-trainer}}, {of[1:]}"
    assert there.tried("kubectl apply --server-side --field-manager=headrace-restart -f -", of).returncode == 0

    there.values.write_text("trainer: {settings: {train_threads: 2}}\n")
    (upgrade,) = commands(documented.UPGRADE)
    there.run(upgrade)

    template = there.one("deployments", "headrace-trainer")["spec"]["template"]
    assert template["metadata"]["annotations"]["headrace/run-id"] == "flow.t.1"
    assert {"name": "HEADRACE_TRAIN_THREADS", "value": "2"} in template["spec"]["containers"][0]["env"]


def test_restore_ends_everything_and_begins_it_again(there: Installation) -> None:
    install(there)
    before = replicas(there)

    (end,) = commands(documented.RESTORE_ENDS)
    there.run(end)
    none = replicas(there)
    (declare,) = commands(documented.RESTORE_DECLARED)
    there.run(declare)

    assert set(none.values()) == {0}
    assert replicas(there) == before | {"headrace-gateway": 0}  # an autoscaler's
    assert there.kubelet.done == ["headrace-init"] * 2


def test_removal_leaves_what_the_page_names(there: Installation) -> None:
    install(there)

    for command in commands(documented.REMOVE):
        there.run(command)

    eventually(lambda: not there.all("pods"), "all pods are gone")
    kinds = "all,cm,secret,sa,role,rolebinding,pvc,netpol,pdb,hpa"
    left = there.run(f"kubectl get {kinds} -l app.kubernetes.io/instance=headrace -o name").split()
    assert sorted(left) == [
        "persistentvolumeclaim/headrace-models", "secret/headrace-console-sessions", "serviceaccount/headrace-init",
    ]  # fmt: skip
    assert there.names("persistentvolumeclaims") == {"headrace-models"}


def test_examples_of_the_checkout_are_taken(there: Installation) -> None:
    files = " ".join(
        f"-f k8s/{file.name}" for file in sorted((ROOT / "k8s").glob("*.yaml")) if file.name != "kind.yaml"
    )

    told = there.run(f"kubectl apply --server-side --force-conflicts --validate=strict {files}")

    assert len(told.splitlines()) == 5
