"""Streaming tasks as Deployments, on API servers double and real."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from headrace_core.control.client import ControlClient, Run
from headrace_core.workflow import StreamTask, Workflow, event

from tests.charts.helm import CHART, NAMESPACE, named, template
from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload
from tests.integration.control.kubernetes_servers import SERVERS, Cluster, cluster_of
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack

JOINER, WORKER = "headrace-sample-joiner", "headrace-feature-worker"


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With Deployments as the chart makes them."""
    manifests = template(CHART, "--set", "jobs.executor=kubernetes")
    with cluster_of(request, tmp_path_factory) as one:
        for name in (JOINER, WORKER):
            deployment = named(manifests, "Deployment", name)
            deployment["metadata"]["namespace"] = NAMESPACE
            deployment["spec"]["replicas"] = 3
            one.add("deployments", deployment)
        yield one


@pytest.fixture(scope="module")
def control(make_control: Any, cluster: Cluster) -> Iterator[ControlPlane]:
    """The control plane of a server's tests."""
    plane: ControlPlane = make_control(**cluster.settings())
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
async def flow(http: httpx.AsyncClient, cluster: Cluster) -> str:
    cluster.roll()
    with Workflow("deployments") as made:
        task = StreamTask("t", service="sample-joiner")
        task.start_on(event("start"))
        task.stop_on(event("stop"))
        task.restart_on(event("restart"))
        StreamTask("unknown", service="nobody").start_on(event("start-unknown"))
    await upload(http, made)
    return "deployments"


async def after(client: ControlClient, key: str, *statuses: str) -> Run:
    """The newest run, when the scheduler has acted on a new event and it has come to one of these."""
    before = [run.run_id for run in await client.runs(workflow="deployments", task="t", limit=1)]
    await client.append(key, "1")

    async def look() -> Run | None:
        runs = await client.runs(workflow="deployments", task="t", limit=1)
        new = runs and (key == "stop" or [runs[0].run_id] != before)
        return runs[0] if new and runs[0].status in statuses else None

    return await eventually(look, f"{key}: the newest run is {' or '.join(statuses)}")


def replicas(cluster: Cluster, name: str = JOINER) -> int:
    return int(cluster.deployment(name)["spec"]["replicas"])


def restarted_for(cluster: Cluster, name: str = JOINER) -> str | None:
    """The run for which the pods were started anew."""
    annotations = cluster.deployment(name)["spec"]["template"]["metadata"].get("annotations", {})
    told: str | None = annotations.get("headrace/run-id")
    return told


@pytest.mark.usefixtures("flow")
async def test_stop_remembers_the_replicas_that_start_brings_back(client: ControlClient, cluster: Cluster) -> None:
    other = cluster.deployment(WORKER)["metadata"]["generation"]
    await after(client, "restart", "RUNNING")

    stopped = await after(client, "stop", "STOPPED", "FAILED")
    none = replicas(cluster)
    started = await after(client, "start", "RUNNING", "FAILED")

    assert (stopped.status, none) == ("STOPPED", 0)
    assert (started.status, replicas(cluster)) == ("RUNNING", 3)
    assert cluster.deployment(WORKER)["metadata"]["generation"] == other  # nobody has touched it


@pytest.mark.usefixtures("flow")
async def test_restart_marks_the_pods_with_its_run_and_waits_for_the_rollout(
    client: ControlClient, cluster: Cluster
) -> None:
    cluster.rolls = False
    run = await after(client, "restart", "STARTING")

    async def marked() -> bool:
        return restarted_for(cluster) == run.run_id

    await eventually(marked, "the pods are marked")
    waiting = await client.run(run.run_id)
    cluster.roll()

    async def runs() -> bool:
        return (await client.run(run.run_id)).status == "RUNNING"

    await eventually(runs, "the run is RUNNING")
    assert waiting.status == "STARTING"
    assert replicas(cluster) == 3


@pytest.mark.usefixtures("flow")
async def test_restart_of_what_was_stopped_starts_it(client: ControlClient, cluster: Cluster) -> None:
    await after(client, "restart", "RUNNING")
    await after(client, "stop", "STOPPED")

    run = await after(client, "restart", "RUNNING", "FAILED")

    assert (run.status, replicas(cluster), restarted_for(cluster)) == ("RUNNING", 3, run.run_id)


@pytest.mark.usefixtures("flow")
async def test_rollout_that_fails_is_told_with_its_reason(client: ControlClient, cluster: Cluster) -> None:
    cluster.rolls = False
    run = await after(client, "restart", "STARTING")

    async def marked() -> bool:
        return restarted_for(cluster) == run.run_id

    await eventually(marked, "the pods are marked")
    cluster.stall(JOINER)

    async def ended() -> Run | None:
        now = await client.run(run.run_id)
        return now if now.status == "FAILED" else None

    error = (await eventually(ended, "it failed")).error
    assert error.startswith(f'its rollout failed: ReplicaSet "{JOINER}-')
    assert error.endswith('" has timed out progressing.')


@pytest.mark.usefixtures("flow")
async def test_service_that_somebody_else_scales_to_nothing_is_seen(client: ControlClient, cluster: Cluster) -> None:
    run = await after(client, "restart", "RUNNING")

    cluster.scale(JOINER, 0)

    async def stopped() -> bool:
        return (await client.run(run.run_id)).status == "STOPPED"

    await eventually(stopped, "it is seen")
    assert (await after(client, "start", "RUNNING")).status == "RUNNING"
    assert replicas(cluster) == 3


@pytest.mark.usefixtures("flow")
async def test_stop_that_an_outage_met_is_done_after_it(client: ControlClient, cluster: Cluster) -> None:
    await after(client, "restart", "RUNNING")
    cluster.faults.away = True
    run = await after(client, "stop", "STOPPING")
    tried = len(cluster.requests)

    async def knocked() -> bool:
        return len(cluster.requests) >= tried + 3

    await eventually(knocked, "it was tried in vain")
    cluster.faults.away = False

    async def stopped() -> bool:
        return (await client.run(run.run_id)).status == "STOPPED"

    await eventually(stopped, "it has stopped")
    assert replicas(cluster) == 0
    await after(client, "start", "RUNNING")


@pytest.mark.usefixtures("flow")
async def test_service_without_a_deployment_fails_with_its_reason(client: ControlClient) -> None:
    await client.append("start-unknown", "1")

    async def failed() -> Run | None:
        runs = await client.runs(workflow="deployments", task="unknown", limit=1)
        return runs[0] if runs and runs[0].status == "FAILED" else None

    assert "no Deployment of nobody; there are those of feature-worker" in (await eventually(failed, "it failed")).error
