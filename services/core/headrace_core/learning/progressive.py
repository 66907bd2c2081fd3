"""Scores that a trainer gave to samples before it learned them, as an increment carries them for the validator.

The labels are not in here: the sample store has the newest.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

#: Where they are in an artifact.
PROGRESSIVE: Final = "assets.extra/progressive.npz"

_KINDS: Final = {"requests": "S", "items": "S", "times": "i", "scores": "f"}


@dataclass(frozen=True, slots=True)
class ProgressiveScores:
    """In parallel, in the order in which they were learned.

    Attributes:
        requests: request_id of each, UTF-8.
        items: item_id of each, UTF-8.
        times: event time, ms since the epoch.
        scores: before learning, float32.
    """

    requests: npt.NDArray[np.bytes_]
    items: npt.NDArray[np.bytes_]
    times: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> Self:
        """Of no samples."""
        return cls(np.zeros(0, "S1"), np.zeros(0, "S1"), np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` gave.

        Raises:
            ValueError: it is something else.
        """
        if arrays.keys() != _KINDS.keys():
            raise ValueError(f"{sorted(arrays)} are not {sorted(_KINDS)}")
        if len({array.shape for array in arrays.values()}) != 1 or arrays["scores"].ndim != 1:
            raise ValueError("scores, times and names are not as many as each other")
        if wrong := [name for name, kind in _KINDS.items() if arrays[name].dtype.kind != kind]:
            raise ValueError(f"{', '.join(wrong)} are of another type")
        return cls(**arrays)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it."""
        return {name: getattr(self, name) for name in _KINDS}

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave.

        Raises:
            ValueError: it is something else, or cut off.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                return cls.from_arrays({name: found[name] for name in found.files})
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def to_bytes(self) -> bytes:
        """As a file."""
        file = io.BytesIO()
        np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]  # names are ours
        return file.getvalue()
