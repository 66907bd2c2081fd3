"""Features into columns: the one code that the trainer, the validator and the gateway use.

A value is read by a path of the model definition, and stands in a column as docs/learning.md tells: ids as the xxh3-64 of
`<table>=<text>`, 0 where there is nothing. What belongs to the user and the context is computed once a request.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest, xxh64_intdigest

from headrace_core.definitions.models import CrossInput, FeaturePath, IdInput, IdsInput, Input, NumberInput

Columns: TypeAlias = dict[str, npt.NDArray[Any]]
_Ids: TypeAlias = npt.NDArray[np.uint64]

#: Odd constants of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


class SampleLike(Protocol):
    """What is read of a Sample."""

    @property
    def request_id(self) -> str:
        """The request that showed it."""

    @property
    def user_id(self) -> str:
        """To whom."""

    @property
    def item_id(self) -> str:
        """The shown item."""

    @property
    def page_id(self) -> str:
        """On which page."""

    @property
    def features(self) -> bytes:
        """JSON object {"user", "context", "item"}."""


class Shown(NamedTuple):
    """One request with the features that served it.

    Attributes:
        user_id, page_id: who asked, for which page.
        user, context: features.
        items: (item_id, features) of what is scored.
    """

    user_id: str
    page_id: str
    user: dict[str, Any]
    context: dict[str, Any]
    items: Sequence[tuple[str, dict[str, Any]]]


class _Parts(msgspec.Struct, gc=False):
    user: msgspec.Raw = msgspec.Raw(b"{}")
    context: msgspec.Raw = msgspec.Raw(b"{}")
    item: dict[str, Any] = {}  # msgspec copies it


_parts: Final = msgspec.json.Decoder(_Parts).decode
_object: Final = msgspec.json.Decoder(dict[str, Any]).decode

#: Gives the value at a path; the first argument is the id or the part of the features that the path starts with.
_Getter: TypeAlias = Callable[[Any], Any]


def hash_id(table: str, value: object) -> int:
    """The id of a value as it stands in a column: xxh3-64 of `<table>=<text>` as a signed number, 0 for nothing."""
    unsigned = _id(f"{table}=", value)
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def held_out(request_id: str, one_in: int) -> bool:
    """Whether a request is kept for validation, so that no trainer ever learns it."""
    return bool(xxh64_intdigest(request_id.encode()) % one_in == 0)


@dataclass(frozen=True, slots=True)
class _Source:
    """One column that is read, not crossed."""

    input: IdInput | IdsInput | NumberInput
    get: _Getter
    prefix: str

    def read(self, values: Iterable[Any], count: int) -> npt.NDArray[Any]:
        """The column of `count` roots."""
        get, prefix, told = self.get, self.prefix, self.input
        if isinstance(told, IdInput):
            return np.fromiter((_id(prefix, get(v)) for v in values), np.uint64, count)
        if isinstance(told, NumberInput):
            return np.fromiter((_number(get(v), told.default) for v in values), np.float32, count)
        column = np.zeros((count, told.length), np.uint64)
        for row, v in enumerate(values):
            members = get(v)
            if members:
                newest = [_id(prefix, m) for m in members[: -told.length - 1 : -1]]
                column[row, : len(newest)] = newest
        return column


class InputColumns:
    """The inputs of a model, compiled."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        """Compile; the columns come in the order of the inputs."""
        self._names = [i.name for i in inputs]
        self._crosses = [i for i in inputs if isinstance(i, CrossInput)]
        sources = [_source(i) for i in inputs if not isinstance(i, CrossInput)]
        self._of_request = [s for s in sources if not s.input.path.of_item]
        self._of_item = [s for s in sources if s.input.path.of_item]

    def from_request(
        self,
        user: dict[str, Any],
        context: dict[str, Any],
        user_id: str,
        page_id: str,
        items: Sequence[tuple[str, dict[str, Any]]],
    ) -> Columns:
        """Columns for the items of one request, `[len(items)]` each.

        Args:
            user: features of the user, as they are logged.
            context: features of the request, as they are logged.
            user_id: who asks.
            page_id: for which page.
            items: (item_id, features as they are logged).
        """
        return self.from_shown([Shown(user_id, page_id, user, context, items)])

    def from_samples(self, samples: Sequence[SampleLike]) -> Columns:
        """Columns for samples, in their order. Samples of one request were served with one user and one context."""
        requests: dict[str, int] = {}
        shown: list[Shown] = []
        index: list[int] = []
        items: list[tuple[str, dict[str, Any]]] = []
        for sample in samples:
            parts = _parts(sample.features)
            at = requests.get(sample.request_id)
            if at is None:
                at = requests[sample.request_id] = len(shown)
                shown.append(Shown(sample.user_id, sample.page_id, _object(parts.user), _object(parts.context), ()))
            index.append(at)
            items.append((sample.item_id, parts.item))
        return self._columns(shown, np.array(index, np.intp), items)

    def from_shown(self, shown: Sequence[Shown]) -> Columns:
        """Columns for all items of all requests, one request after the other."""
        index = np.repeat(np.arange(len(shown)), [len(s.items) for s in shown])
        return self._columns(shown, index, [item for s in shown for item in s.items])

    def _columns(
        self, shown: Sequence[Shown], index: npt.NDArray[np.intp], items: Sequence[tuple[str, dict[str, Any]]]
    ) -> Columns:
        roots: dict[str, list[Any]] = {
            "user_id": [s.user_id for s in shown],
            "page_id": [s.page_id for s in shown],
            "user": [s.user for s in shown],
            "context": [s.context for s in shown],
            "item_id": [i for i, _ in items],
            "item": [features for _, features in items],
        }
        found: Columns = {}
        for source in self._of_request:
            found[source.input.name] = source.read(roots[source.input.path.root], len(shown))[index]
        for source in self._of_item:
            found[source.input.name] = source.read(roots[source.input.path.root], len(items))
        for cross in self._crosses:
            found[cross.name] = _cross([found[name] for name in cross.of])
        return {n: c.view(np.int64) if (c := found[n]).dtype == np.uint64 else c for n in self._names}


def _cross(parts: Sequence[_Ids]) -> _Ids:
    """Ids together: splitmix64's finalizer over each in turn, so that their order tells; 0 if one is 0."""
    mixed = np.zeros_like(parts[0])
    missing = np.zeros(parts[0].shape, np.bool_)
    for part in parts:
        x = (mixed ^ part) + _GOLDEN
        x = (x ^ (x >> _S30)) * _MIX_1
        x = (x ^ (x >> _S27)) * _MIX_2
        mixed = x ^ (x >> _S31)
        missing |= part == 0
    mixed[missing] = 0
    return mixed


