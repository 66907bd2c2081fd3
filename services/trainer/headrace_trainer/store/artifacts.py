"""Artifacts: `<models>/<model>/<version>/`, a SavedModel with its manifest, written beside and renamed."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import fsspec
from headrace_core.learning.progressive import PROGRESSIVE, ProgressiveScores

from headrace_trainer.network.learner import Arrays
from headrace_trainer.network.serving import write_graph, write_variables
from headrace_trainer.store.states import State, dump, load

_EXTRA: Final = "assets.extra"
_STATE: Final = f"{_EXTRA}/state.npz"
_GRAPH_PARTS: Final = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


class Artifacts:
    """Where the versions of all models are."""

    def __init__(self, url: str) -> None:
        """Under this URL, any fsspec scheme."""
        self._url = url.rstrip("/")
        self._files, self._root = fsspec.url_to_fs(self._url)
        self._root = str(self._root).rstrip("/")

    def url(self, model: str, version: int) -> str:
        """URL of a version's folder."""
        return f"{self._url}/{model}/{version}"

    def has(self, model: str, version: int) -> bool:
        """Whether there is a folder of that number."""
        return bool(self._files.exists(f"{self._root}/{model}/{version}"))

    def publish(self, model: str, version: int, folder: Path) -> str:
        """Put a folder in place as a version; the URL. Readers see all of it or nothing.

        Raises:
            FileExistsError: there is one of that number.
        """
        target = f"{self._root}/{model}/{version}"
        if self._files.exists(target):  # a move would go into it
            raise FileExistsError(f"{self.url(model, version)} is there already")
        beside = f"{self._root}/{model}/.writing-{version}"
        if self._files.exists(beside):
            self._files.rm(beside, recursive=True)
        self._files.makedirs(f"{self._root}/{model}", exist_ok=True)
        self._files.put(f"{folder}/", beside, recursive=True)
        self._files.mv(beside, target, recursive=True)
        return self.url(model, version)

    def state(self, url: str) -> State:
        """The training state that an artifact carries.

        Raises:
            FileNotFoundError: it carries none.
        """
        with fsspec.open(f"{url.rstrip('/')}/{_STATE}", "rb") as file:
            return load(file)

    def fetch_graph(self, url: str, folder: Path) -> None:
        """Copy the SavedModel of an artifact without what is extra."""
        for part in _GRAPH_PARTS:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            with fsspec.open(f"{url.rstrip('/')}/{part}", "rb") as source, (folder / part).open("wb") as target:
                shutil.copyfileobj(source, target)


class Graphs:
    """Graphs that were written before, by architecture: later exports write variables only."""

    def __init__(self, folder: Path) -> None:
        """Keep them here."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def adopt(self, architecture: str, fetch: Callable[[Path], None]) -> None:
        """Take over the graph of an artifact, so that its descendants have the very same file."""
        self._make(architecture, fetch)

    def write(self, model: Any, architecture: str, variables: Arrays, target: Path) -> None:
        """A SavedModel."""
        self._make(architecture, lambda folder: write_graph(model, variables, folder))
        write_variables(self._folder / architecture, variables, target)

    def _make(self, architecture: str, fill: Callable[[Path], None]) -> None:
        if not (self._folder / architecture).exists():
            beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=self._folder))
            fill(beside)
            beside.rename(self._folder / architecture)


def add_extra(folder: Path, manifest: Mapping[str, Any], state: State | None, progressive: ProgressiveScores) -> None:
    """Add manifest, training state and scores before learning to a SavedModel."""
    (folder / _EXTRA).mkdir()
    (folder / _EXTRA / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    if state is not None:
        with (folder / _STATE).open("wb") as file:
            dump(_binary(file), state)
    if len(progressive):
        (folder / PROGRESSIVE).write_bytes(progressive.to_bytes())


def _binary(file: Any) -> BinaryIO:
    return file  # type: ignore[no-any-return]  # opened "wb"
