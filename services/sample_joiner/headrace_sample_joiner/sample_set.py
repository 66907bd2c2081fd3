"""The sample set: which actions label, within which window."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema
from headrace_core.contracts import ACTION_BY_NAME
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class SampleSetError(Exception):
    """The file is wrong; the message tells file, line and fault."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """How samples are made.

    Attributes:
        name: of the set.
        actions: numbers of the actions that label.
        window_ms: how long an impression waits for an action before it is negative.
        horizon_ms: how long after it an action still corrects.
    """

    name: str
    actions: frozenset[int]
    window_ms: int
    horizon_ms: int


def load_sample_set(file: Path) -> SampleSet:
    """Read a sample set.

    Raises:
        SampleSetError: it is wrong.
    """
    schema = json.loads((file.parent / "sample.schema.json").read_text(encoding="utf-8"))
    try:
        data: Any = YAML().load(file)
    except FileNotFoundError:
        raise SampleSetError(f"{file}: not found") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SampleSetError(f"{file}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}") from error
    for fault in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(json.dumps(data))):
        line = data.lc.data[fault.absolute_path[0]][0] + 1 if fault.absolute_path else 1
        raise SampleSetError(f"{file}:{line}: {fault.message}")
    actions = frozenset(ACTION_BY_NAME[name] for name in data["actions"])
    return SampleSet(data["sample_set"], actions, _duration(data["window"]), _duration(data["horizon"]))


def _duration(text: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise ValueError(text)  # the schema holds it
    return int(match[1]) * _UNITS_MS[match[2]]
