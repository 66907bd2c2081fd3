"""What is next for a run of a streaming task, and for a Job whose run is over: decided from what there is."""

from typing import Any

import pytest
from headrace_control_plane.executors.executor import ExecutorError
from headrace_control_plane.executors.kubernetes import KEEP_MS, due
from headrace_control_plane.executors.kubernetes_api import nearest
from headrace_control_plane.executors.kubernetes_streams import Apply, Outcome, Patience, step

LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}
UP: dict[str, Any] = {"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def a_deployment(wanted: int = 2, marked: str = "", remembers: str = "", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"generation": 4, "annotations": {"headrace/replicas": remembers}},
        "spec": {"replicas": wanted, "template": {"metadata": {"annotations": {"headrace/run-id": marked}}}},
        "status": status,
    }


def a_run(status: str, command: str = "start") -> dict[str, Any]:
    return {"run_id": "f.t.1", "status": status, "command": [command]}


def scaled(replicas: int, remembered: str) -> Apply:
    fields = {"metadata": {"annotations": {"headrace/replicas": remembered}}, "spec": {"replicas": replicas}}
    return Apply("headrace-scale", fields)


@pytest.mark.parametrize(
    ("run", "deployment", "wanted"),
    [
        (a_run("STOPPING", "stop"), a_deployment(3, **UP), scaled(0, "3")),
        (a_run("STOPPING", "stop"), a_deployment(0, observedGeneration=3), None),
        (a_run("STOPPING", "stop"), a_deployment(0, observedGeneration=4, replicas=1), None),
        (a_run("STOPPING", "stop"), a_deployment(0, observedGeneration=4, terminatingReplicas=1), None),
        (a_run("STOPPING", "stop"), a_deployment(0, observedGeneration=4), Outcome("STOPPED")),
        (a_run("STARTING"), a_deployment(0, remembers="3"), scaled(3, "3")),
        (a_run("STARTING"), a_deployment(0), scaled(1, "1")),
        (a_run("STARTING"), a_deployment(0, remembers="many"), scaled(1, "1")),
        (a_run("STARTING"), a_deployment(0, remembers="0"), scaled(1, "1")),
        (a_run("STARTING"), a_deployment(2, **UP), Outcome("RUNNING")),
        (a_run("STARTING"), a_deployment(2, **UP | {"availableReplicas": 1}), None),
        (a_run("STARTING"), a_deployment(2, **UP | {"replicas": 3}), None),
        (a_run("STARTING"), a_deployment(2, **UP | {"observedGeneration": 3}), None),
        (a_run("STARTING"), a_deployment(2, observedGeneration=4, conditions=[LATE]), None),
        (a_run("STARTING", "restart"), a_deployment(2, "f.t.1", **UP), Outcome("RUNNING")),
        (
            a_run("STARTING", "restart"),
            a_deployment(2, "f.t.1", observedGeneration=4, conditions=[LATE]),
            Outcome("FAILED", "its rollout failed: too late"),
        ),
        (a_run("STARTING", "restart"), a_deployment(2, "f.t.1", observedGeneration=3, conditions=[LATE]), None),
        (a_run("RUNNING"), a_deployment(0, observedGeneration=4), Outcome("STOPPED")),
        (a_run("RUNNING"), a_deployment(2, observedGeneration=4), None),
    ],
)
def test_next_step_follows_from_the_deployment(
    run: dict[str, Any], deployment: dict[str, Any], wanted: Apply | Outcome | None
) -> None:
    assert step(run, deployment) == wanted


def test_restart_marks_the_pods_of_another_run_with_its_own() -> None:
    told = step(a_run("STARTING", "restart"), a_deployment(2, "f.t.0", **UP))

    assert isinstance(told, Apply)
    assert (told.manager, told.fields) == (
        "headrace-restart",
        {"spec": {"template": {"metadata": {"annotations": {"headrace/run-id": "f.t.1"}}}}},
    )


def test_rollout_may_take_as_long_as_it_goes_on() -> None:
    patience = Patience()

    told = [patience.ends("f.t.1", a_deployment(48, updatedReplicas=n), n * 590_000) for n in range(48)]

    assert told == [None] * 48


def test_rollout_that_stands_still_ends_the_patience_a_little_after_its_deadline() -> None:
    patience, deployment = Patience(), a_deployment(2, availableReplicas=1)

    told = [patience.ends("f.t.1", deployment, ms) for ms in (0, 600_001, 615_000, 615_001)]

    late = Outcome("FAILED", "1 of 2 replicas are available, and for 600 s none has come")
    assert told == [None, None, None, late]


def test_another_run_has_its_own_patience() -> None:
    patience, deployment = Patience(), a_deployment(2, availableReplicas=1)
    patience.ends("f.t.1", deployment, 0)
    patience.keep({"f.t.2"})

    assert patience.ends("f.t.2", deployment, 900_000) is None
    assert patience.ends("f.t.1", deployment, 900_000) is None


MADE, MADE_MS = "2026-01-01T00:00:00Z", 1_767_225_600_000
ENDED = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": MADE}]}


@pytest.mark.parametrize(
    ("status", "row", "after_ms", "wanted"),
    [
        (ENDED, {"ended_at": MADE_MS}, KEEP_MS, False),
        (ENDED, {"ended_at": MADE_MS}, KEEP_MS + 1, True),
        (ENDED, {"ended_at": None}, 10 * KEEP_MS, False),
        ({"active": 1}, {"ended_at": None}, 10 * KEEP_MS, False),
        ({"active": 1}, {"ended_at": MADE_MS}, 30_000, False),
        ({"active": 1}, {"ended_at": MADE_MS}, 30_001, True),
        (ENDED, None, KEEP_MS, False),
        (ENDED, None, KEEP_MS + 1, True),
        ({}, None, 30_000, False),
        ({}, None, 30_001, True),
    ],
)
def test_job_is_deleted_when_its_time_is_over(
    status: dict[str, Any], row: dict[str, Any] | None, after_ms: int, *, wanted: bool
) -> None:
    job = {"metadata": {"creationTimestamp": MADE}, "status": status}

    assert due(job, row, MADE_MS + after_ms) is wanted


def test_api_server_is_the_one_that_every_pod_is_told_of() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}

    assert nearest("", pod) == "https://[fd00::1]:6443"
    assert nearest("", pod | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "https://10.0.0.1:6443"
    assert nearest("http://here/", pod) == "http://here"
    with pytest.raises(ExecutorError, match="HEADRACE_KUBERNETES_API"):
        nearest("", {})
