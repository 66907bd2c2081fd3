"""What only a real API server shows: rights, quotas, its own restarts, its own ends of Jobs, and by whom a field was set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from headrace_control_plane.executors.kubernetes_api import ApiAwayError, ApiRefusedError, KubernetesApi
from headrace_core.control.client import ControlClient
from headrace_core.workflow import StreamTask, Workflow, event

from tests.charts.helm import NAMESPACE, named
from tests.cluster.api import RefusedError, path
from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload
from tests.integration.control.kubernetes_real import Real
from tests.integration.control.kubernetes_servers import PLANE, REAL, release
from tests.integration.control.process import ControlPlane
from tests.integration.control.test_kubernetes_jobs import DEPLOYMENTS, JOBS, job_of, python, started, waiting_for, when

pytestmark = [pytest.mark.stack, *REAL.marks]

TRAINER = "headrace-trainer"


@pytest.fixture(scope="module")
def cluster(kubernetes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    one = Real(kubernetes, tmp_path_factory.mktemp("cluster"))
    release(one)
    yield one
    one.close()


@pytest.fixture(scope="module")
def control(make_control: Any, cluster: Real) -> ControlPlane:
    plane: ControlPlane = make_control(**cluster.settings())
    cluster.nodes_see(plane.url)
    plane.start()
    return plane


def token(cluster: Real) -> str:
    return (cluster.account / "token").read_text()


async def tried(cluster: Real, times: int = 3) -> None:
    """Wait until creations were tried in vain; each begins with the look for the owner."""
    before = cluster.requests.count(f"GET {DEPLOYMENTS}")

    async def more() -> bool:
        return cluster.requests.count(f"GET {DEPLOYMENTS}") >= before + times

    await eventually(more, "it was tried in vain")


def rights(cluster: Real, account: str) -> set[tuple[str, str, str]]:
    """What an account may do, as the server's own authorizer sees it: verb, resource, name."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    issued = cluster.api.call("POST", f"{path('serviceaccounts', NAMESPACE, account)}/token", asked)["status"]["token"]
    group = "authorization.k8s.io/v1"
    review = {"apiVersion": group, "kind": "SelfSubjectRulesReview", "spec": {"namespace": NAMESPACE}}
    with cluster.server.api(issued) as api:
        told = api.call("POST", f"/apis/{group}/selfsubjectrulesreviews", review)["status"]["resourceRules"]
    return {
        (verb, resource, name)
        for rule in told
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }


def test_account_of_the_control_plane_may_do_its_work_and_what_every_account_may(cluster: Real) -> None:
    of_everyone = rights(cluster, "default")

    more = {account: rights(cluster, account) - of_everyone for account in cluster.accounts()}

    streams = [f"headrace-{s}" for s in ("feature-worker", "sample-joiner", "trainer", "model-validator")]
    assert more.pop("headrace-control-plane") == {
        *((verb, "jobs", "*") for verb in ("create", "get", "list", "watch", "delete")),
        *((verb, "deployments", "*") for verb in ("list", "watch")),
        *((verb, "deployments", name) for verb in ("get", "patch") for name in streams),
    }
    assert {"headrace-gateway", "headrace-run"} <= more.keys()
    assert set().union(*more.values()) == set()


@pytest.mark.parametrize(
    ("method", "at"),
    [
        ("GET", path("secrets", NAMESPACE)),
        ("GET", path("pods", NAMESPACE)),
        ("GET", path("jobs", "default")),
        ("DELETE", path("deployments", NAMESPACE, TRAINER)),
        ("DELETE", path("jobs", NAMESPACE)),
        ("PATCH", path("deployments", NAMESPACE, "headrace-gateway")),
    ],
)
def test_account_of_the_control_plane_is_refused_what_is_not_its_own(cluster: Real, method: str, at: str) -> None:
    with cluster.server.api(token(cluster)) as api, pytest.raises(RefusedError, match="is forbidden") as refused:
        api.call(method, at, {} if method == "PATCH" else None, "application/merge-patch+json")

    assert refused.value.status == 403


