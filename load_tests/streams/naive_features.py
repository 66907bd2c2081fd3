"""The shipped features computed the simple way, from all events at once: what the stream must agree with.

Nothing of the workers' code is used. Ids are deduplicated over all events, cancelled events are left out.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from headrace_core.contracts import NAME_OF_ACTION, BehaviorEvent

Row = tuple[str, float, int, int]

_TILE_MS: Final = 10_000
_WINDOW_MS: Final = 600_000
_SEQUENCE_MS: Final = 300_000


def distinct(events: Iterable[BehaviorEvent]) -> list[BehaviorEvent]:
    """The first of each event_id, and the first of those that cancel the same event."""
    first = {(bool(e.corrects), e.corrects or e.event_id): e for e in reversed(list(events))}
    return list(first.values())


def _counted(events: Iterable[BehaviorEvent], as_of: int) -> list[BehaviorEvent]:
    """Events of the window's tiles."""
    since = (as_of - _WINDOW_MS) // _TILE_MS * _TILE_MS
    return [e for e in events if e.event_time >= since]


def top_ads(events: list[BehaviorEvent], country: str, gender: str, page: str, as_of: int) -> list[Row]:
    """The ten most clicked ads of a segment on a page."""
    clicks: dict[str, int] = defaultdict(int)
    for e in _counted(events, as_of):
        key = (e.segment["country"], e.segment["gender"], e.page_id)
        if NAME_OF_ACTION[e.action] == "click" and e.item_type == "ad" and key == (country, gender, page):
            clicks[e.item_id] += -1 if e.corrects else 1
    rows = [(item, float(n), n, 0) for item, n in clicks.items() if n > 0]
    return sorted(rows, key=lambda r: (-r[1], r[0]))[:10]


def click_rates(events: list[BehaviorEvent], category: str, as_of: int) -> list[Row]:
    """The fifty items of a category with the best smoothed click rate."""
    clicks: dict[str, int] = defaultdict(int)
    shown: dict[str, int] = defaultdict(int)
    for e in _counted(events, as_of):
        if e.category == category:
            step = -1 if e.corrects else 1
            clicks[e.item_id] += step * (NAME_OF_ACTION[e.action] == "click")
            shown[e.item_id] += step * (NAME_OF_ACTION[e.action] == "impression")
    rows = [
        (item, (min(max(clicks[item], 0), n) + 1.0) / (n + 51.0), min(max(clicks[item], 0), n), n)
        for item, n in shown.items()
        if n > 0
    ]
    return sorted(rows, key=lambda r: (-r[1], r[0]))[:50]


def last_minutes(events: list[BehaviorEvent], user: str, time: int) -> list[dict[str, Any]]:
    """What a user did in the five minutes before `time`, oldest first."""
    mine = [e for e in events if e.user_id == user and e.event_time >= time - _SEQUENCE_MS]
    mine = [e for e in mine if NAME_OF_ACTION[e.action] not in {"impression", "search"}]
    cancelled = {e.corrects for e in mine if e.corrects}
    mine = [e for e in mine if not e.corrects and e.event_id not in cancelled]
    longest: dict[str, BehaviorEvent] = {}
    for e in sorted(mine, key=lambda e: (e.dwell_ms, e.event_time, e.event_id)):
        longest[e.view_id or e.event_id] = e
    return [
        {
            "event_time": e.event_time, "item_id": e.item_id, "item_type": e.item_type, "category": e.category,
            "action": NAME_OF_ACTION[e.action], "dwell_ms": e.dwell_ms,
        }
        for e in sorted(longest.values(), key=lambda e: (e.event_time, e.event_id))
    ][-200:]  # fmt: skip
