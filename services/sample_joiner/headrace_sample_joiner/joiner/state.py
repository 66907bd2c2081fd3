"""What the joiner keeps of requests whose samples are not settled."""

from typing import Final, TypeAlias
from uuid import UUID

import msgspec
from headrace_core.contracts import Millis

_UUID_LENGTH: Final = 36


#: An action on an item: its label bit and the hash of its event_id.
Backing: TypeAlias = tuple[int, int]


class Shown(msgspec.Struct, array_like=True, gc=False):
    """An impressed item.

    Its parts are tuples: most impressions never have any, and what holds no container costs the garbage collector nothing.

    Attributes:
        event_time: of the impression, ms since the epoch.
        deadline: watermark at which it is negative unless an action came.
        position: in the list.
        offset: of the impression in its partition.
        actions: those that back the label.
        cancelled: those that were taken back, also before they came.
        history: label of each version so far; empty while undecided.
        published: how many versions the store was told of; 1 once the store owns the label.
        orphaned: whether its log was not there when its deadline passed.
    """

    event_time: int
    deadline: int
    position: int
    offset: int
    actions: tuple[Backing, ...] = ()
    cancelled: tuple[Backing, ...] = ()
    history: tuple[int, ...] = ()
    published: int = 0
    orphaned: bool = False

    def apply(self, bit: int, event: int, *, cancel: bool) -> None:
        """An action backs its bit, a cancellation takes that action back, in whichever order they come."""
        action = (bit, event)
        if action in self.cancelled:
            return
        if cancel:
            self.cancelled += (action,)
            self.actions = tuple(a for a in self.actions if a != action)
        elif action not in self.actions:
            self.actions += (action,)
        label = self.label()
        if label != (self.history[-1] if self.history else 0):
            self.history += (label,)

    def label(self) -> int:
        """Mask of the bits that an action backs."""
        mask = 0
        for bit, _ in self.actions:
            mask |= bit
        return mask


class Early(msgspec.Struct, array_like=True, gc=False):
    """An action whose impression has not come yet.

    Attributes:
        bit, event, cancel: as `Shown.apply` takes them.
        event_time: when the user did it, ms since the epoch.
    """

    bit: int
    event: int
    cancel: bool
    event_time: int


class Request(msgspec.Struct, array_like=True, gc=False):
    """A request on its way to samples.

    Attributes:
        user_id, page_id: as its impressions tell.
        made_at: time in its UUIDv7, ms since the epoch.
        retire_at: watermark at which nothing of it is undecided.
        fresh: whether it cannot have left the state before, so that no row can be there.
        shown: its impressions by item.
        early: actions that wait for their impression, by item.
        published: whether the store has a row of it.
    """

    user_id: str
    page_id: str
    made_at: int
    retire_at: int
    fresh: bool
    shown: dict[str, Shown] = {}
    early: dict[str, list[Early]] = {}
    published: bool = False


class Log(msgspec.Struct, array_like=True, gc=False):
    """A feature log, undecoded.

    Attributes:
        value: raw FeatureLog.
        offset: in its partition.
        expires_at: watermark at which nobody waits for it any more.
    """

    value: bytes
    offset: int
    expires_at: int


def request_time(request_id: str) -> Millis | None:
    """Time in a UUIDv7, ms since the epoch; None for anything that is not a UUIDv7 in its canonical form."""
    if len(request_id) != _UUID_LENGTH:
        return None
    try:
        value = UUID(request_id)
    except ValueError:
        return None
    return value.int >> 80 if value.version == 7 and str(value) == request_id else None  # RFC 9562
