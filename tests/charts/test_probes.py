"""Probes ask what the services answer, and a roll-out loses nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from headrace_core.settings import HeadraceSettings, TelemetrySettings
from headrace_core.telemetry import serve_metrics
from headrace_gateway.settings import GatewaySettings
from headrace_model_server.settings import ModelServerSettings

from tests.charts.helm import (
    CHART,
    ROOT,
    VALUES,
    Manifest,
    containers,
    environment,
    named,
    of_kind,
    pod,
    rendered,
    template,
    workloads,
)
from tests.charts.http import get

#: Which services answer by an application of FastAPI, and in which file its routes are; the others by core's own server.
APPLICATIONS = {
    "gateway": ROOT / "services/gateway/headrace_gateway/web/app.py",
    "control-plane": ROOT / "services/control_plane/headrace_control_plane/web/app.py",
}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def routes(file: Path) -> Iterator[str]:
    """Paths that functions of a file are decorated with: @app.get("/healthz", …)."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "app.get":
                    yield ast.literal_eval(decorator.args[0])


def services(values: str) -> list[tuple[str, Manifest]]:
    """Workloads that stay, but for TensorFlow's server, which is none of ours."""
    return [
        (name, workload)
        for name, workload in workloads(rendered()[values])
        if workload["kind"] != "Job" and not (name == "model-server" and values == "tensorflow-serving")
    ]


@pytest.mark.parametrize("values", VALUES)
def test_liveness_asks_for_life_and_readiness_for_what_can_be_served(values: str) -> None:
    for name, workload in services(values):
        container = containers(workload)[0]
        paths = {probe: container[probe]["httpGet"]["path"] for probe in PROBES}
        assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}, name


