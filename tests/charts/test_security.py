"""What a pod may do: nothing that its service does not need."""

import base64

import pytest

from tests.charts.helm import (
    CHART,
    VALUES,
    Manifest,
    component,
    containers,
    environment,
    job_template,
    named,
    of_kind,
    pod,
    rendered,
    template,
    workloads,
)

SECRET_WORDS = ("password", "passwd", "secret", "token", "api_key", "apikey", "postgresql://", "redis://", "rediss://")
#: Settings that no variable may hold.
FILES_ONLY = {"HEADRACE_POSTGRES", "HEADRACE_REDIS", "HEADRACE_CONSOLE_SECRET", "HEADRACE_KAFKA_PASSWORD"}


@pytest.mark.parametrize("values", VALUES)
def test_pods_run_as_nobody_on_a_root_that_is_read_only(values: str) -> None:
    for name, workload in workloads(rendered()[values]):
        context = pod(workload)["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] >= 10_000, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(workload):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["privileged"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.parametrize("values", VALUES)
def test_pods_share_nothing_with_their_node(values: str) -> None:
    for name, workload in workloads(rendered()[values]):
        spec = pod(workload)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not [v for v in spec.get("volumes", []) if "hostPath" in v], name


@pytest.mark.parametrize("values", VALUES)
def test_only_the_control_plane_holds_a_token_and_only_to_run_jobs(values: str) -> None:
    manifests = rendered()[values]
    with_executor = bool(of_kind(manifests, "Role"))

    holders = {name for name, workload in workloads(manifests) if pod(workload)["automountServiceAccountToken"]}

    assert holders == ({"control-plane"} if with_executor else set())


@pytest.mark.parametrize("values", VALUES)
def test_each_service_has_an_account_of_its_own(values: str) -> None:
    manifests = rendered()[values]
    accounts = {m["metadata"]["name"]: m for m in of_kind(manifests, "ServiceAccount")}
    used = {name: pod(workload)["serviceAccountName"] for name, workload in workloads(manifests)}
    if not of_kind(manifests, "Role"):
        used.pop("run")  # nobody starts it

    assert len(set(used.values())) == len(used)
    assert set(used.values()) == set(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())


def test_control_plane_may_run_jobs_and_move_streaming_services_and_nothing_else() -> None:
    manifests = rendered()["everything"]
    role = of_kind(manifests, "Role")[0]

    assert not of_kind(manifests, "ClusterRole", "ClusterRoleBinding")
    granted = {
        (group, resource): (set(rule["verbs"]), "resourceNames" in rule)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        if (group, resource) != ("apps", "deployments") or "resourceNames" in rule
    }
    assert granted == {
        ("batch", "jobs"): ({"create", "get", "list", "watch", "delete"}, False),
        ("apps", "deployments"): ({"get", "patch"}, True),
    }


@pytest.mark.parametrize("values", VALUES)
def test_control_plane_carries_runs_out_where_it_has_the_rights(values: str) -> None:
    manifests = rendered()[values]
    plane = next(workload for name, workload in workloads(manifests) if name == "control-plane")

    told = environment(containers(plane)[0]).get("HEADRACE_EXECUTOR", "process")

    assert told == ("kubernetes" if of_kind(manifests, "Role") else "process")


def test_deployments_that_the_control_plane_may_move_are_those_that_there_are() -> None:
    manifests = rendered()["everything"]
    rule = next(r for r in of_kind(manifests, "Role")[0]["rules"] if "resourceNames" in r)
    deployments = {m["metadata"]["name"] for m in of_kind(manifests, "Deployment")}

    assert set(rule["resourceNames"]) <= deployments
    assert deployments - set(rule["resourceNames"]) == {
        m["metadata"]["name"] for m in of_kind(manifests, "Deployment") if component(m) in {"gateway", "control-plane"}
    }


@pytest.mark.parametrize("values", VALUES)
def test_no_secret_is_in_what_everyone_may_read(values: str) -> None:
    manifests = rendered()[values]

    assert [m["metadata"]["name"] for m in of_kind(manifests, "Secret")] == made_secrets(values, manifests)
    for manifest in of_kind(manifests, "ConfigMap"):
        if "-dashboard-" in manifest["metadata"]["name"]:
            continue
        for key, text in manifest["data"].items():
            found = [word for word in SECRET_WORDS if word in text.lower()]
            # The template names volumes of secrets, the files with a key or a password, and that no token is mounted.
            named = {"secret", "token", "api_key", "password"} if key == "job-template.yaml" else set()
            assert not set(found) - named, key


def made_secrets(values: str, manifests: list[Manifest]) -> list[str]:
    """What signs the console's sessions, where no secret is named: all that the chart makes."""
    name = next(m["metadata"]["name"] for m in of_kind(manifests, "Deployment") if component(m) == "control-plane")
    return [] if values == "small" else [f"{name.removesuffix('-control-plane')}-console-sessions"]


def console_secret(manifests: list[Manifest]) -> tuple[str, str]:
    """Name and key of what signs the sessions, as the control plane's pods have it."""
    plane = next(workload for name, workload in workloads(manifests) if name == "control-plane")
    sources = [s["secret"] for v in pod(plane)["volumes"] for s in v.get("projected", {}).get("sources", [])]
    return next((s["name"], i["key"]) for s in sources for i in s["items"] if i["path"] == "HEADRACE_CONSOLE_SECRET")


@pytest.mark.parametrize("values", VALUES)
def test_replicas_of_the_console_share_a_long_secret(values: str) -> None:
    manifests = rendered()[values]
    name, key = console_secret(manifests)

    made = {m["metadata"]["name"]: m["data"] for m in of_kind(manifests, "Secret")}

    if values == "small":
        assert (name, key) == ("headrace-dev-stores", "console")
    else:
        assert len(base64.b64decode(made[name][key])) == 64


def test_console_secret_that_exists_is_taken_and_none_is_made() -> None:
    manifests = template(CHART, "--set", "consoleSecret.existingSecret=ours,consoleSecret.key=signs")

    assert console_secret(manifests) == ("ours", "signs")
    assert not of_kind(manifests, "Secret")


@pytest.mark.parametrize("values", VALUES)
def test_secrets_reach_a_service_as_files_and_only_its_own(values: str) -> None:
    wanted = {
        "gateway": {"HEADRACE_REDIS"},
        "feature-worker": {"HEADRACE_POSTGRES", "HEADRACE_REDIS"},
        "sample-joiner": {"HEADRACE_POSTGRES"},
        "control-plane": {"HEADRACE_POSTGRES", "HEADRACE_CONSOLE_SECRET"},
        "trainer": {"HEADRACE_POSTGRES"},
        "model-validator": {"HEADRACE_POSTGRES"},
        "model-server": set(),
        "init": {"HEADRACE_POSTGRES"},
        "run": {"HEADRACE_POSTGRES"},
    }
    if values == "secured":
        shown = {"HEADRACE_KAFKA_PASSWORD", "kafka-ca.crt", "kafka-user.crt", "kafka-user.key"}
        wanted |= {name: wanted[name] | shown for name in wanted if name not in {"model-validator", "model-server"}}
    for name, workload in workloads(rendered()[values]):
        assert secret_files(workload) == wanted[name], name
        for container in containers(workload):
            given = environment(container)
            assert not FILES_ONLY & set(given), name
            assert not [v for v in given.values() if isinstance(v, dict) and "secretKeyRef" in v], name
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert given.get("HEADRACE_SECRETS_DIR") == mounts.get("secrets"), name


def secret_files(workload: Manifest) -> set[str]:
    return {
        item["path"]
        for volume in pod(workload).get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize(
    ("secret", "holders"),
    [
        ("headrace-api-keys", {"gateway", "control-plane"}),
        (
            "headrace-api-key",
            {"gateway", "control-plane", "sample-joiner", "trainer", "model-validator", "model-server", "run"},
        ),
    ],
)
def test_keys_are_where_calls_are_taken_or_made(secret: str, holders: set[str]) -> None:
    manifests = rendered()["default"]
    variable = {"headrace-api-keys": "HEADRACE_API_KEYS_FILE", "headrace-api-key": "HEADRACE_API_KEY_FILE"}[secret]

    found = {
        name: volume["name"]
        for name, workload in workloads(manifests)
        for volume in pod(workload).get("volumes", [])
        if volume.get("secret", {}).get("secretName") == secret
    }

    assert set(found) == holders
    for name, workload in workloads(manifests):
        container = containers(workload)[0]
        told = environment(container).get(variable)
        assert (told is not None) == (name in holders), name
        if told is not None:
            mount = next(m for m in container["volumeMounts"] if m["name"] == found[name])
            assert told.startswith(mount["mountPath"]), name


@pytest.mark.parametrize("values", VALUES)
def test_every_mount_has_a_volume_and_every_volume_a_mount(values: str) -> None:
    for name, workload in workloads(rendered()[values]):
        volumes = {v["name"] for v in pod(workload).get("volumes", [])}
        volumes |= {v["metadata"]["name"] for v in workload["spec"].get("volumeClaimTemplates", [])}
        mounts = {m["name"] for c in containers(workload) for m in c["volumeMounts"]}
        assert mounts == volumes, name


@pytest.mark.parametrize("values", VALUES)
def test_every_container_is_bounded_in_memory(values: str) -> None:
    for name, workload in workloads(rendered()[values]):
        for container in containers(workload):
            assert container["resources"]["limits"]["memory"], name
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
        for volume in pod(workload).get("volumes", []):
            assert volume.get("emptyDir", {"sizeLimit": "1"})["sizeLimit"], name


def test_artifacts_are_written_by_training_alone() -> None:
    manifests = rendered()["default"]

    writable = {
        name: not mount.get("readOnly", False)
        for name, workload in workloads(manifests)
        for container in containers(workload)
        for mount in container["volumeMounts"]
        if mount["name"] == "models"
    }

    assert writable == {"trainer": True, "run": True, "model-validator": False, "model-server": False}


def test_job_template_is_a_job_that_claims_its_run_once() -> None:
    job = job_template(rendered()["everything"])

    container = pod(job)["containers"][0]
    assert container["command"] == ["headrace-run", "RUN_ID"]
    assert job["spec"]["backoffLimit"] == 0
    assert pod(job)["restartPolicy"] == "Never"
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "headrace"
        assert metadata["annotations"]["headrace/run-id"] == "RUN_ID"


def test_job_template_is_where_the_control_plane_looks_for_it() -> None:
    manifests = rendered()["default"]
    workload = named(manifests, "Deployment", "headrace-control-plane")

    mount = next(m for m in containers(workload)[0]["volumeMounts"] if m["name"] == "job-template")
    volume = next(v for v in pod(workload)["volumes"] if v["name"] == "job-template")

    assert (mount["mountPath"], mount["subPath"]) == ("/etc/headrace/job-template.yaml", "job-template.yaml")
    assert "job-template.yaml" in named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
