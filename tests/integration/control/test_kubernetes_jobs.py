"""Batch tasks as Jobs, on API servers double and real; each Job is a process that goes through headrace-run."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from headrace_control_plane.executors.kubernetes_template import JobTemplate
from headrace_core.control.client import ControlClient, Run
from headrace_core.workflow import BatchTask, Workflow

from tests.charts.helm import NAMESPACE
from tests.cluster.faults import Faults
from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload
from tests.integration.control.kubernetes_servers import PLANE, SERVERS, Cluster, cluster_of, release
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack

JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(request, tmp_path_factory) as one:
        release(one)
        yield one


@pytest.fixture(scope="module")
def control(make_control: Any, cluster: Cluster) -> Iterator[ControlPlane]:
    """The control plane of a server's tests."""
    plane: ControlPlane = make_control(**cluster.settings())
    cluster.nodes_see(plane.url)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(autouse=True)
async def as_ever(cluster: Cluster) -> AsyncIterator[None]:
    """What a test broke is whole again."""
    yield
    cluster.faults.away, cluster.faults.status, cluster.faults.drop_after_create = False, None, 0
    cluster.kubelet = True
    release(cluster)


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def waiting_for(file: Path) -> str:
    return python(f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.05)")


async def started(http: httpx.AsyncClient, name: str, run: str, **options: Any) -> str:
    """Upload a workflow of one task, start it by hand, and give back the run's id."""
    with Workflow(name) as flow:
        BatchTask("t", run=run, **options)
    await upload(http, flow)
    answer = await http.post(f"/workflows/{name}/tasks/t/start")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


async def when(client: ControlClient, run_id: str, *statuses: str) -> Run:
    """The run, when it has come to one of these."""

    async def look() -> Run | None:
        run = await client.run(run_id)
        return run if run.status in statuses else None

    return await eventually(look, f"{run_id} is {' or '.join(statuses)}", 90)