@pytest.mark.parametrize(("service", "file"), APPLICATIONS.items(), ids=APPLICATIONS)
def test_applications_have_the_routes_that_are_asked(service: str, file: Path) -> None:
    workload = named(rendered()["default"], "Deployment", f"headrace-{service}")
    asked = {containers(workload)[0][probe]["httpGet"]["path"] for probe in PROBES}
    scraped = workload["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]

    assert asked | {scraped} <= set(routes(file))


def test_workers_answer_the_routes_that_are_asked() -> None:
    missing: list[str] = ["partitions"]
    port = serve_metrics(TelemetrySettings(metrics_port=0), lambda: missing[0] if missing else None)

    waiting = [get(port, path)[0] for path in ("/healthz", "/readyz", "/metrics")]
    missing.clear()
    ready, body = get(port, "/readyz")

    assert waiting == [200, 503, 200]
    assert (ready, body) == (200, b'{"status": "ready"}')
    assert get(port, "/health")[0] == 404


@pytest.mark.parametrize("values", VALUES)
def test_probes_scrapes_and_services_name_ports_at_which_the_service_listens(values: str) -> None:
    manifests = rendered()[values]
    for name, workload in services(values):
        container = containers(workload)[0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        given = environment(container)
        listens = {int(given[variable]) for variable in given if variable.endswith("_PORT")}
        assert set(ports.values()) == listens, name
        assert all(given[v] == "0.0.0.0" for v in given if v.endswith("_HOST")), name
        assert {container[probe]["httpGet"]["port"] for probe in PROBES} <= set(ports), name
        scraped = workload["spec"]["template"]["metadata"]["annotations"].get("prometheus.io/port")
        assert scraped is None or int(scraped) == ports[container["readinessProbe"]["httpGet"]["port"]], name
        service = named(manifests, "Service", workload["metadata"]["name"])
        assert {p["targetPort"]: p["port"] for p in service["spec"]["ports"]} == ports, name


@pytest.mark.parametrize("values", VALUES)
def test_monitors_scrape_ports_that_services_name(values: str) -> None:
    manifests = rendered()[values]
    ports = {p["name"] for s in of_kind(manifests, "Service") for p in s["spec"]["ports"]}

    for monitor in of_kind(manifests, "ServiceMonitor"):
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == ports - {"grpc"}


@pytest.mark.parametrize("values", VALUES)
def test_selectors_meet_the_pods_of_one_workload(values: str) -> None:
    manifests = rendered()[values]
    pods = {name: workload["spec"]["template"]["metadata"]["labels"] for name, workload in workloads(manifests)}
    selectors = [
        *((s["metadata"]["name"], s["spec"]["selector"]) for s in of_kind(manifests, "Service")),
        *((p["metadata"]["name"], p["spec"]["selector"]["matchLabels"]) for p in of_kind(manifests, "PodDisruptionBudget")),
        *((w["metadata"]["name"], w["spec"]["selector"]["matchLabels"]) for w in of_kind(manifests, "Deployment", "StatefulSet")),
    ]  # fmt: skip

    for name, selector in selectors:
        met = [pod for pod, labels in pods.items() if selector.items() <= labels.items()]
        assert len(met) == 1, name
        assert name.endswith(met[0]), name


#: Who finishes what is open: twice so long at most, see the settings.
DRAINED = [
    ("gateway", GatewaySettings, "gateway_drain_ms"),
    ("model-server", ModelServerSettings, "model_server_drain_ms"),
]


def grace(manifests: list[Manifest], name: str) -> tuple[int, int]:
    """Seconds before SIGTERM, and seconds from it to SIGKILL."""
    workload = next(w for n, w in workloads(manifests) if n == name)
    sleep = containers(workload)[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return sleep, pod(workload)["terminationGracePeriodSeconds"] - sleep


@pytest.mark.parametrize("name", ["gateway", "control-plane", "model-server"])
def test_who_is_called_is_forgotten_by_callers_before_it_ends(name: str) -> None:
    sleep, _ = grace(rendered()["default"], name)

    assert sleep >= 5


@pytest.mark.parametrize(("name", "cls", "field"), DRAINED)
def test_who_drains_has_time_for_it(name: str, cls: type[HeadraceSettings], field: str) -> None:
    _, left = grace(rendered()["default"], name)

    assert left * 1000 >= 2 * cls.model_fields[field].default + 5_000


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, _, field in DRAINED])
def test_who_is_given_longer_to_drain_is_killed_later(name: str, field: str) -> None:
    key = {"gateway": "gateway", "model-server": "modelServer"}[name]

    _, left = grace(template(CHART, "--set", f"{key}.settings.{field}=90000"), name)

    assert left >= 2 * 90 + 5


@pytest.mark.parametrize("name", ["gateway", "control-plane"])
def test_roll_out_ends_no_pod_before_the_next_is_ready(name: str) -> None:
    workload = named(rendered()["default"], "Deployment", f"headrace-{name}")

    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("name", ["feature-worker", "sample-joiner"])
def test_roll_out_of_workers_needs_no_more_replicas_than_there_are_partitions(name: str) -> None:
    workload = named(rendered()["default"], "Deployment", f"headrace-{name}")

    assert workload["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_trainer_ends_before_the_next_begins_and_keeps_its_state() -> None:
    manifests = rendered()["default"]
    workload = named(manifests, "Deployment", "headrace-trainer")
    state = environment(containers(workload)[0])["HEADRACE_TRAIN_STATE"]
    mount = next(m for m in containers(workload)[0]["volumeMounts"] if m["mountPath"] == state)
    claim = next(v for v in pod(workload)["volumes"] if v["name"] == mount["name"])["persistentVolumeClaim"][
        "claimName"
    ]

    assert workload["spec"]["strategy"] == {"type": "Recreate"}
    assert workload["spec"]["replicas"] == 1
    assert named(manifests, "PersistentVolumeClaim", claim)


def test_model_server_finds_what_it_served() -> None:
    workload = named(rendered()["default"], "StatefulSet", "headrace-model-server")
    state = environment(containers(workload)[0])["HEADRACE_MODEL_SERVER_STATE"]
    mount = next(m for m in containers(workload)[0]["volumeMounts"] if m["mountPath"] == state)

    assert mount["name"] in {c["metadata"]["name"] for c in workload["spec"]["volumeClaimTemplates"]}
    assert workload["spec"]["serviceName"] in {m["metadata"]["name"] for m in of_kind(rendered()["default"], "Service")}


@pytest.mark.parametrize("values", sorted(set(VALUES) - {"tensorflow-serving"}))
def test_model_server_asks_for_what_gateways_ask_it_for(values: str) -> None:
    given = {name: environment(containers(workload)[0]) for name, workload in workloads(rendered()[values])}

    assert given["model-server"]["HEADRACE_MODEL_SERVER_FOLLOWS"] == given["gateway"]["HEADRACE_MODEL"]
    assert given["model-server"]["HEADRACE_CONTROL"] == given["gateway"]["HEADRACE_CONTROL"]
    assert given["model-server"]["HEADRACE_MODELS"] == given["model-validator"]["HEADRACE_MODELS"]


def test_models_and_topics_outlive_an_uninstall() -> None:
    claim = named(rendered()["default"], "PersistentVolumeClaim", "headrace-models")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("values", VALUES)
def test_schema_and_topics_come_before_the_pods_of_a_version(values: str) -> None:
    job = next(m for m in of_kind(rendered()[values], "Job"))

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert containers(job)[0]["command"] == ["headrace-init"]


@pytest.mark.parametrize("values", set(VALUES) - {"small"})
def test_acknowledged_means_two_of_three_brokers_have_it(values: str) -> None:
    job = next(m for m in of_kind(rendered()[values], "Job"))

    # Topics are created with one replica less than these as min.insync.replicas, and producers wait for all in sync.
    assert int(environment(containers(job)[0])["HEADRACE_REPLICATION"]) >= 3


@pytest.mark.parametrize("values", VALUES)
def test_lag_is_read_of_the_group_that_a_worker_has(values: str) -> None:
    for scaled in of_kind(rendered()[values], "ScaledObject"):
        target = named(rendered()[values], "Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        given = environment(containers(target)[0])
        service = containers(target)[0]["name"]
        trigger = next(t["metadata"] for t in scaled["spec"]["triggers"] if t["type"] == "kafka")

        assert trigger["consumerGroup"] == f"{given.get('HEADRACE_GROUP_PREFIX', 'headrace')}.{service}"
        assert trigger["bootstrapServers"] == given["HEADRACE_KAFKA"]
        assert "replicas" not in target["spec"]


@pytest.mark.parametrize("values", VALUES)
def test_what_scales_itself_is_given_no_replicas(values: str) -> None:
    manifests = rendered()[values]
    scaled = {
        m["spec"]["scaleTargetRef"]["name"] for m in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    }

    for workload in of_kind(manifests, "Deployment", "StatefulSet"):
        assert ("replicas" not in workload["spec"]) == (workload["metadata"]["name"] in scaled)
