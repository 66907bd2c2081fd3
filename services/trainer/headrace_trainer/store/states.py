"""A training state as one file: arrays and a JSON header, written beside, synced, renamed."""

import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

_HEADER: Final = "header.json"


class State(NamedTuple):
    """A state as read.

    Attributes:
        header: what is no array.
        arrays: by name.
    """

    header: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


def dump(file: BinaryIO, state: State) -> None:
    """Write a state."""
    header = np.frombuffer(json.dumps(state.header).encode(), np.uint8)
    np.savez(file, **{_HEADER: header}, **{name.replace("/", "|"): a for name, a in state.arrays.items()})  # type: ignore[arg-type]  # names are ours


def load(file: BinaryIO) -> State:
    """Read a state."""
    with np.load(io.BytesIO(file.read()), allow_pickle=False) as found:
        arrays = {name.replace("|", "/"): found[name] for name in found.files if name != _HEADER}
        return State(json.loads(found[_HEADER].tobytes()), arrays)


def write_atomically(path: Path, state: State) -> None:
    """Replace a file by a state; after a crash it is the old one or the new one, whole."""
    beside = path.with_name(path.name + ".writing")
    with beside.open("wb") as file:
        dump(file, state)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
