"""Values that one installation sets differently from another, so that it need not repeat a whole flow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headrace_core.workflow.document import WorkflowError

#: Instead of the workflow file's .py.
SUFFIX: Final = ".parameters.yaml"

Value = TypeVar("Value", int, float, str, bool)


@dataclass(frozen=True, slots=True)
class _Given:
    values: Mapping[str, Any]
    asked: set[str] = field(default_factory=set)


_GIVEN: ContextVar[_Given | None] = ContextVar("parameters", default=None)


def parameter(name: str, default: Value) -> Value:
    """The value that `<workflow file>.parameters.yaml` gives this name; a compiled document holds it as it was then.

    Args:
        name: of the parameter.
        default: where the file does not tell, or is not there.

    Raises:
        WorkflowError: the file's value is of another type.
    """
    given = _GIVEN.get()
    if given is None:
        return default
    given.asked.add(name)
    value = given.values.get(name, default)
    if type(value) is not type(default):
        raise WorkflowError(f"parameter {name} is {value!r}: want one like {default!r}")
    return value


@contextmanager
def parameters_beside(path: Path) -> Iterator[None]:
    """What `parameter` gives while a workflow file is loaded.

    Raises:
        WorkflowError: the file of the values is wrong, or names what the workflow does not ask for.
    """
    file = path.with_suffix(SUFFIX)
    given = _Given(_read(file))
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        _GIVEN.reset(token)
    if strange := sorted(given.values.keys() - given.asked):
        raise WorkflowError(f"{file}: {path.name} has no parameter {', '.join(strange)}")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        told = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise WorkflowError(f"{file}: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told):
        raise WorkflowError(f"{file}: want names with values, like `base_after_marks: 14`")
    return told
