"""Feature values as they stand in Redis, decoded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from headrace_core.contracts import Millis
from headrace_core.stores.redis_views import View, unpack

from headrace_gateway.catalog.entries import HEAD_BYTES
from headrace_gateway.ranking.in_force import Field

#: What a value may be. Anything else in Redis is foreign, and could not be written into a feature log.
Scalar: TypeAlias = str | bool | int | float | None
Value: TypeAlias = Scalar | list[Scalar | dict[str, Scalar]] | dict[str, Scalar]


class RankedMember(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a ranked list.

    Attributes:
        member: who is ranked.
        score: by which it is ranked.
        numerator: count, or clicks of a rate.
        denominator: impressions of a rate; 0 where the list ranks by count.
    """

    member: str
    score: float
    numerator: float
    denominator: float


class _RankedList(msgspec.Struct):
    items: list[RankedMember]


_VALUE: Final[msgspec.msgpack.Decoder[Value]] = msgspec.msgpack.Decoder(Value)
_RANKED: Final = msgspec.msgpack.Decoder(_RankedList)
_UNREADABLE: Final = object()


class FeatureValue(NamedTuple):
    """The current value of one feature.

    Attributes:
        definition: hash of the definition that made it.
        version: of the write.
        event_time: up to which events it is made.
        value: as the definition shapes it.
    """

    definition: str
    version: int
    event_time: Millis
    value: Value


class Ranked(NamedTuple):
    """A ranked list and where it comes from.

    Attributes:
        version: of the write.
        event_time: up to which events it is made.
        members: best first.
    """

    version: int
    event_time: Millis
    members: list[RankedMember]


def feature_values(fields: Sequence[Field], answer: object) -> dict[str, FeatureValue]:
    """Values by feature of the answer to an HMGET of `fields`; one that is absent or unreadable is left out."""
    if not isinstance(answer, list):
        return {}
    found: dict[str, FeatureValue] = {}
    for field, raw in zip(fields, answer, strict=True):
        if (view := _view(raw)) is not None and (value := _decode(_VALUE, view)) is not _UNREADABLE:
            found[field.feature] = FeatureValue(field.definition, view.version, view.event_time, value)
    return found


def ranked_list(raw: object) -> Ranked | None:
    """The list of the answer to an HGET of a `top:` key; None when there is none that can be read."""
    if (view := _view(raw)) is None or (value := _decode(_RANKED, view)) is _UNREADABLE:
        return None
    return Ranked(view.version, view.event_time, value.items)


def _view(raw: object) -> View | None:
    return unpack(raw) if isinstance(raw, bytes) and len(raw) > HEAD_BYTES else None


def _decode(decoder: msgspec.msgpack.Decoder[Any], view: View) -> Any:
    try:
        return decoder.decode(view.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _UNREADABLE


def trimmed(values: dict[str, FeatureValue], now: Millis, windows: Mapping[str, int]) -> dict[str, FeatureValue]:
    """Values with the entries of sequences that have left their window by `now` taken out.

    The stream writes a sequence when something happens to it; what has only grown old since is still in there.

    Args:
        values: by feature.
        now: time of the request.
        windows: length in ms of each sequence, by feature. A window holds what is not older than that, as the worker keeps it.
    """
    return {
        name: view._replace(value=_trim(view.value, now - windows[name])) if name in windows else view
        for name, view in values.items()
    }


def _trim(value: Value, since: Millis) -> Value:
    if not isinstance(value, list):
        return value
    return [e for e in value if not isinstance(e, dict) or _time(e) >= since]


def _time(entry: dict[str, Scalar]) -> float:
    time = entry.get("event_time")
    return time if isinstance(time, int | float) else math.inf