async def job_of(cluster: Cluster, run_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        return cluster.job_of(run_id)

    return await eventually(look, f"there is a Job of {run_id}")


async def gone(cluster: Cluster, name: str) -> None:
    async def look() -> bool:
        return all(job["metadata"]["name"] != name for job in cluster.all("jobs"))

    await eventually(look, f"the Job {name} is gone")


async def test_run_is_a_job_by_the_charts_template(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster
) -> None:
    run_id = await started(http, "job", python("import json; print(json.dumps(dict(n=1)))"))

    run = await when(client, run_id, "SUCCEEDED", "FAILED")

    assert (run.status, run.error, run.result) == ("SUCCEEDED", "", {"n": 1})
    job = await job_of(cluster, run_id)
    assert job["metadata"]["annotations"] == {"headrace/run-id": run_id, "headrace/attempt": "1"}
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "headrace-control-plane"
    assert job["metadata"]["labels"]["app.kubernetes.io/instance"] == "headrace"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["headrace-run", run_id]
    assert job["spec"]["template"]["metadata"]["annotations"] == {"headrace/run-id": run_id}


async def test_job_is_the_control_planes_deployments_but_not_its_to_control(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster
) -> None:
    run_id = await started(http, "owned", python("pass"))

    await when(client, run_id, "SUCCEEDED", "FAILED")

    uid = cluster.deployment(PLANE)["metadata"]["uid"]
    assert (await job_of(cluster, run_id))["metadata"]["ownerReferences"] == [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": PLANE, "uid": uid, "controller": False}
    ]


async def test_release_that_is_removed_takes_its_jobs_along(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    ended = await started(http, "left-over", python("pass"))
    works = await started(http, "at-work", waiting_for(tmp_path / "never"))
    await when(client, ended, "SUCCEEDED")
    await when(client, works, "RUNNING")
    names = [(await job_of(cluster, run_id))["metadata"]["name"] for run_id in (ended, works)]

    cluster.remove("deployments", PLANE)

    for name in names:
        await gone(cluster, name)
    process = cluster.processes[names[1]]
    assert await asyncio.to_thread(process.wait, 30) != 0


async def test_no_job_is_made_when_the_release_is_gone_until_it_is_there_again(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster
) -> None:
    await when(client, await started(http, "seen", python("pass")), "SUCCEEDED")
    cluster.remove("deployments", PLANE)
    looked, made = (cluster.requests.count(one) for one in (f"GET {DEPLOYMENTS}", f"POST {JOBS}"))

    run_id = await started(http, "too-late", python("pass"))

    async def again() -> bool:
        return cluster.requests.count(f"GET {DEPLOYMENTS}") >= looked + 3

    await eventually(again, "it was looked for")
    assert cluster.requests.count(f"POST {JOBS}") == made
    release(cluster)
    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)


async def test_job_of_a_control_plane_without_a_deployment_has_no_owner(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, control: ControlPlane
) -> None:
    await asyncio.to_thread(control.kill)
    cluster.remove("deployments", PLANE)
    await asyncio.to_thread(control.start)

    run_id = await started(http, "alone", python("pass"))

    assert (await when(client, run_id, "SUCCEEDED", "FAILED")).status == "SUCCEEDED"
    assert "ownerReferences" not in (await job_of(cluster, run_id))["metadata"]


async def test_job_whose_creation_was_answered_by_a_lost_connection_runs_once(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.faults.drop_after_create = 1
    before = cluster.requests.count(f"POST {JOBS}")

    run_id = await started(http, "lost-answer", python(f"open({str(tmp_path / 'times')!r}, 'a').write('x')"))
    run = await when(client, run_id, "SUCCEEDED", "FAILED")

    async def asked_again() -> bool:
        return cluster.requests.count(f"POST {JOBS}") > before

    await eventually(asked_again, "it was asked for")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)
    assert cluster.faults.drop_after_create == 0
    assert (tmp_path / "times").read_text() == "x"
    assert len([j for j in cluster.all("jobs") if j["metadata"]["annotations"]["headrace/run-id"] == run_id]) == 1


async def test_creation_that_found_its_own_job_is_taken_for_success(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, table: Any
) -> None:
    cluster.kubelet = False
    cluster.faults.drop_after_create = 1
    before = cluster.requests.count(f"POST {JOBS}")

    run_id = await started(http, "taken-by-us", "work")
    name = (await job_of(cluster, run_id))["metadata"]["name"]

    async def known() -> bool:
        return bool(await table.fetchval("SELECT host FROM control.runs WHERE run_id = $1", run_id) == name)

    await eventually(known, "the Job is known")
    assert cluster.requests.count(f"POST {JOBS}") - before == 2
    assert (await client.run(run_id)).status == "STARTING"
    await http.post("/workflows/taken-by-us/tasks/t/stop")
    assert (await when(client, run_id, "STOPPED")).error == ""


async def test_job_that_still_waits_when_its_run_is_over_is_deleted_soon(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, table: Any
) -> None:
    cluster.kubelet = False
    run_id = await started(http, "in-vain", "work")
    name = (await job_of(cluster, run_id))["metadata"]["name"]
    await http.post("/workflows/in-vain/tasks/t/stop")
    await when(client, run_id, "STOPPED")

    await table.execute("UPDATE control.runs SET ended_at = ended_at - 30000 WHERE run_id = $1", run_id)

    await gone(cluster, name)


async def test_name_that_another_has_taken_fails_the_run_with_its_reason(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, table: Any
) -> None:
    cluster.faults.away = True
    run_id = await started(http, "taken", "work")
    row = await table.fetchrow("SELECT * FROM control.runs WHERE run_id = $1", run_id)
    job = named_as(cluster, row)
    cluster.kubelet = False
    cluster.add("jobs", job)
    cluster.faults.away = False

    run = await when(client, run_id, "FAILED", "SUCCEEDED")

    assert run.error == f"there is a Job {job['metadata']['name']}, which is not ours"
    cluster.remove("jobs", job["metadata"]["name"])


def named_as(cluster: Cluster, row: Any) -> dict[str, Any]:
    """Somebody's Job with the name of this run's."""
    template = JobTemplate.read(cluster.account / "job-template.yaml")
    job = template.job(row)
    job["metadata"]["labels"] = {"app": "another"}
    return job


async def test_job_that_is_refused_for_good_fails_its_run_with_the_servers_words(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster
) -> None:
    cluster.faults.status = 422

    run = await when(client, await started(http, "refused", "work"), "FAILED", "SUCCEEDED")

    assert run.error == "its Job was refused: told to"


async def test_job_that_vanished_is_tried_again_under_another_name(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    run_id = await started(http, "vanishes", waiting_for(tmp_path / "go"), retries=1, backoff="50ms")
    await when(client, run_id, "RUNNING")
    first = (await job_of(cluster, run_id))["metadata"]["name"]

    cluster.remove("jobs", first)

    async def second() -> bool:
        job = cluster.job_of(run_id)
        return job is not None and job["metadata"]["annotations"]["headrace/attempt"] == "2"

    await eventually(second, "there is another Job")
    (tmp_path / "go").touch()
    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 2)
    assert (await job_of(cluster, run_id))["metadata"]["name"] != first


async def test_job_that_failed_without_a_word_fails_its_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    run_id = await started(http, "killed", waiting_for(tmp_path / "never"))
    await when(client, run_id, "RUNNING")
    name = (await job_of(cluster, run_id))["metadata"]["name"]

    os.killpg(cluster.processes[name].pid, signal.SIGKILL)

    run = await when(client, run_id, "FAILED", "SUCCEEDED")
    assert run.error == f"its Job {name} failed: BackoffLimitExceeded Job has reached the specified backoff limit"


async def test_job_that_vanished_behind_a_watch_too_old_to_go_on_is_seen(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    run_id = await started(http, "expired", waiting_for(tmp_path / "never"))
    await when(client, run_id, "RUNNING")
    name = (await job_of(cluster, run_id))["metadata"]["name"]

    cluster.deafen()
    cluster.remove("jobs", name)
    cluster.compact()

    assert (await when(client, run_id, "FAILED")).error == f"its Job {name} vanished"


async def test_watch_goes_on_where_it_was(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    run_id = await started(http, "watched", waiting_for(tmp_path / "never"))
    await when(client, run_id, "RUNNING")
    name = (await job_of(cluster, run_id))["metadata"]["name"]
    lists = cluster.requests.count(f"GET {JOBS}")

    cluster.deafen()
    os.killpg(cluster.processes[name].pid, signal.SIGKILL)

    async def failed() -> bool:
        job = cluster.job_of(run_id)
        return job is not None and "conditions" in job["status"]

    await eventually(failed, "the Job has failed")
    cluster.end_watches()

    assert (await when(client, run_id, "FAILED")).error.startswith(f"its Job {name} failed")
    assert cluster.requests.count(f"GET {JOBS}") == lists  # what was missed was told by the next watch


async def test_jobs_are_adopted_by_the_next_control_plane(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, control: ControlPlane, tmp_path: Path
) -> None:
    lives = await started(http, "adopted", waiting_for(tmp_path / "go"))
    dies = await started(http, "orphaned", waiting_for(tmp_path / "never"))
    for run_id in (lives, dies):
        await when(client, run_id, "RUNNING")

    await asyncio.to_thread(control.kill)
    cluster.remove("jobs", (await job_of(cluster, dies))["metadata"]["name"])
    await asyncio.to_thread(control.start)
    (tmp_path / "go").touch()

    run = await when(client, lives, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)
    assert "vanished" in (await when(client, dies, "FAILED")).error
    assert len([j for j in cluster.all("jobs") if j["metadata"]["annotations"]["headrace/run-id"] == lives]) == 1


async def test_run_that_is_stopped_takes_its_job_along(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, tmp_path: Path
) -> None:
    run_id = await started(http, "stops", waiting_for(tmp_path / "never"))
    await when(client, run_id, "RUNNING")
    name = (await job_of(cluster, run_id))["metadata"]["name"]

    await http.post("/workflows/stops/tasks/t/stop")

    assert (await when(client, run_id, "STOPPED", "FAILED")).status == "STOPPED"
    await gone(cluster, name)
    assert cluster.processes[name].poll() is not None


@pytest.mark.parametrize(
    "fault", [Faults(away=True), Faults(status=503), Faults(status=429), Faults(status=403)], ids=str
)
async def test_outage_of_the_api_server_loses_nothing_and_leaves_the_leader_in_office(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, table: Any, tmp_path: Path, *, fault: Faults
) -> None:
    before = await started(http, f"before-{fault.status}", waiting_for(tmp_path / "go"))
    await when(client, before, "RUNNING")
    epoch = await table.fetchval("SELECT epoch FROM control.scheduler")

    cluster.faults.away, cluster.faults.status = fault.away, fault.status
    cluster.end_watches()
    tried = len(cluster.requests)
    during = await started(http, f"in-{fault.status}", python("pass"))

    async def knocked() -> bool:
        return len(cluster.requests) >= tried + 6

    await eventually(knocked, "it was tried in vain")
    (tmp_path / "go").touch()
    assert (await when(client, before, "SUCCEEDED")).attempt == 1  # runs go on meanwhile
    assert (await client.run(during)).status == "STARTING"
    cluster.faults.away, cluster.faults.status = False, None

    run = await when(client, during, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)
    assert await table.fetchval("SELECT epoch FROM control.scheduler") == epoch


async def test_token_that_was_replaced_is_read_again(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster
) -> None:
    cluster.replace_token()

    run = await when(client, await started(http, "rotated", python("pass")), "SUCCEEDED", "FAILED")

    assert run.status == "SUCCEEDED"


async def test_job_is_deleted_an_hour_after_the_end_of_its_run(
    http: httpx.AsyncClient, client: ControlClient, cluster: Cluster, table: Any
) -> None:
    kept = await started(http, "kept", python("pass"))
    old = await started(http, "old", python("pass"))
    for run_id in (kept, old):
        await when(client, run_id, "SUCCEEDED")
    name = (await job_of(cluster, old))["metadata"]["name"]

    await table.execute("UPDATE control.runs SET ended_at = ended_at - 3600000 WHERE run_id = $1", old)
    await table.execute("UPDATE control.runs SET ended_at = ended_at - 3500000 WHERE run_id = $1", kept)

    await gone(cluster, name)
    assert cluster.job_of(kept) is not None
