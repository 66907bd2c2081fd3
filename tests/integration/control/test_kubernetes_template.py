"""The Job of a run, made of a template."""

from pathlib import Path
from typing import Any

import pytest
from headrace_control_plane.executors.executor import ExecutorError
from headrace_control_plane.executors.kubernetes_template import JobTemplate

from tests.charts.helm import CHART, named, template
from tests.charts.test_kubernetes import VERSIONS, faults


@pytest.fixture(scope="module")
def job_template(tmp_path_factory: pytest.TempPathFactory) -> JobTemplate:
    """As the chart makes it."""
    manifests = template(CHART, "--set", "jobs.executor=kubernetes")
    file = tmp_path_factory.mktemp("template") / "job-template.yaml"
    file.write_text(named(manifests, "ConfigMap", "headrace-job-template")["data"]["job-template.yaml"])
    return JobTemplate.read(file)


def a_run(**fields: Any) -> dict[str, Any]:
    return {"run_id": "flow.train.7", "attempt": 1, "created_at": 1, "command": ["headrace-train"], **fields}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_job_of_a_run(job_template: JobTemplate, version: str) -> None:
    assert faults(version, job_template.job(a_run(run_id="w" * 80 + ".t.1"))) == []


def test_name_is_the_same_for_the_same_attempt_and_no_other(job_template: JobTemplate) -> None:
    runs = [a_run(), a_run(attempt=2), a_run(run_id="flow.train.8"), a_run(created_at=2)]

    names = {job_template.name(run) for run in runs}

    assert len(names) == len(runs)
    assert job_template.name(a_run(command=["other"])) == job_template.name(a_run())


@pytest.mark.parametrize(
    ("command", "image"),
    [("headrace-train", "trainer"), ("headrace-validate", "model-validator"), ("anything", "trainer")],
)
def test_command_runs_in_the_image_that_has_it(job_template: JobTemplate, command: str, image: str) -> None:
    job = job_template.job(a_run(command=[command]))

    assert image in job["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("a: [", "job-template"),
        ("kind: Job", "lacks 'metadata'"),
        ("text", "it lacks"),
        ("{metadata: {namespace: a, labels: {}}, kind: Pod}", "it lacks 'spec'|no Job"),
    ],
)
def test_template_that_can_not_be_used_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "job-template.yaml"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ExecutorError, match=message):
        JobTemplate.read(file)
