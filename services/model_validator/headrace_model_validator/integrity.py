"""Whether an artifact is what it says, and what the model's definition says. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from headrace_core.definitions.models import IdsInput, Input, Model, NumberInput
from headrace_core.learning.weights import weights_hash
from headrace_core.serving.messages import Signature
from headrace_core.serving.tensors import dtype_name
from numpy.typing import NDArray

from headrace_model_validator.artifact import Artifact
from headrace_model_validator.findings import Finding

_SCORE: Final = "score"


def integrity(artifact: Artifact, name: str, version: int, model: Model) -> Iterator[Finding]:
    """What the files alone tell.

    Args:
        artifact: its files.
        name: of the model that it was registered for; the model's own or its base's.
        version: likewise.
        model: the definition.
    """
    told = artifact.manifest
    whose = f"{told.get('model')} {told.get('version')}"
    yield Finding("manifest", whose == f"{name} {version}", whose, f"{name} {version}")
    inputs = [_plain_input(i) for i in told.get("inputs") or ()]
    wanted = [_defined_input(i) for i in model.inputs]
    yield Finding(
        "manifest_inputs",
        sorted(inputs) == sorted(wanted),
        note=_difference(dict(inputs), dict(wanted), "the manifest"),
    )
    made = weights_hash(artifact.variables)
    yield Finding("weights_hash", told.get("weights") == made, made, str(told.get("weights")))
    yield from _finite(artifact.variables)


def _finite(variables: Mapping[str, NDArray[Any]]) -> Iterator[Finding]:
    bad = {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): count
        for name, array in variables.items()
        if np.issubdtype(array.dtype, np.floating) and (count := int(array.size - np.isfinite(array).sum()))
    }
    names = ", ".join(f"{count} in {name}" for name, count in sorted(bad.items()))
    yield Finding("finite_weights", not bad, sum(bad.values()), "0 that are NaN or infinite", note=names)


def signature(found: Signature | None, model: Model) -> Finding:
    """Whether the graph takes what the definition says and gives scores."""
    if found is None:
        return Finding("signature", passed=False, note="there is no signature serving_default")
    inputs = {
        name: f"{dtype_name(info.dtype)} {[d.size for d in info.tensor_shape.dim]}"
        for name, info in found.inputs.items()
    }
    faults = _difference(inputs, dict(_defined_input(i) for i in model.inputs), "the signature")
    outputs = {
        name: f"{dtype_name(info.dtype)} {[d.size for d in info.tensor_shape.dim]}"
        for name, info in found.outputs.items()
    }
    if outputs.get(_SCORE) != "float32 [-1]":
        faults = "; ".join(filter(None, (faults, f"the output score is {outputs.get(_SCORE)}, not float32 [-1]")))
    return Finding("signature", not faults, note=faults)


def _defined_input(told: Input) -> tuple[str, str]:
    dtype = "float32" if isinstance(told, NumberInput) else "int64"
    return told.name, f"{dtype} {[-1, told.length] if isinstance(told, IdsInput) else [-1]}"


def _plain_input(told: Mapping[str, Any]) -> tuple[str, str]:
    shape: Sequence[int | None] = told.get("shape") or ()
    return str(told.get("name")), f"{told.get('dtype')} {[-1 if n is None else n for n in shape]}"


def _difference(found: Mapping[str, str], wanted: Mapping[str, str], whose: str) -> str:
    faults = [f"{whose} has no {name}" for name in wanted if name not in found]
    faults += [f"{whose} has {name}, which is not defined" for name in found if name not in wanted]
    faults += [
        f"{name} is {found[name]} in {whose}, {kind} is defined"
        for name, kind in wanted.items()
        if name in found and found[name] != kind
    ]
    return "; ".join(faults)
