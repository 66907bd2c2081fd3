"""A user's newest events, kept where the user's partition is."""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from headrace_core.contracts import NAME_OF_ACTION, BehaviorEvent, Millis
from headrace_core.definitions.features import Feature
from headrace_core.definitions.features import Sequence as SequenceShape
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
        value: what the sequence shows of it, encoded once: it is shown and saved many times.
    """

    event_time: int
    event_id: str
    cancels: bool
    view_id: str
    dwell_ms: int
    value: msgspec.Raw


class _History:
    """The events of one user within the window."""

    __slots__ = ("_cancelled", "_entries", "_longest", "newest", "unsaved")

    def __init__(self) -> None:
        self._entries: list[Entry] = []  # oldest first
        self._cancelled: set[str] = set()
        self._longest: dict[str, Entry] = {}  # of each view what it has come to
        self.unsaved: list[Entry] = []
        self.newest: Millis = 0  # ingest time of what is not shown yet

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        return self._entries

    def add(self, entry: Entry) -> None:
        """Take an event, in any order of time."""
        entries = self._entries
        if not entries or _moment(entries[-1]) <= _moment(entry):
            entries.append(entry)
        else:
            insort(entries, entry, key=_moment)
        if entry.cancels:
            self._derive()
        elif entry.view_id:
            self._look(entry)

    def replace(self, entries: Iterable[Entry]) -> None:
        """Have these and no others."""
        self._entries = sorted(entries, key=_moment)
        self._derive()

    def shown(self, limit: int) -> list[msgspec.Raw]:
        """Oldest first: without what was cancelled, of each view the longest dwell, the newest `limit`."""
        kept: list[msgspec.Raw] = []
        for e in reversed(self._entries):
            if e.cancels or e.event_id in self._cancelled or (e.view_id and self._longest[e.view_id] is not e):
                continue
            kept.append(e.value)
            if len(kept) == limit:
                break
        kept.reverse()
        return kept

    def _derive(self) -> None:
        self._cancelled = {e.event_id for e in self._entries if e.cancels}
        self._longest = {}
        for e in self._entries:
            if e.view_id and not e.cancels:
                self._look(e)

    def _look(self, entry: Entry) -> None:
        if entry.event_id in self._cancelled:
            return
        other = self._longest.get(entry.view_id)
        if other is None or _rank(entry) > _rank(other):
            self._longest[entry.view_id] = entry


class UserSequences:
    """One sequence feature of all users of a partition."""

    def __init__(self, feature: Feature, shape: SequenceShape) -> None:
        """Start without state."""
        self.feature, self._shape = feature, shape
        self._users: dict[str, _History] = {}
        self._dirty: set[str] = set()
        self._unsaved: set[str] = set()
        self._by_age: dict[int, set[str]] = defaultdict(set)
        self._swept = 0
        self._field = f"{feature.name}@{feature.definition}"

    def add(self, event: BehaviorEvent) -> None:
        """Take an event; one that `where` leaves out changes nothing."""
        if not self.feature.where(event):
            return
        user, cancelled = event.user_id, event.corrects
        entry = Entry(
            event.event_time, cancelled or event.event_id, bool(cancelled), event.view_id, event.dwell_ms,
            msgspec.Raw(_encode({} if cancelled else _value(event, self._shape.fields))),
        )  # fmt: skip
        history = self._take(user, entry)
        history.unsaved.append(entry)
        history.newest = event.ingest_time
        self._dirty.add(user)
        self._unsaved.add(user)

    def advance(self, watermark: Millis) -> None:
        """Forget what has left the window; readers trim what they are shown by their own time."""
        if watermark - self._swept < _SWEEP_MS:
            return
        self._swept = watermark
        since = watermark - self.feature.window_ms
        for age in [a for a in self._by_age if (a + 1) * _SWEEP_MS <= since]:
            for user in self._by_age.pop(age):
                if (history := self._users.get(user)) is not None:
                    history.replace([e for e in history.entries if e.event_time >= since])
                    if not history:
                        self._forget(user)

    def flush(self, time: Millis) -> Iterator[Show]:
        """Sequences that changed."""
        for user in self._dirty:
            history = self._users.get(user)
            events = history.shown(self._shape.limit) if history is not None else []
            newest = history.newest if history is not None else 0
            yield Show(
                user_key(user), self._field, time, _encode(events), self.feature.window_ms + _GRACE_MS, newest=newest
            )
            if history is not None:
                history.newest = 0
        self._dirty = set()

    def changes(self) -> dict[str, list[Entry]]:
        """Entries that came since the last call; what has left the window leaves by itself where they are restored."""
        added = {}
        for user in self._unsaved:
            if (history := self._users.get(user)) is not None:
                added[user], history.unsaved = history.unsaved, []
        self._unsaved = set()
        return added

    def snapshot(self) -> dict[str, list[Entry]]:
        """Everything."""
        self.changes()
        return {user: list(history.entries) for user, history in self._users.items()}

    def restore(self, part: dict[str, list[Entry]], *, whole: bool) -> None:
        """Take over a snapshot or changes; what is there is shown again, since Redis may have lost it.

        Args:
            part: entries by user.
            whole: whether they are all that the user has, and none a user to forget.
        """
        for user, entries in part.items():
            if whole:
                self._forget(user)
            for e in entries:
                e.value = e.value.copy()  # or it would keep all of the state's bytes
                self._take(user, e)
            if entries:
                self._dirty.add(user)

    def _take(self, user: str, entry: Entry) -> _History:
        history = self._users.get(user)
        if history is None:
            history = self._users[user] = _History()
        history.add(entry)
        self._by_age[entry.event_time // _SWEEP_MS].add(user)
        return history

    def _forget(self, user: str) -> None:
        self._users.pop(user, None)


def _moment(e: Entry) -> tuple[int, str]:
    return e.event_time, e.event_id


def _rank(e: Entry) -> tuple[int, int, str]:
    return e.dwell_ms, e.event_time, e.event_id


def _value(event: BehaviorEvent, fields: tuple[str, ...]) -> dict[str, Any]:
    value: dict[str, Any] = {"event_time": event.event_time}
    for name in fields:
        value[name] = NAME_OF_ACTION.get(event.action, "") if name == "action" else getattr(event, name)
    return value
