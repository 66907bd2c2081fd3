"""Builders of behaviour events and feature logs, as records of their topics."""

from dataclasses import dataclass
from uuid import UUID

from headrace_core.contracts import Action, BehaviorEvent, FeatureLog, LoggedItem

START = 1_700_000_000_000
CLICK, CART = 1, 4


def a_request(number: int = 0, made_at: int = 0) -> str:
    """A UUIDv7 of `made_at`, ms after START."""
    return str(UUID(int=(START + made_at) << 80 | 0x7 << 76 | 0b10 << 62 | number))


@dataclass(frozen=True)
class ARecord:
    """A record of behavior-events.v1 or feature-logs.v1."""

    value: bytes
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None


def an_event(  # noqa: PLR0917
    action: int, request: str, item: str, at: int, name: str, corrects: str = "", page: str = "home"
) -> BehaviorEvent:
    return BehaviorEvent(
        event_id=name, user_id="u1", event_time=START + at, ingest_time=START + at, action=action,  # type: ignore[arg-type]
        item_id=item, request_id=request, page_id=page, position=3, corrects=corrects,
    )  # fmt: skip


def an_impression(request: str, item: str = "a", at: int = 0, name: str = "") -> BehaviorEvent:
    return an_event(Action.ACTION_IMPRESSION, request, item, at, name or f"shown {request} {item}")


def a_click(request: str, item: str = "a", at: int = 0, name: str = "click", page: str = "detail") -> BehaviorEvent:
    return an_event(Action.ACTION_CLICK, request, item, at, name, page=page)


def a_cart(request: str, item: str = "a", at: int = 0, name: str = "cart") -> BehaviorEvent:
    return an_event(Action.ACTION_CART, request, item, at, name)


def a_cancellation(of: BehaviorEvent, at: int = 0, name: str = "") -> BehaviorEvent:
    event = BehaviorEvent()
    event.CopyFrom(of)
    event.event_id, event.corrects = name or f"not {of.event_id}", of.event_id
    event.event_time = event.ingest_time = START + at
    return event


def passing_time(at: int, name: str = "") -> BehaviorEvent:
    """An event that labels nothing and moves time."""
    return an_event(Action.ACTION_VIEW, "", "elsewhere", at, name or f"time {at}")


def a_log(request: str, items: tuple[str, ...] = ("a", "b"), user: bytes = b'{"age":7}') -> FeatureLog:
    logged = [LoggedItem(item_id=i, position=n, score=0.5, features=b'{"ctr":0.1}') for n, i in enumerate(items)]
    return FeatureLog(request_id=request, user_id="u1", event_time=START, user_features=user, items=logged)
