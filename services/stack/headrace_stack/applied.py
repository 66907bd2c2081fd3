"""Definitions of a user's own on their way into a stack: what a file is, whether all hold together, and their place on disk."""

import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace_core.definitions.features import Feature, load_features
from headrace_core.definitions.features import Sequence as UserSequence
from headrace_core.definitions.models import IdsInput, Model, load_models
from headrace_core.definitions.watch import FAULTS, DefinitionError
from headrace_core.workflow import WorkflowError, compile_file
from headrace_core.workflow.parameters import SUFFIX
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

FEATURES, MODELS, WORKFLOWS = KINDS = ("features", "models", "workflows")
#: The key by which a YAML file tells what it defines, and its name.
_NAMED_BY: Final = {"feature": FEATURES, "model": MODELS}


@dataclass(frozen=True, slots=True)
class Given:
    """A file that somebody gave.

    Attributes:
        path: where it is.
        kind: features, models or workflows.
        name: of the feature or the model; of workflows that of the file.
    """

    path: Path
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A file with its place among the definitions.

    Attributes:
        kind, name: as of `Given`.
        place: relative to the folder of definitions.
        content: None where the file is taken away.
    """

    kind: str
    name: str
    place: Path
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Definitions:
    """All that a folder defines.

    Attributes:
        features, models: by name.
        documents: of workflows, by the name of their file.
    """

    features: dict[str, Feature]
    models: dict[str, Model]
    documents: dict[str, list[dict[str, Any]]]


def given(paths: Sequence[Path]) -> list[Given]:
    """The files, those of folders by their names.

    Raises:
        DefinitionError: one is not there, or is no definition.
    """
    return [_look_at(file) for path in paths for file in (_inside(path) if path.is_dir() else [path])]


def _inside(folder: Path) -> Iterator[Path]:
    found = [
        file for file in sorted(folder.rglob("*"))
        if file.suffix in {".yaml", ".yml", ".py"} and not file.name.endswith(SUFFIX) and not file.name.startswith(".")
    ]  # fmt: skip
    if not found:
        raise DefinitionError(f"{folder}: holds no feature, model or workflow (*.yaml, *.py)")
    yield from found


def _look_at(file: Path) -> Given:
    if not file.is_file():
        raise DefinitionError(f"{file}: there is no such file")
    if file.suffix == ".py":
        return Given(file, WORKFLOWS, file.stem)
    try:
        told = YAML().load(file)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DefinitionError(f"{file}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{file}:1: is no text in UTF-8") from error
    for key, kind in _NAMED_BY.items():
        if isinstance(told, dict) and isinstance(told.get(key), str):
            return Given(file, kind, told[key])
    raise DefinitionError(
        f"{file}:1: is no definition: a feature begins with `feature: NAME`, a model with `model: NAME`"
    )


def placed(files: Sequence[Given], folder: Path) -> list[Placed]:
    """Each where it replaces what has its name.

    Args:
        files: that are given.
        folder: of the definitions in force.

    Raises:
        DefinitionError: two of them are one definition.
    """
    found: dict[Path, Given] = {}
    made: list[Placed] = []
    for one in files:
        place = _place(one, folder)
        if (other := found.setdefault(place, one)) is not one:
            raise DefinitionError(f"{one.path}:1: {other.path} defines {one.name}, too")
        made.append(Placed(one.kind, one.name, place, one.path.read_bytes()))
        if one.kind == WORKFLOWS and (beside := one.path.with_suffix(SUFFIX)).is_file():
            made.append(Placed(one.kind, one.name, place.with_suffix(SUFFIX), beside.read_bytes()))
    return made


def _place(one: Given, folder: Path) -> Path:
    if one.kind == WORKFLOWS:
        return Path(WORKFLOWS) / one.path.name
    key = next(key for key, kind in _NAMED_BY.items() if kind == one.kind)
    for file in sorted((folder / one.kind).glob("*.yaml")):
        try:
            told = YAML(typ="safe").load(file)
        except (YAMLError, UnicodeDecodeError):
            continue  # what is in force there is told when all are read together
        if isinstance(told, dict) and told.get(key) == one.name:
            return Path(one.kind) / file.name
    return Path(one.kind) / f"{one.name}.yaml"


@contextmanager
def candidate(changes: Sequence[Placed], files: Sequence[Given], folder: Path) -> Iterator[Definitions]:
    """What the definitions would be with the changes; the files of workflows are there as long as it lasts.

    Raises:
        DefinitionError: one is wrong, alone or beside the others; told with the place in the file that was given.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-apply-") as made:
        trial = Path(made) / "definitions"
        shutil.copytree(folder, trial, ignore=shutil.ignore_patterns("__pycache__"))
        lay(changes, trial)
        names = {str(trial / _place(one, folder)): str(one.path) for one in files}
        try:
            yield _read(trial)
        except DefinitionError as error:
            text = str(error)
            for inside, outside in names.items():
                text = text.replace(inside, outside)
            raise DefinitionError(text.replace(str(trial), str(folder))) from error


def _read(folder: Path) -> Definitions:
    try:
        features = {f.name: f for f in load_features(folder / FEATURES)}
        models = load_models(folder / MODELS)
    except DefinitionError:
        raise
    except FAULTS as error:
        raise DefinitionError(str(error)) from error
    for model in models.values():
        _check_sequences(folder, model, features)
    documents: dict[str, list[dict[str, Any]]] = {}
    defined: dict[str, Path] = {}
    for file in sorted((folder / WORKFLOWS).glob("*.py")):
        documents[file.stem] = _compiled(file)
        for document in documents[file.stem]:
            if (other := defined.setdefault(document["workflow"], file)) != file:
                raise DefinitionError(
                    f"{file}:1: {other.name} defines the workflow {document['workflow']}, too: a file of that name replaces it"
                )
    return Definitions(features, models, documents)


def _check_sequences(folder: Path, model: Model, features: dict[str, Feature]) -> None:
    """The only lists that a user has are his sequences: any other one would be empty for ever."""
    known = {f.name for f in features.values() if isinstance(f.shape, UserSequence)}
    for made in model.inputs:
        if isinstance(made, IdsInput) and made.path.root == "user" and made.path.keys[0] not in known:
            file = folder / _place(Given(folder, MODELS, model.name), folder)
            line = YAML().load(file)["inputs"].lc.data[made.name][0] + 1
            raise DefinitionError(
                f"{file}:{line}: {made.name}: no sequence is called {made.path.keys[0]}; there are: {', '.join(sorted(known))}"
            )


def _compiled(file: Path) -> list[dict[str, Any]]:
    try:
        return compile_file(file)
    except WorkflowError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise DefinitionError(f"{file}:{_line(error, file)}: {reason}") from error


def _line(error: BaseException, file: Path) -> int:
    """The line of the file that an error comes from; 1 where none is to blame."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.filename == str(file):
            return cause.lineno or 1
        lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == str(file)]
        if lines:
            return lines[-1] or 1
        cause = cause.__cause__
    return 1


def lay(changes: Sequence[Placed], folder: Path) -> None:
    """Put files in their places; whoever reads one sees the old or the new content, never a part."""
    for change in changes:
        target = folder / change.place
        if change.content is None:
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        beside.write_bytes(change.content)
        beside.replace(target)
