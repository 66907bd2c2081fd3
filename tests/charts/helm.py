"""Helm run over the charts, and what is asked of its output."""

import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from headrace_stack.helm import binary

ROOT: Final = Path(__file__).resolve().parents[2]
CHARTS: Final = ROOT / "charts"
CHART: Final = CHARTS / "headrace"
DEV_STORES: Final = CHARTS / "headrace-dev-stores"
NAMESPACE: Final = "recommendations"

Manifest = dict[str, Any]

#: Each file of values that is shipped, by the name under which tests know it.
VALUES: Final[dict[str, tuple[Path, ...]]] = {
    "default": (),
    "small": (CHART / "values-small.yaml",),
    "large": (CHART / "values-large.yaml",),
    **{file.stem: (file,) for file in sorted((CHART / "ci").glob("*.yaml"))},
}


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run it."""
    if not binary().exists():
        raise FileNotFoundError(f"{binary()}: run `make setup`")
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, check=False)


def template(chart: Path, *arguments: str | Path, release: str = "headrace") -> list[Manifest]:
    """What a chart renders.

    Raises:
        AssertionError: it does not render; the message is Helm's.
    """
    done = helm("template", release, chart, "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]


@cache
def rendered() -> Mapping[str, list[Manifest]]:
    """What charts/headrace renders from each file of values; Helm is run once for each, all at the same time."""

    def render(files: tuple[Path, ...]) -> list[Manifest]:
        return template(CHART, *(part for file in files for part in ("-f", file)))

    with ThreadPoolExecutor() as pool:
        return dict(zip(VALUES, pool.map(render, VALUES.values()), strict=True))


@cache
def dev_stores() -> list[Manifest]:
    """What charts/headrace-dev-stores renders."""
    return template(DEV_STORES)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [m for m in manifests if m["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def component(manifest: Manifest) -> str:
    """Which service it belongs to."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def job_template(manifests: list[Manifest]) -> Manifest:
    """The Job that is inside a ConfigMap."""
    maps = [m for m in of_kind(manifests, "ConfigMap") if "job-template.yaml" in m["data"]]
    assert len(maps) == 1
    job: Manifest = yaml.load(maps[0]["data"]["job-template.yaml"], Loader=yaml.CSafeLoader)
    return job


def workloads(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Everything that makes pods, by component; the template of runs' Jobs included."""
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield component(manifest), manifest
    if any("job-template.yaml" in m["data"] for m in of_kind(manifests, "ConfigMap")):
        yield "run", job_template(manifests)


def pod(workload: Manifest) -> Manifest:
    """Specification of its pods."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Manifest) -> list[Manifest]:
    """All containers of its pods, its own first."""
    spec = pod(workload)
    return [*spec["containers"], *spec.get("initContainers", [])]


def environment(container: Manifest) -> dict[str, Any]:
    """Its variables; of those that are no plain value, where they come from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}
