"""skaffold.yaml: of the form that skaffold takes, and of one mind with Dockerfile and charts."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import jsonschema
import psutil
import pytest
import yaml
from headrace_stack.locks import IMAGES

from tests.charts.helm import (
    CHART,
    ROOT,
    VALUES,
    containers,
    environment,
    named,
    of_kind,
    pod,
    rendered,
    template,
    workloads,
)

CONFIG: Final[dict[str, Any]] = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
#: Lies beside a checkout, not in it.
SCHEMA: Final = ROOT.parent / "shared" / "skaffold" / "v4beta14.schema.json"
ARTIFACTS: Final = CONFIG["build"]["artifacts"]


def with_profile(name: str) -> dict[str, Any]:
    """The configuration with a profile's patches."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for patch in next(p for p in config["profiles"] if p["name"] == name)["patches"]:
        at: Any = config
        *path, last = patch["path"].strip("/").split("/")
        for step in path:
            at = at[int(step)] if isinstance(at, list) else at[step]
        if patch["op"] == "remove":
            del at[last]
        else:
            at[last] = patch["value"]
    return config


def chart_release(config: dict[str, Any]) -> dict[str, Any]:
    release: dict[str, Any] = next(r for r in config["deploy"]["helm"]["releases"] if r["name"] == "headrace")
    return release


@pytest.mark.skipif(not SCHEMA.exists(), reason=f"skaffold's JSON Schema is not at {SCHEMA}")
@pytest.mark.parametrize("profile", [None, "dev", "ci"])
def test_skaffold_takes_it(profile: str | None) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    jsonschema.Draft7Validator(schema).validate(with_profile(profile) if profile else CONFIG)


def test_every_image_is_built_from_the_one_dockerfile() -> None:
    assert sorted(a["docker"]["buildArgs"]["SERVICE"] for a in ARTIFACTS) == sorted(IMAGES)
    for artifact in ARTIFACTS:
        assert artifact["image"] == f"headrace/{artifact['docker']['buildArgs']['SERVICE']}"
        assert artifact["docker"]["dockerfile"] == "Dockerfile"


def test_an_image_depends_on_the_sources_of_no_other_service() -> None:
    copied = re.findall(r"^COPY (services/\S*)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)

    assert copied == ["services/core", "services/${PACKAGE}"]
    for artifact in ARTIFACTS:
        told = artifact["docker"]["buildArgs"]
        assert told["PACKAGE"] == told["SERVICE"].replace("-", "_")
        assert (ROOT / "services" / told["PACKAGE"]).is_dir()


def test_chart_is_given_every_image_that_was_built() -> None:
    given = chart_release(CONFIG)["setValueTemplates"]
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    assert len(given) == len(ARTIFACTS)
    for artifact in ARTIFACTS:
        service = artifact["docker"]["buildArgs"]["SERVICE"]
        key = re.sub(r"-(.)", lambda m: m[1].upper(), service)
        assert "image" in values[key]
        variable = re.sub(r"[^A-Za-z0-9]", "_", artifact["image"])
        assert given[f"{key}.image"] == f"{{{{.IMAGE_FULLY_QUALIFIED_{variable}}}}}"


def test_files_and_services_that_it_names_are_there() -> None:
    for release in CONFIG["deploy"]["helm"]["releases"]:
        assert (ROOT / release["chartPath"] / "Chart.yaml").exists()
        assert all((ROOT / file).exists() for file in release.get("valuesFiles", []))
    assert all((ROOT / file).exists() for file in CONFIG["manifests"]["rawYaml"])
    services = {m["metadata"]["name"]: m for m in of_kind(rendered()["small"], "Service")}
    for forward in CONFIG["portForward"]:
        assert forward["port"] in {p["port"] for p in services[forward["resourceName"]]["spec"]["ports"]}
        assert forward["address"] == "127.0.0.1"


def test_changed_files_go_where_the_service_takes_its_code_from() -> None:
    manifests = rendered()["development"]
    for artifact in ARTIFACTS:
        service = artifact["docker"]["buildArgs"]["SERVICE"]
        workload = next(w for name, w in workloads(manifests) if name == service)
        first = environment(containers(workload)[0])["PYTHONPATH"]
        for rule in artifact["sync"]["manual"]:
            assert rule["dest"] == first
            assert list(ROOT.glob(rule["src"])), rule["src"]
            assert (ROOT / rule["strip"] / "pyproject.toml").exists()
            assert rule["src"].removeprefix(rule["strip"]).startswith("headrace_")
        mount = next(m for m in containers(workload)[0]["volumeMounts"] if m["mountPath"] == first)
        assert next(v for v in pod(workload)["volumes"] if v["name"] == mount["name"])["emptyDir"]


def test_development_is_on_in_its_profile_alone() -> None:
    assert chart_release(with_profile("dev"))["setValues"] == {"development.enabled": True}
    assert "setValues" not in chart_release(with_profile("ci"))
    for values in set(VALUES) - {"development"}:
        for name, workload in workloads(rendered()[values]):
            assert "PYTHONPATH" not in environment(containers(workload)[0]), name
            assert "initContainers" not in pod(workload), name


def test_ci_opens_no_ports() -> None:
    assert "portForward" not in with_profile("ci")


def until(condition: Any) -> Any:
    """Wait for it."""
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_hangup_starts_a_service_again_and_term_ends_it(tmp_path: Path) -> None:
    workload = named(template(CHART, "--set", "development.enabled=true"), "Deployment", "headrace-gateway")
    command = [*containers(workload)[0]["command"], *containers(workload)[0]["args"]]
    service = tmp_path / "headrace-gateway"
    told = tmp_path / "told"
    service.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('stopped', os.getpid(), flush=True)))\n"
        "print('started', os.getpid(), flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    service.chmod(0o755)

    def lines() -> list[list[str]]:
        return [line.split() for line in told.read_text(encoding="utf-8").splitlines()]

    with told.open("wb") as out, psutil.Popen(command, stdout=out, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}) as shell:
        until(lambda: len(lines()) == 1)
        shell.send_signal(1)
        until(lambda: len(lines()) == 3)
        shell.terminate()
        shell.wait(20)

    (start, first), (stop, ended), (again, second), (last, gone) = lines()
    assert (start, stop, again, last) == ("started", "stopped", "started", "stopped")
    assert (first, second) == (ended, gone)
    assert first != second


def test_hook_after_sync_is_that_hangup() -> None:
    for artifact in ARTIFACTS:
        hook = artifact["sync"]["hooks"]["after"][0]["container"]["command"]
        done = subprocess.run(["sh", "-n", "-c", hook[2]], capture_output=True, check=False)
        assert (hook[:2], hook[2], done.returncode) == (["sh", "-c"], "kill -HUP 1", 0)