async def test_server_of_another_authority_is_not_spoken_to(cluster: Real, tmp_path: Path) -> None:
    cluster.server.certify(tmp_path)
    (tmp_path / "tls.crt").rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text(token(cluster))
    api, other = (KubernetesApi(cluster.server.url, folder) for folder in (cluster.account, tmp_path))

    assert (await api.call("GET", JOBS))["kind"] == "JobList"
    with pytest.raises(ApiAwayError, match="CERTIFICATE_VERIFY_FAILED"):
        await other.call("GET", JOBS)
    for one in (api, other):
        await one.close()


async def test_right_that_is_missing_for_a_while_delays_a_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real
) -> None:
    cluster.api.delete(path("rolebindings", NAMESPACE, "headrace-control-plane"))

    run_id = await started(http, "rights", python("pass"))
    await tried(cluster)
    waiting = await client.run(run_id)
    cluster.api.apply(named(cluster.manifests, "RoleBinding", "headrace-control-plane"), NAMESPACE, "helm")

    assert waiting.status == "STARTING"
    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)


async def test_right_to_look_for_the_owner_that_is_missing_makes_a_job_without_one(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real
) -> None:
    role = named(cluster.manifests, "Role", "headrace-control-plane")
    less = role | {"rules": [rule for rule in role["rules"] if rule["resources"] != ["deployments"]]}
    cluster.api.apply(less, NAMESPACE, "helm")

    async def refused() -> bool:
        with cluster.server.api(token(cluster)) as api:
            return api.status(DEPLOYMENTS) == 403

    await eventually(refused, "the right is gone")
    run_id = await started(http, "no-look", python("pass"))
    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    cluster.api.apply(role, NAMESPACE, "helm")

    assert run.status == "SUCCEEDED"
    assert "ownerReferences" not in (await job_of(cluster, run_id))["metadata"]


async def test_restart_of_the_control_planes_deployment_leaves_a_job_at_work(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real, tmp_path: Path
) -> None:
    run_id = await started(http, "outlives", waiting_for(tmp_path / "go"))
    await when(client, run_id, "RUNNING")
    before = {p["metadata"]["uid"] for p in cluster.all("pods") if p["metadata"]["name"].startswith(PLANE)}
    restarted = {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}
    cluster.api.merge(path("deployments", NAMESPACE, PLANE), {"spec": restarted})

    async def replaced() -> bool:
        return not before & {p["metadata"]["uid"] for p in cluster.all("pods")}

    await eventually(replaced, "its pods are others")
    (tmp_path / "go").touch()

    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert before
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)


async def test_quota_that_is_used_up_delays_a_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "jobs"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    cluster.api.apply(quota, NAMESPACE)
    at = path("resourcequotas", NAMESPACE, "jobs")

    async def counted() -> bool:
        return "hard" in cluster.api.call("GET", at).get("status", {})

    await eventually(counted, "the quota is in force")
    run_id = await started(http, "quota", python("pass"))
    await tried(cluster)
    waiting = await client.run(run_id)
    cluster.api.delete(at)

    assert waiting.status == "STARTING"
    assert (await when(client, run_id, "SUCCEEDED", "FAILED")).status == "SUCCEEDED"


async def test_api_server_that_is_killed_and_started_delays_a_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real, tmp_path: Path
) -> None:
    before = await started(http, "before", waiting_for(tmp_path / "go"))
    await when(client, before, "RUNNING")

    cluster.server.kill_api()
    during = await started(http, "during", python("pass"))
    await tried(cluster)
    (tmp_path / "go").touch()
    finished = await when(client, before, "SUCCEEDED", "FAILED")
    cluster.server.start_api()

    assert (finished.status, finished.attempt) == ("SUCCEEDED", 1)
    run = await when(client, during, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)
    assert len([j for j in cluster.all("jobs") if j["metadata"]["annotations"]["headrace/run-id"] == during]) == 1


