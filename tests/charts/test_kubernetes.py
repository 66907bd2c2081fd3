"""Kubernetes takes every manifest: by its own schemas of three versions, and by those of the custom resources."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import referencing
import yaml
from kubernetes_validate.utils import schema_contents

from tests.charts.helm import (
    CHART,
    DEV_STORES,
    ROOT,
    VALUES,
    Manifest,
    dev_stores,
    job_template,
    named,
    rendered,
    template,
)

VERSIONS: Final = ("1.35.0", "1.36.0", "1.37.0")
#: kind's own configuration is not for Kubernetes.
EXAMPLES: Final = [file for file in sorted((ROOT / "k8s").glob("*.yaml")) if file.name != "kind.yaml"]
CUSTOM: Final = Path(__file__).parent / "custom_resources"


@cache
def checker(version: str, kind: str, api: str) -> jsonschema.Draft202012Validator:
    """Of a kind: from kubernetes-validate, strict, or of a custom resource.

    Raises:
        LookupError: nobody knows this kind.
    """
    group, _, number = api.rpartition("/")
    custom = CUSTOM / f"{kind.lower()}-{group}-{number}.json"
    if custom.exists():
        return jsonschema.Draft202012Validator(json.loads(custom.read_text(encoding="utf-8")))
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    try:
        schema = schema_contents(f"{folder}/{name}.json", version)
    except FileNotFoundError:
        raise LookupError(f"{api} {kind} is unknown to Kubernetes {version}") from None
    return jsonschema.Draft202012Validator(schema, registry=definitions(folder, version))


@cache
def definitions(folder: str, version: str) -> "referencing.Registry[Any]":
    return (
        referencing.Resource.from_contents(schema_contents(f"{folder}/_definitions.json", version))
        @ referencing.Registry()
    )


def faults(version: str, manifest: Manifest) -> list[str]:
    name = f"{manifest['kind']}/{manifest['metadata']['name']}"
    errors = checker(version, manifest["kind"], manifest["apiVersion"]).iter_errors(manifest)
    return [f"{name}: {error.json_path}: {error.message}" for error in errors]


@cache
def distinct() -> list[Manifest]:
    """Each manifest of all values once: most are the same in several."""
    found = {
        json.dumps(manifest, sort_keys=True): manifest
        for values in VALUES
        for manifest in [*rendered()[values], job_template(rendered()[values])]
    }
    return list(found.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_the_chart_makes(version: str) -> None:
    assert [fault for manifest in distinct() for fault in faults(version, manifest)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_stores_for_one_machine(version: str) -> None:
    manifests = [*dev_stores(), *template(DEV_STORES, "--set", "objects.enabled=true")]

    assert [fault for manifest in manifests for fault in faults(version, manifest)] == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.stem)
def test_kubernetes_takes_the_examples(file: Path) -> None:
    manifests = [m for m in yaml.safe_load_all(file.read_text(encoding="utf-8")) if m]

    assert manifests
    assert [fault for manifest in manifests for fault in faults(VERSIONS[-1], manifest)] == []


def test_examples_make_what_the_chart_asks_for() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    manifests = [m for file in EXAMPLES for m in yaml.safe_load_all(file.read_text(encoding="utf-8")) if m]
    kafka, postgres = named(manifests, "Kafka", "headrace"), named(manifests, "Cluster", "headrace-postgres")

    # By these names Strimzi and CloudNativePG call what they make.
    listener = kafka["spec"]["kafka"]["listeners"][0]
    assert values["kafka"]["bootstrapServers"] == f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}"
    assert values["postgres"] == {"existingSecret": f"{postgres['metadata']['name']}-app", "key": "uri"}
    assert named(manifests, "KafkaNodePool", "nodes")["spec"]["replicas"] >= values["kafka"]["replication"] == 3
    assert kafka["spec"]["kafka"]["config"]["min.insync.replicas"] == 2
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] != "Namespace"} == {"headrace"}


def test_all_custom_resources_that_are_made_are_known() -> None:
    made = {f"{m['kind'].lower()}-{m['apiVersion'].replace('/', '-')}" for m in distinct()}

    assert {"scaledobject-keda.sh-v1alpha1", "servicemonitor-monitoring.coreos.com-v1"} <= made


def test_unknown_kind_fails() -> None:
    with pytest.raises(LookupError, match=r"example\.com/v1 Recommender is unknown"):
        faults(VERSIONS[0], {"apiVersion": "example.com/v1", "kind": "Recommender", "metadata": {"name": "a"}})


@pytest.mark.parametrize("kind", ["ServiceMonitor", "ScaledObject", "Deployment", "NetworkPolicy", "Job"])
def test_unknown_field_fails(kind: str) -> None:
    manifest = next(m for m in distinct() if m["kind"] == kind)

    assert faults(VERSIONS[0], {**manifest, "spec": {**manifest["spec"], "replicaz": 1}})
