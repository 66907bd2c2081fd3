"""A user's newest events, kept where the user's partition is."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from headrace_core.contracts import NAME_OF_ACTION, BehaviorEvent, Millis
from headrace_core.definitions.features import Feature, Sequence
from headrace_core.stores.redis_views import user_key

from headrace_feature_worker.operators.effects import Show

_SWEEP_MS: Final = 10_000
_GRACE_MS: Final = 60_000
_encode = msgspec.msgpack.Encoder().encode


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One event of a user.

    Attributes:
        event_time: when it happened, ms since the epoch.
        event_id: of the event, or of the one that it cancels.
        cancels: whether it takes the event of that id back.
        view_id: of a look that is told again as it lasts; empty otherwise.
        dwell_ms: how long it has lasted.
        value: what the sequence shows of it.
    """

    event_time: int
    event_id: str
    cancels: bool
    view_id: str
    dwell_ms: int
    value: dict[str, Any]


class UserSequences:
    """One sequence feature of all users of a partition."""

    def __init__(self, feature: Feature, shape: Sequence) -> None:
        """Start without state."""
        self.feature, self._shape = feature, shape
        self._users: dict[str, list[Entry]] = {}
        self._newest: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._changed: set[str] = set()
        self._by_age: dict[int, set[str]] = defaultdict(set)
        self._swept = 0
        self._field = f"{feature.name}@{feature.definition}"

    def add(self, event: BehaviorEvent) -> None:
        """Take an event; one that `where` leaves out changes nothing."""
        if not self.feature.where(event):
            return
        user, cancelled = event.user_id, event.corrects
        entries = self._users.get(user)
        if entries is None:
            entries = self._users[user] = []
        value = {} if cancelled else _value(event, self._shape.fields)
        entries.append(
            Entry(event.event_time, cancelled or event.event_id, bool(cancelled), event.view_id, event.dwell_ms, value)
        )
        self._by_age[event.event_time // _SWEEP_MS].add(user)
        self._newest[user] = event.ingest_time
        self._dirty.add(user)

    def advance(self, watermark: Millis) -> None:
        """Forget what has left the window; readers trim what they are shown by their own time."""
        if watermark - self._swept < _SWEEP_MS:
            return
        self._swept = watermark
        since = watermark - self.feature.window_ms
        for age in [a for a in self._by_age if (a + 1) * _SWEEP_MS <= since]:
            for user in self._by_age.pop(age):
                if (entries := self._users.get(user)) is not None:
                    self._keep(user, [e for e in entries if e.event_time >= since])

    def flush(self, time: Millis) -> Iterator[Show]:
        """Sequences that changed."""
        for user in self._dirty:
            events = self._reduce(self._users.get(user, []))
            yield Show(
                user_key(user), self._field, time, _encode([e.value for e in events]),
                self.feature.window_ms + _GRACE_MS, newest=self._newest.pop(user, 0),
            )  # fmt: skip
        self._changed |= self._dirty
        self._dirty = set()

    def changes(self) -> dict[str, list[Entry]]:
        """Entries of the users that changed since the last call; empty for one that was forgotten."""
        changed, self._changed = self._changed, set()
        return {user: self._users.get(user, []) for user in changed}

    def snapshot(self) -> dict[str, list[Entry]]:
        """Everything."""
        self._changed = set()
        return dict(self._users)

    def restore(self, part: dict[str, list[Entry]]) -> None:
        """Take over a snapshot or changes; what is there is shown again, since Redis may have lost it."""
        for user, entries in part.items():
            if not entries:
                self._users.pop(user, None)
                self._dirty.discard(user)
                continue
            self._dirty.add(user)
            self._users[user] = entries
            for e in entries:
                self._by_age[e.event_time // _SWEEP_MS].add(user)

    def _keep(self, user: str, entries: list[Entry]) -> None:
        if entries:
            self._users[user] = entries
        else:
            del self._users[user]
            self._newest.pop(user, None)
        self._changed.add(user)

    def _reduce(self, entries: list[Entry]) -> list[Entry]:
        """Oldest first: without what was cancelled, of each view the longest dwell, the newest `limit`."""
        gone = {e.event_id for e in entries if e.cancels}
        views: dict[str, Entry] = {}
        kept: list[Entry] = []
        for e in entries:
            if e.cancels or e.event_id in gone:
                continue
            if not e.view_id:
                kept.append(e)
            elif (other := views.get(e.view_id)) is None or _rank(e) > _rank(other):
                views[e.view_id] = e
        kept += views.values()
        kept.sort(key=lambda e: (e.event_time, e.event_id))
        return kept[-self._shape.limit :]


def _rank(e: Entry) -> tuple[int, int, str]:
    return e.dwell_ms, e.event_time, e.event_id


def _value(event: BehaviorEvent, fields: tuple[str, ...]) -> dict[str, Any]:
    value: dict[str, Any] = {"event_time": event.event_time}
    for name in fields:
        value[name] = NAME_OF_ACTION.get(event.action, "") if name == "action" else getattr(event, name)
    return value
