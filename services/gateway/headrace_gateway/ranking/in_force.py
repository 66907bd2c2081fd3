"""The feature definitions in force, and where their values stand in Redis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace_core.definitions.features import Feature, Sequence, feature_set_version


class Field(NamedTuple):
    """A field of the hash of a user or an item.

    Attributes:
        feature: whose value it holds.
        definition: hash of the definition in force.
    """

    feature: str
    definition: str

    @property
    def redis(self) -> str:
        """Its name in the hash."""
        return f"{self.feature}@{self.definition}"


@dataclass(frozen=True, slots=True)
class InForce:
    """What is read for a request. A value made by any other definition is never served.

    Attributes:
        user_fields: of a user's hash.
        item_fields: of an item's hash.
        ranked: hash of the definition of each ranked list, by feature.
        windows: length in ms of each sequence, by feature.
        version: of the set.
    """

    user_fields: tuple[Field, ...] = ()
    item_fields: tuple[Field, ...] = ()
    ranked: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[str, int] = field(default_factory=dict)
    version: int = 0


class Current:
    """The set in force at this moment. It is exchanged as a whole; a request keeps the one that it began with.

    Args:
        in_force: the first one.
    """

    __slots__ = ("in_force",)

    def __init__(self, in_force: InForce) -> None:
        self.in_force = in_force


def in_force(features: Iterable[Feature]) -> InForce:
    """The set of these definitions; sequences are kept per user, everything else in ranked lists."""
    features = list(features)
    sequences = [f for f in features if isinstance(f.shape, Sequence)]
    return InForce(
        user_fields=tuple(Field(f.name, f.definition) for f in sequences),
        ranked={f.name: f.definition for f in features if not isinstance(f.shape, Sequence)},
        windows={f.name: f.window_ms for f in sequences},
        version=feature_set_version(features),
    )
