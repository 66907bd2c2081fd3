"""What docs/operations/install.md tells of one machine, done as it stands: a node of kind, its containers, its network."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import httpx
import pytest
from headrace_stack.images.debian import BASE, BUILDER
from headrace_stack.images.docker import docker

from tests.cluster import documented
from tests.cluster.documented import commands
from tests.cluster.waiting import eventually
from tests.images.engine import running_engine
from tests.kind import images
from tests.kind.cluster import Shell

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]

GATEWAY: Final = "http://127.0.0.1:8080"
CONSOLE: Final = "http://127.0.0.1:8090/"
KEY: Final = {"authorization": "Bearer hr_known-to-everyone"}
_GIGABYTE: Final = 1 << 30
_NEEDED_GB: Final = 25
#: What the Dockerfile and skaffold.yaml name, by what is made here in its place.
_OFFICIAL: Final = {"python:3.11-slim-bookworm": BASE, "python:3.11-bookworm": BUILDER}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A machine with a container engine and the images that would come from registries; no cluster is left on it."""
    if shutil.which("go") is None:
        pytest.skip("Go is missing (https://go.dev/dl), which builds what a node runs")
    if os.geteuid() != 0:
        pytest.skip("the images of nodes and stores are made by root")
    if (free := shutil.disk_usage("/").free // _GIGABYTE) < _NEEDED_GB:
        pytest.skip(f"needs {_NEEDED_GB} GB of disk, {free} are free")
    with running_engine(networks=True):
        images.nodes()
        for official, made in _OFFICIAL.items():
            docker("tag", made, official)
        shell = Shell(tmp_path_factory.mktemp("kind"))
        try:
            yield shell
        finally:
            for command in commands(documented.DELETED):
                shell.run(command)


@pytest.fixture(scope="module")
def installed(machine: Shell) -> Shell:
    """The cluster, with Headrace on it."""
    create, *rest = commands(documented.ONE_MACHINE)
    machine.run(create)
    machine.run(f"kind load docker-image --name headrace {' '.join(images.stores())}")
    for command in rest:
        machine.run(command)
    return machine


@contextmanager
def forwarded(shell: Shell) -> Iterator[httpx.Client]:
    """The ports of gateway and console, forwarded; who calls them with the stores' key."""
    with ExitStack() as all_of_them:
        for command in commands(documented.FORWARDED):
            all_of_them.enter_context(shell.started(command, "Forwarding from 127.0.0.1:"))
        yield all_of_them.enter_context(httpx.Client(headers=KEY, timeout=30, follow_redirects=True))


def not_ready(shell: Shell) -> list[str]:
    """Pods of services and stores of which a container is not ready."""
    return [
        pod["metadata"]["name"]
        for pod in shell.objects("pods")
        if not any(owner["kind"] == "Job" for owner in pod["metadata"]["ownerReferences"])
        and not all(one["ready"] for one in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]


def test_every_pod_is_at_work_when_the_last_command_ends(installed: Shell) -> None:
    assert not_ready(installed) == []
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in installed.objects("pods")} == {
        "control-plane", "feature-worker", "gateway", "model-server", "model-validator", "sample-joiner", "trainer",
        "kafka", "postgres", "redis",
    }  # fmt: skip


def test_events_are_taken_and_recommendations_answered_through_forwarded_ports(installed: Shell) -> None:
    with forwarded(installed) as client:
        told = installed.run("\n".join(commands(documented.USED)))
        console = client.get(CONSOLE).raise_for_status()

    assert re.search(r"failed +│ -", told)
    assert "train_base" in told
    assert "Headrace" in console.text


def test_workflow_is_uploaded_through_a_forwarded_port(installed: Shell) -> None:
    forward, apply = commands(documented.OWN_WORKFLOW)

    with installed.started(forward, "Forwarding from 127.0.0.1:"):
        variables = "HEADRACE_CONTROL=http://127.0.0.1:8090 HEADRACE_API_KEY=hr_known-to-everyone"
        told = installed.run(f"{variables} {apply}")

    assert "realtime_recommender" in told


def test_a_model_is_trained_by_a_job_and_serves(installed: Shell) -> None:
    for command in commands(documented.QUICK):
        installed.run(command)
    export, simulate, _ = commands(documented.USED)

    def answered() -> bool:
        # Forwarded anew each time: a port leads to one pod, which an upgrade replaces.
        with forwarded(installed) as client:
            installed.run(f"{export}\n{simulate}")
            asked = client.post(f"{GATEWAY}/v1/recommend", json={"user_id": "1", "page_id": "home", "count": 3})
            return bool(asked.raise_for_status().json()["model_version"])

    eventually(answered, "a recommendation by a model", 900)
    assert any(job["status"].get("succeeded") for job in installed.objects("jobs"))


def test_network_lets_in_whom_the_policies_name(installed: Shell) -> None:
    installed.run("kubectl run stranger --image=headrace/gateway:0.1.0 --restart=Never --command -- sleep infinity")
    installed.run("kubectl wait pod/stranger --for=condition=Ready --timeout=60s")
    stranger, gateway = "kubectl exec stranger", "kubectl -n headrace exec deployment/headrace-gateway"
    control_plane = "kubectl -n headrace exec deployment/headrace-control-plane"
    connects = (
        "import socket, sys; s = socket.socket(); s.settimeout(5); print(s.connect_ex((sys.argv[1], int(sys.argv[2]))))"
    )

    def lets_in(whom: str, service: str, port: int) -> bool:
        return installed.run(f"{whom} -- python -c '{connects}' {service}.headrace {port}").strip() == "0"

    assert lets_in(stranger, "headrace-gateway", 8080)
    assert lets_in(gateway, "headrace-model-server", 8500)
    assert lets_in(control_plane, "headrace-trainer", 9100)
    assert not lets_in(stranger, "headrace-model-server", 8500)
    assert not lets_in(gateway, "headrace-trainer", 9100)


def test_removal_takes_the_jobs_of_runs_with_it(installed: Shell) -> None:
    for command in commands(documented.REMOVE):
        installed.run(command)
    installed.run("helm uninstall headrace-dev-stores -n headrace")

    eventually(lambda: not installed.objects("pods"), "all pods are gone")
    assert installed.objects("jobs") == []


def test_changed_code_is_put_into_the_pods_while_skaffold_is_at_work(installed: Shell) -> None:
    if shutil.which("skaffold") is None:
        pytest.skip("skaffold is missing (https://skaffold.dev)")
    installed.run("helm uninstall headrace headrace-dev-stores -n headrace --ignore-not-found --wait")
    shell = installed.copied()
    (develop,) = commands(documented.DEVELOPED)

    with shell.started(develop, "Watching for changes...", 1_800) as log:
        app = shell.checkout / "services" / "gateway" / "headrace_gateway" / "web" / "app.py"
        changed = app.read_text(encoding="utf-8").replace('title="Headrace gateway"', 'title="Changed gateway"')
        app.write_text(changed, encoding="utf-8")

        def title() -> bool:
            with suppress(httpx.TransportError):
                return bool(
                    httpx.get(f"{GATEWAY}/openapi.json", headers=KEY).json()["info"]["title"] == "Changed gateway"
                )
            return False

        eventually(title, "the gateway runs the changed code", 180)
        assert log.read_text(encoding="utf-8").count("Starting build...") == 1

    eventually(lambda: not installed.objects("pods"), "all pods are gone")
