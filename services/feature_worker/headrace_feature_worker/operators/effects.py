"""What the operators ask their sinks to write."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_core.contracts import Millis


@dataclass(frozen=True, slots=True)
class Show:
    """An absolute value for Redis.

    Attributes:
        key, field: where it stands.
        event_time: up to which events it is made, ms since the epoch.
        payload: the value.
        ttl_ms: how long it lives; 0 for ever.
        version: of the value; None takes the checkpoint's.
        newest: ingest time of the newest event in it, ms since the epoch; 0 where that says nothing of freshness.
    """

    key: str
    field: str
    event_time: Millis
    payload: bytes
    ttl_ms: int = 0
    version: int | None = None
    newest: Millis = 0


@dataclass(frozen=True, slots=True)
class Partial:
    """Absolute counts of one tile at this partition, of the members that changed.

    Attributes:
        feature, definition: what is counted.
        key: values of `by`.
        tile_start, tile_ms: which slice of event time.
        members: whose counts changed.
        counts: one per member.
        denominators: one per member of a rate, else empty.
    """

    feature: str
    definition: str
    key: tuple[str, ...]
    tile_start: Millis
    tile_ms: int
    members: Sequence[str]
    counts: Sequence[int]
    denominators: Sequence[int]


@dataclass(frozen=True, slots=True)
class Expired:
    """Events that came after their tile had left the window, or counts of such a tile.

    Attributes:
        feature: whose.
        count: how many.
    """

    feature: str
    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Counts of a definition that the worker does not know, gone because too many of them waited.

    Attributes:
        feature: whose.
        count: how many.
    """

    feature: str
    count: int