def _source(told: IdInput | IdsInput | NumberInput) -> _Source:
    prefix = "" if isinstance(told, NumberInput) else f"{told.table}="
    return _Source(told, _getter(told.path), prefix)


def _getter(path: FeaturePath) -> _Getter:
    reach = _reach(path.keys)
    if path.of_each is None:
        return reach
    each = _reach(path.of_each)

    def members(root: Any) -> list[Any]:
        found = reach(root)
        return [each(m) for m in found] if isinstance(found, list) else []

    return members


def _reach(keys: tuple[str, ...]) -> _Getter:
    """Follows keys through objects; None where something on the way is no object or has no such key."""
    if not keys:
        return lambda root: root
    if len(keys) == 1:
        key = keys[0]
        return lambda root: root.get(key) if isinstance(root, dict) else None

    def reach(root: Any) -> Any:
        for key in keys:
            if not isinstance(root, dict):
                return None
            root = root.get(key)
        return root

    return reach


def _id(prefix: str, value: Any) -> int:
    """Unsigned; anything that is no text, number or truth value is nothing. 1 stands for 1.0, as JSON has one kind of number."""
    if type(value) is str:
        return xxh3_64_intdigest((prefix + value).encode()) if value else 0
    if value is True or value is False:
        return xxh3_64_intdigest((prefix + ("true" if value else "false")).encode())
    if isinstance(value, int):
        return xxh3_64_intdigest(f"{prefix}{value}".encode())
    if isinstance(value, float):
        return xxh3_64_intdigest(f"{prefix}{int(value) if value.is_integer() else value!r}".encode())
    return 0


def _number(value: Any, default: float) -> float:
    """What float32 can hold is taken; the rest, NaN included, is missing."""
    if isinstance(value, int | float) and abs(value) < 3.4e38:
        return float(value)
    return default
