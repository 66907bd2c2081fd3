"""A version that was deployed keeps its own inputs, whatever the model's definition says by then."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headrace_core.control.client import ControlClient
from headrace_core.control.records import ModelVersion
from headrace_core.definitions.models import IdInput, Model, load_models, parse_path, told_of
from headrace_core.learning.inputs import hash_id
from headrace_gateway.scoring.deployed import DeployedModel

MODEL = load_models(Path(__file__).parents[3] / "definitions" / "models")["ctr"]
CITY = IdInput("city", parse_path("user.city"), "city")
ITEM = IdInput("item_id", parse_path("item_id"), "item_id")


def a_model(*inputs: IdInput) -> Model:
    return replace(MODEL, inputs=inputs)


def a_version(number: int, *inputs: IdInput, reads: bool = True) -> ModelVersion:
    told = [{"name": i.name} | ({"reads": told_of(i)} if reads else {}) for i in inputs]
    return ModelVersion(
        model="ctr", version=number, stage="DEPLOYED", artifact="", parent=None, manifest={"inputs": told},
        metrics={}, track="stable", history=[],
    )  # fmt: skip


@pytest.fixture
async def deployed() -> Any:
    made = DeployedModel(ControlClient("http://127.0.0.1:9", "test"), a_model(CITY, ITEM))
    yield made
    await made.stop()


def columns(deployed: DeployedModel) -> dict[str, Any]:
    assert deployed.current is not None
    return deployed.current.columns.from_request({"city": "Rome", "land": "Italy"}, {}, "u", "p", [("i1", {})])


async def test_version_keeps_an_input_that_a_new_definition_lacks(deployed: DeployedModel) -> None:
    deployed.take(a_version(1, CITY, ITEM))

    deployed.define(a_model(ITEM))

    assert deployed.current is not None
    assert deployed.current.inputs == ("city", "item_id")
    assert columns(deployed)["city"] == np.array([hash_id("city", "Rome")])


async def test_version_of_a_former_definition_is_taken_with_its_own_inputs(deployed: DeployedModel) -> None:
    deployed.define(a_model(replace(CITY, path=parse_path("user.land"))))

    deployed.take(a_version(2, CITY, ITEM))

    assert columns(deployed)["city"] == np.array([hash_id("city", "Rome")])


async def test_version_that_does_not_tell_how_it_reads_is_read_as_defined(deployed: DeployedModel) -> None:
    deployed.take(a_version(1, CITY, reads=False))
    read = columns(deployed)
    deployed.take(a_version(2, replace(CITY, name="region"), reads=False))

    assert read.keys() == {"city"}
    assert deployed.current is not None
    assert deployed.current.version == 1  # nobody knows what `region` is