async def test_job_that_kubernetes_ends_for_its_time_fails_its_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real, tmp_path: Path
) -> None:
    run_id = await started(http, "slow", waiting_for(tmp_path / "never"))
    await when(client, run_id, "RUNNING")
    name = (await job_of(cluster, run_id))["metadata"]["name"]

    cluster.api.merge(path("jobs", NAMESPACE, name), {"spec": {"activeDeadlineSeconds": 1}})

    error = (await when(client, run_id, "FAILED", "SUCCEEDED")).error

    async def reasons() -> list[str]:
        job = await job_of(cluster, run_id)
        return [c["reason"] for c in job["status"].get("conditions", []) if c["type"] == "Failed"]

    of_the_job = f"its Job {name} failed: DeadlineExceeded Job was active longer than specified deadline"
    assert error in {"stopped by SIGTERM", of_the_job}  # it has the time to say so itself, and may be late
    assert await eventually(reasons, "the Job has failed") == ["DeadlineExceeded"]


async def test_job_whose_pod_is_evicted_fails_its_attempt_and_the_next_one_succeeds(
    http: httpx.AsyncClient, client: ControlClient, cluster: Real, tmp_path: Path
) -> None:
    run_id = await started(http, "evicted", waiting_for(tmp_path / "go"), retries=1, backoff="50ms")
    await when(client, run_id, "RUNNING")
    (pod,) = [p for p in cluster.all("pods") if p["metadata"]["annotations"].get("headrace/run-id") == run_id]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
    cluster.api.call("POST", f"{path('pods', NAMESPACE, pod['metadata']['name'])}/eviction", eviction)
    (tmp_path / "go").touch()

    run = await when(client, run_id, "SUCCEEDED", "FAILED")

    assert run.status == "SUCCEEDED"


async def test_fields_that_the_control_plane_sets_are_told_as_its_own(
    client: ControlClient, http: httpx.AsyncClient, cluster: Real
) -> None:
    trainer = named(cluster.manifests, "Deployment", TRAINER)
    trainer["spec"]["replicas"] = 1
    cluster.add("deployments", trainer)
    with Workflow("owned") as flow:
        task = StreamTask("t", service="trainer")
        task.start_on(event("start-trainer"))
        task.stop_on(event("stop-trainer"))
    await upload(http, flow)

    async def become(status: str, key: str) -> None:
        await client.append(key, "1")

        async def look() -> bool:
            runs = await client.runs(workflow="owned", task="t", limit=1)
            return bool(runs) and runs[0].status == status

        await eventually(look, f"after {key} it is {status}")

    await become("RUNNING", "start-trainer")
    await become("STOPPED", "stop-trainer")

    with pytest.raises(RefusedError, match=r'conflict with "headrace-scale".*\.spec\.replicas') as refused:
        cluster.api.apply(trainer, NAMESPACE, "helm", force=False)
    assert refused.value.status == 409
    trainer["spec"]["replicas"] = 0
    cluster.api.apply(trainer, NAMESPACE, "helm", force=False)  # what is the same is nobody's conflict


async def test_service_that_the_account_has_no_right_to_fails_its_run_with_the_servers_words(
    client: ControlClient, http: httpx.AsyncClient, cluster: Real
) -> None:
    gateway = named(cluster.manifests, "Deployment", "headrace-gateway")
    gateway["spec"] |= {"replicas": 1, "progressDeadlineSeconds": 1}
    cluster.add("deployments", gateway)
    with Workflow("foreign") as flow:
        StreamTask("t", service="gateway").restart_on(event("restart-gateway"))
    await upload(http, flow)

    await client.append("restart-gateway", "1")

    async def failed() -> str:
        runs = await client.runs(workflow="foreign", task="t", limit=1)
        return runs[0].error if runs and runs[0].status == "FAILED" else ""

    error = await eventually(failed, "it failed")
    assert error.startswith("Kubernetes refused: PATCH ")
    assert 'deployments.apps "headrace-gateway" is forbidden' in error


async def test_refusal_of_the_server_is_told_in_its_words(cluster: Real) -> None:
    api = KubernetesApi(cluster.server.url, cluster.account)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": {"spec": {}}}}

    with pytest.raises(ApiRefusedError, match=r"spec\.template\.spec\.containers: Required value") as refused:
        await api.call("POST", JOBS, job)

    assert (refused.value.status, refused.value.reason) == (422, "Invalid")
    await api.close()
