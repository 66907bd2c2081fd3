"""Which slices a sample is in, as the model's definition tells them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from headrace_core.definitions.models import FeaturePath, SliceBy
from numpy.typing import NDArray

#: Features of a request as the sample store has them: {"user", "context", "items": {item: features}}.
Log = Mapping[str, Any]


class Slices:
    """Gathers the samples of each slice, one after the other.

    Args:
        wanted: what samples are told apart by.
    """

    def __init__(self, wanted: Sequence[SliceBy]) -> None:
        self._wanted = wanted
        self._found: dict[str, list[int]] = {}
        self._count = 0

    @property
    def need_log(self) -> bool:
        """Whether ids alone do not tell them."""
        return any(by.path.keys for by in self._wanted)

    def add(self, row: Mapping[str, Any], item: str, log: Log) -> None:
        """The next sample.

        Args:
            row: of samples.requests: user_id and page_id.
            item: that was shown.
            log: features of the request.
        """
        for by in self._wanted:
            if text := _text(_value(by.path, row, item, log)):
                self._found.setdefault(f"{by.name}={text}", []).append(self._count)
        self._count += 1

    def places(self) -> dict[str, NDArray[np.intp]]:
        """Places of the samples by name of the slice, e.g. "user.city=Beijing"."""
        return {name: np.array(at, np.intp) for name, at in sorted(self._found.items())}


def _value(path: FeaturePath, row: Mapping[str, Any], item: str, log: Log) -> object:
    match path.root:
        case "item_id":
            found: object = item
        case "item":
            found = (log.get("items") or {}).get(item)
        case "user" | "context":
            found = log.get(path.root)
        case _:
            found = row[path.root]
    for key in path.keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _text(value: object) -> str:
    """Empty for what is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else ""
