"""Who may speak to whom: NetworkPolicies let through exactly what the services need."""

from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.charts.helm import (
    CHART,
    Manifest,
    component,
    containers,
    environment,
    of_kind,
    rendered,
    template,
    workloads,
)

#: Whose settings lead to which other service.
CALLS: Final = {"HEADRACE_CONTROL": ("control-plane", 8090), "HEADRACE_MODEL_SERVER": ("model-server", 8500)}
STORES: Final = {"HEADRACE_KAFKA": 9092, "HEADRACE_POSTGRES": 5432, "HEADRACE_REDIS": 6379}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


@dataclass(frozen=True)
class Net:
    """What an installation lets through.

    Attributes:
        pods: labels of each kind of pod, by component.
        policies: the specification of the one policy that each has.
    """

    pods: dict[str, dict[str, str]]
    policies: dict[str, Manifest]

    def may(self, caller: str, callee: str, port: int) -> bool:
        """Whether a connection is let out and in."""
        out, into = self.policies[caller]["egress"], self.policies[callee].get("ingress", [])
        return lets(out, "to", self.pods[callee], port) and lets(into, "from", self.pods[caller], port)


def net(manifests: list[Manifest]) -> Net:
    pods = {name: w["spec"]["template"]["metadata"]["labels"] for name, w in workloads(manifests)}
    policies = {}
    for name, labels in pods.items():
        found = [p for p in of_kind(manifests, "NetworkPolicy") if matches(p["spec"]["podSelector"], labels)]
        assert len(found) == 1, name
        policies[name] = found[0]["spec"]
    return Net(pods, policies)


def lets(rules: list[Manifest], side: str, labels: dict[str, str] | None, port: int) -> bool:
    """Whether rules let a pod of the release (or, without labels, anyone) through at a port."""
    for rule in rules:
        if port not in {p["port"] for p in rule["ports"]}:
            continue
        peers = rule.get(side)
        if peers is None:
            return True
        if labels is not None and any(set(p) == {"podSelector"} and matches(p["podSelector"], labels) for p in peers):
            return True
    return False


@pytest.mark.parametrize("values", ["default", "tensorflow-serving"])
def test_services_reach_each_other_where_their_settings_lead_and_nowhere_else(values: str) -> None:
    manifests = rendered()[values]
    ports = {"control-plane": 8090, "model-server": 8500, "gateway": 8080}
    wanted = {
        (name, *CALLS[variable])
        for name, workload in workloads(manifests)
        for variable in environment(containers(workload)[0])
        if variable in CALLS
    }
    open_net = net(manifests)

    allowed = {
        (caller, callee, port)
        for caller in open_net.pods
        for callee, port in ports.items()
        if caller != callee and open_net.may(caller, callee, port)
    }

    # The gateway is open to everyone; from inside only the console looks at it.
    assert allowed == wanted | {("control-plane", "gateway", 8080)}


def test_console_reads_the_metrics_of_every_service() -> None:
    manifests = rendered()["default"]
    workload = next(w for name, w in workloads(manifests) if name == "control-plane")
    targets = environment(containers(workload)[0])["HEADRACE_CONSOLE_TARGETS"].split(",")

    assert len(targets) == 7
    for target in targets:
        name, port = target.split("=")[0], int(target.rsplit(":", 1)[1])
        if name != "control-plane":
            assert net(manifests).may("control-plane", name, port), name


def test_services_reach_the_stores_that_they_have_and_no_others() -> None:
    manifests = rendered()["default"]
    for name, workload in workloads(manifests):
        given = set(environment(containers(workload)[0]))
        for volume in workload["spec"]["template"]["spec"]["volumes"]:
            given |= {i["path"] for s in volume.get("projected", {}).get("sources", []) for i in s["secret"]["items"]}
        egress = net(manifests).policies[name]["egress"]
        open_ports = {store for store, port in STORES.items() if lets(egress, "to", None, port)}
        assert open_ports == set(STORES) & given, name


def test_nothing_enters_a_pod_that_does_not_listen() -> None:
    manifests = rendered()["everything"]

    for name in ("init", "run"):
        spec = net(manifests).policies[name]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in spec


def test_only_the_gateway_is_open_to_everyone() -> None:
    for manifest in of_kind(rendered()["default"], "NetworkPolicy"):
        anyone = [rule for rule in manifest["spec"].get("ingress", []) if not rule.get("from")]
        assert bool(anyone) == (component(manifest) == "gateway"), component(manifest)


def test_gateway_and_console_can_be_kept_to_some() -> None:
    manifests = rendered()["everything"]

    gateway = net(manifests).policies["gateway"]["ingress"]
    console = net(manifests).policies["control-plane"]["ingress"]

    assert [rule for rule in gateway if not rule.get("from")] == []
    assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in [peer for rule in console for peer in rule["from"]]


@pytest.mark.parametrize("executor", ["none", "kubernetes"])
def test_control_plane_reaches_kubernetes_only_to_run_jobs(executor: str) -> None:
    manifests = template(CHART, "--set", f"jobs.executor={executor}")
    egress = net(manifests).policies["control-plane"]["egress"]

    assert lets(egress, "to", None, 6443) == (executor == "kubernetes")


def test_names_are_resolved_in_kube_system_alone() -> None:
    for manifest in of_kind(rendered()["default"], "NetworkPolicy"):
        dns = next(rule for rule in manifest["spec"]["egress"] if {p["port"] for p in rule["ports"]} == {53})
        assert dns["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
