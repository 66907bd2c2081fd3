"""Values: the schema knows every one, says what is wrong by its name, and takes settings from where they are written."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import Any, Final

import jsonschema
import pytest
import yaml
from headrace_core.web.keys import ADMIN, digest_of, parse
from headrace_stack import chart_schema
from headrace_stack.reference import settings_classes
from pydantic import SecretStr

from tests.charts.helm import (
    CHART,
    DEV_STORES,
    ROOT,
    VALUES,
    Manifest,
    containers,
    environment,
    helm,
    job_template,
    named,
    of_kind,
    rendered,
    template,
    workloads,
)

SCHEMAS: Final = {chart.name: chart / "values.schema.json" for chart in (CHART, DEV_STORES)}

#: Fields that mean nothing in a cluster: the process manager is the embedded stack's, and who has an HTTP port of its own
#: shows its metrics there.
UNUSED: Final = {
    "init": {"metrics_host", "metrics_port"},
    "gateway": {"metrics_host", "metrics_port"},
    "control-plane": {"metrics_host", "metrics_port", "process_manager"},
}

#: Given as files, never as values.
KEYS: Final = {"api_key", "api_keys"}

#: A value that is refused (by its path, as JSON), and what the refusal names.
WRONG: Final[tuple[tuple[str, Any, str], ...]] = (
    ("gatewayy", {}, "gatewayy"),
    ("gateway.replica", 2, "replica"),
    ("gateway.replicas", 0, "/gateway/replicas"),
    ("gateway.replicas", "two", "/gateway/replicas"),
    ("gateway.replicas", 1.5, "/gateway/replicas"),
    ("gateway.replicas", None, "replicas"),
    ("gateway.image", "Registry/Gateway Image", "/gateway/image"),
    ("gateway.autoscaling.cpuPercent", 0, "/gateway/autoscaling/cpuPercent"),
    ("gateway.autoscaling.cpuPercent", 101, "/gateway/autoscaling/cpuPercent"),
    ("gateway.autoscaling.minReplicas", 0, "/gateway/autoscaling/minReplicas"),
    ("gateway.autoscaling.minReplicas", 20, "gateway.autoscaling: minReplicas 20 is more than maxReplicas 10"),
    ("gateway.autoscaling.lag", {"enabled": True, "threshold": 1}, "lag"),
    ("gateway.settings.max_requests", 0, "/gateway/settings/max_requests"),
    ("gateway.settings.max_requests", "512", "/gateway/settings/max_requests"),
    ("gateway.settings.max_event_age", "a week", "/gateway/settings/max_event_age"),
    ("gateway.settings.explore", 1, "/gateway/settings/explore"),
    ("gateway.settings.max_reqests", 10, "max_reqests"),
    ("gateway.settings.redis", "redis://:password@host/0", "redis"),
    ("gateway.settings.gateway_port", 80, "gateway_port"),
    ("gateway.environment.HEADRACE_REDIS", "redis://:password@host/0", "HEADRACE_REDIS"),
    ("gateway.environment.lower", "x", "lower"),
    ("gateway.environment.NUMBER", 1, "/gateway/environment/NUMBER"),
    ("gateway.podAnnotations.key", True, "/gateway/podAnnotations/key"),
    ("gateway.service.type", "Loadbalancer", "/gateway/service/type"),
    ("gateway.ingress.enabled", True, "/gateway/ingress/host"),
    ("gateway.resources.requests.memory", "1 GB", "/gateway/resources/requests/memory"),
    ("gateway.resources.requests.cpu", 1, "/gateway/resources/requests/cpu"),
    ("gateway.resources.limits.memory", None, "memory"),
    ("gateway.tmp", "lots", "/gateway/tmp"),
    ("gateway.scheduling.tolerations", [{"operator": "Is"}], "/gateway/scheduling/tolerations/0/operator"),
    ("gateway.scheduling.tolerations", [{"toleration": "a"}], "toleration"),
    ("gateway.scheduling.nodeSelector", {"pool": 1}, "/gateway/scheduling/nodeSelector/pool"),
    ("gateway.scheduling.affinity", {"nodeAfinity": {}}, "nodeAfinity"),
    ("featureWorker.replicas", 13, "featureWorker: 13 replicas share 12 partitions"),
    ("sampleJoiner.autoscaling", {"enabled": True, "maxReplicas": 13}, "sampleJoiner: 13 replicas share 12 partitions"),
    ("sampleJoiner.autoscaling.lag.threshold", 0, "/sampleJoiner/autoscaling/lag/threshold"),
    ("sampleJoiner.settings.attribution_window_ms", 10, "/sampleJoiner/settings/attribution_window_ms"),
    ("sampleJoiner.settings.replica", "a", "replica"),
    ("controlPlane.autoscaling", {"enabled": True}, "autoscaling"),
    ("controlPlane.settings.process_manager", "tcp://127.0.0.1:1", "process_manager"),
    ("trainer.replicas", 2, "replicas"),
    ("trainer.state.size", "10", "/trainer/state/size"),
    ("modelServer.kind", "triton", "/modelServer/kind"),
    ("modelServer.tensorflowServing.image", "", "/modelServer/tensorflowServing/image"),
    ("kafka.bootstrapServers", "", "/kafka/bootstrapServers"),
    ("kafka.bootstrapServers", "kafka", "/kafka/bootstrapServers"),
    ("kafka.replication", 2, "kafka.replication: 2 replicas lose what was acknowledged"),
    ("kafka.replication", 0, "/kafka/replication"),
    ("kafka.partitions", 0, "/kafka/partitions"),
    ("kafka.security.protocol", "SASL", "/kafka/security/protocol"),
    ("kafka.security.protocol", "SASL_SSL", "/kafka/security/user"),
    ("kafka.security", {"protocol": "SASL_SSL", "user": "headrace"}, "/kafka/security/password/existingSecret"),
    ("kafka.security.mechanism", "GSSAPI", "/kafka/security/mechanism"),
    ("kafka.security.password", "secret", "/kafka/security/password"),
    ("postgres.existingSecret", "", "/postgres/existingSecret"),
    ("postgres.password", "secret", "password"),
    ("redis.key", "the url", "/redis/key"),
    ("apiKeys.existingSecret", "", "/apiKeys/existingSecret"),
    ("apiKeys.own.key", "my key", "/apiKeys/own/key"),
    ("consoleSecret.key", "my key", "/consoleSecret/key"),
    ("consoleSecret.secret", "abc", "secret"),
    ("workflows.shipped", "yes", "/workflows/shipped"),
    ("models.url", "/var/lib/models", "/models/url"),
    ("models.url", "file:///somewhere/else", "models.url: file:///somewhere/else is no mounted folder"),
    ("models.volume.accessMode", "ReadOnlyMany", "/models/volume/accessMode"),
    ("definitions.configMaps.feature", "ours", "feature"),
    ("logging.level", "debug", "/logging/level"),
    ("image.pullPolicy", "Sometimes", "/image/pullPolicy"),
    ("image.prefix", "headrace", "/image/prefix"),
    ("image.tag", "a tag", "/image/tag"),
    ("jobs.executor", "argo", "/jobs/executor"),
    ("jobs.deadlineSeconds", 1, "/jobs/deadlineSeconds"),
    ("networkPolicy.gatewayFrom", [{}], "/networkPolicy/gatewayFrom/0"),
    ("networkPolicy.gatewayFrom", [{"ipBlock": {"cidr": "10.0.0.1"}}], "/networkPolicy/gatewayFrom/0/ipBlock/cidr"),
    ("networkPolicy.outside.kafka.ports", [], "/networkPolicy/outside/kafka/ports"),
    ("networkPolicy.outside.kafka.ports", [70000], "/networkPolicy/outside/kafka/ports/0"),
    ("monitoring.serviceMonitor.interval", "15", "/monitoring/serviceMonitor/interval"),
    ("monitoring.dashboard", {}, "dashboard"),
)  # fmt: skip


@cache
def refusals() -> list[tuple[int, str]]:
    """Exit code and message for each wrong value; Helm is run for two at the same time."""

    def try_one(wrong: tuple[str, Any, str]) -> tuple[int, str]:
        path, value, _ = wrong
        done = helm("template", "headrace", CHART, "--set-json", f"{path}={json.dumps(value)}")
        return done.returncode, done.stderr

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(try_one, WRONG))


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda n: f"{WRONG[n][0]}={json.dumps(WRONG[n][1])}")
def test_wrong_value_is_refused_by_name(number: int) -> None:
    code, message = refusals()[number]

    assert code != 0
    assert WRONG[number][2] in message


def test_object_store_and_tensorflow_serving_do_not_go_together() -> None:
    done = helm(
        "template", "headrace", CHART, "--set", "models.url=s3://bucket/models", "--set", "modelServer.kind=tensorflow-serving"
    )  # fmt: skip

    assert "models.url: tensorflow/serving reads a mounted folder here" in done.stderr


@pytest.mark.parametrize("chart", SCHEMAS)
def test_schema_lets_nothing_unknown_through(chart: str) -> None:
    schema = json.loads(SCHEMAS[chart].read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)

    def look(at: dict[str, Any], path: str) -> None:
        if "properties" in at and at.get("type") == "object":
            assert at.get("additionalProperties") is False, path
        for key, part in [*at.get("properties", {}).items(), *at.get("$defs", {}).items()]:
            look(part, f"{path}/{key}")
        if isinstance(at.get("items"), dict):
            look(at["items"], f"{path}[]")

    look(schema, "")


@pytest.mark.parametrize("chart", SCHEMAS)
def test_schema_and_values_know_the_same(chart: str) -> None:
    schema = json.loads(SCHEMAS[chart].read_text(encoding="utf-8"))
    values = yaml.safe_load((SCHEMAS[chart].parent / "values.yaml").read_text(encoding="utf-8"))

    def look(at: dict[str, Any], value: dict[str, Any], path: str) -> None:
        at = schema["$defs"][at["$ref"].rsplit("/", 1)[1]] if "$ref" in at else at
        if "properties" not in at or path.endswith(("/settings", "/affinity", "/limits")):
            return
        assert set(at["properties"]) - {"global"} == set(value), path
        for key, part in value.items():
            if isinstance(part, dict):
                look(at["properties"][key], part, f"{path}/{key}")

    look(schema, values, "")


def test_settings_in_the_schema_are_what_the_code_says() -> None:
    file = SCHEMAS["headrace"].read_text(encoding="utf-8")

    assert file == chart_schema.page(file, settings_classes()), "run `make reference`"


def settings_of(manifests: list[Manifest], service: str) -> dict[str, Any]:
    """HEADRACE_… that a service is given, as variables and as files."""
    workload = next(w for name, w in workloads(manifests) if name == service)
    given = {k: v for k, v in environment(containers(workload)[0]).items() if k.startswith("HEADRACE_")}
    given.pop("HEADRACE_SECRETS_DIR", None)
    for volume in workload["spec"]["template"]["spec"]["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            items = source["secret"]["items"]
            given |= {item["path"]: "…" for item in items if item["path"].startswith("HEADRACE_")}
    return given


@pytest.mark.parametrize("values", VALUES)
def test_variables_are_settings_of_their_service(values: str) -> None:
    classes = settings_classes()
    for service, cls in classes.items():
        if service == "model-server" and values == "tensorflow-serving":
            continue
        if service in {name for name, _ in workloads(rendered()[values])}:
            known = {f"HEADRACE_{name.upper()}" for name in cls.model_fields}
            assert set(settings_of(rendered()[values], service)) <= known, service


def test_variables_of_runs_are_settings_of_the_services_whose_commands_they_run() -> None:
    classes = settings_classes()
    job = job_template(rendered()["everything"])
    given = {n for n in environment(containers(job)[0]) if n.startswith("HEADRACE_")} - {"HEADRACE_SECRETS_DIR"}

    for service in ("trainer", "model-validator"):
        addresses = {
            f"HEADRACE_{name.upper()}"
            for name in classes[service].model_fields
            if name in {"kafka", "control", "models", "model", "model_server", "definitions"}
        }
        assert addresses <= given, service
    fields = {*classes["trainer"].model_fields, *classes["model-validator"].model_fields}
    known = {f"HEADRACE_{name.upper()}" for name in fields}
    assert given <= known


@pytest.mark.parametrize("service", settings_classes())
def test_every_setting_is_set_in_exactly_one_way(service: str) -> None:
    if service not in {name for name, _ in workloads(rendered()["bare"])}:
        pytest.skip(f"{service} is not in the chart")
    cls = settings_classes()[service]
    schema = json.loads(SCHEMAS["headrace"].read_text(encoding="utf-8"))
    free = set(schema["$defs"][chart_schema.definition_name(service)]["properties"])
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    key = chart_schema.definition_name(service).removesuffix("Settings")
    set_by_default = set(defaults[key]["settings"])
    secured = {name for name in settings_of(rendered()["secured"], service) if name.startswith("HEADRACE_KAFKA")}
    given = {*settings_of(rendered()["bare"], service), *secured}
    by_chart = {name.removeprefix("HEADRACE_").lower() for name in given} - set_by_default

    assert not free & by_chart
    assert free | by_chart == set(cls.model_fields) - UNUSED.get(service, set()) - KEYS


@pytest.mark.parametrize("shipped", [True, False])
def test_control_plane_uploads_the_workflows_of_its_image_unless_told_not_to(shipped: bool) -> None:  # noqa: FBT001  # a value
    manifests = template(CHART, "--set", f"workflows.shipped={str(shipped).lower()}")
    copied = re.search(r"^COPY definitions/ (\S+)/$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert copied is not None

    told = settings_of(manifests, "control-plane").get("HEADRACE_WORKFLOWS")

    assert told == (f"{copied[1]}/workflows" if shipped else None)
    assert list((ROOT / "definitions" / "workflows").glob("*.py"))


@pytest.mark.parametrize("values", VALUES)
def test_services_take_the_settings_that_they_are_given(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for service, cls in settings_classes().items():
        if service not in {name for name, _ in workloads(rendered()[values])}:
            continue
        if service == "model-server" and values == "tensorflow-serving":
            continue
        with monkeypatch.context() as patch:
            given = {k: v for k, v in settings_of(rendered()[values], service).items() if isinstance(v, str)}
            for name, value in given.items():
                patch.setenv(name, value)
            settings = cls()
        for name, value in given.items():
            taken = getattr(settings, name.removeprefix("HEADRACE_").lower())
            text = taken.get_secret_value() if isinstance(taken, SecretStr) else str(taken)
            text = f"{taken.days}d" if isinstance(taken, timedelta) else text
            assert text == value, name


def test_big_numbers_stay_whole() -> None:
    trainer = next(w for name, w in workloads(rendered()["everything"]) if name == "trainer")

    assert environment(containers(trainer)[0])["HEADRACE_TRAIN_PLANS_MS"] == "604800000"


def test_addresses_lead_to_services_that_there_are() -> None:
    for values in VALUES:
        services = {m["metadata"]["name"]: m for m in of_kind(rendered()[values], "Service")}
        for name, workload in workloads(rendered()[values]):
            given = environment(containers(workload)[0])
            addresses = [given.get("HEADRACE_CONTROL"), given.get("HEADRACE_MODEL_SERVER")]
            addresses += [t.split("=", 1)[1] for t in given.get("HEADRACE_CONSOLE_TARGETS", "").split(",") if t]
            for address in filter(None, addresses):
                host, _, port = address.removeprefix("http://").rpartition(":")
                service, namespace, kind = host.split(".")
                assert (namespace, kind) == ("recommendations", "svc"), name
                assert int(port) in {p["port"] for p in services[service]["spec"]["ports"]}, (name, address)


def test_definitions_of_the_user_replace_folders_of_the_image() -> None:
    for name, workload in workloads(rendered()["everything"]):
        container = containers(workload)[0]
        if "HEADRACE_DEFINITIONS" not in environment(container):
            continue
        root = environment(container)["HEADRACE_DEFINITIONS"]
        mounts = {m["mountPath"] for m in container["volumeMounts"] if m["name"].startswith("definitions-")}
        assert mounts == {f"{root}/{kind}" for kind in ("features", "models", "samples", "topics")}, name


def test_small_is_told_by_the_stores_for_one_machine() -> None:
    stores = template(DEV_STORES, release="headrace-dev-stores")
    small = yaml.safe_load((CHART / "values-small.yaml").read_text(encoding="utf-8"))
    host, port = small["kafka"]["bootstrapServers"].split(":")

    service = named(stores, "Service", host)
    assert int(port) in {p["port"] for p in service["spec"]["ports"]}
    for store in ("postgres", "redis"):
        secret = named(stores, "Secret", small[store]["existingSecret"])
        url = secret["stringData"][small[store]["key"]]
        assert named(stores, "Service", url.rsplit("@", 1)[-1].removeprefix("redis://").split(":")[0])


def test_key_of_the_stores_for_one_machine_opens_what_small_guards() -> None:
    stores = template(DEV_STORES, release="headrace-dev-stores")
    small = yaml.safe_load((CHART / "values-small.yaml").read_text(encoding="utf-8"))
    own = small["apiKeys"]["own"]
    key = named(stores, "Secret", own["existingSecret"])["stringData"][own["key"]]
    entries = named(stores, "Secret", small["apiKeys"]["existingSecret"])["stringData"]

    known = parse(entries["everyone"], "everyone")

    assert [(k.digest, ADMIN in k.scopes) for k in known] == [(digest_of(key.encode()), True)]
    console = small["consoleSecret"]
    assert named(stores, "Secret", console["existingSecret"])["stringData"][console["key"]]


def test_small_and_its_stores_leave_half_of_two_cores_to_kubernetes() -> None:
    pods = [*workloads(template(CHART, "-f", CHART / "values-small.yaml")), *workloads(template(DEV_STORES))]

    asked = {name: containers(of)[0]["resources"]["requests"]["cpu"] for name, of in pods}

    assert {"gateway", "run", "kafka"} < asked.keys()
    assert sum(int(cpu.removesuffix("m")) for cpu in asked.values()) <= 1_000
