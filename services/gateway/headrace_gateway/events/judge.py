"""Which events of a call are taken, and why the others are not. Pure: the clock is passed in.

Clock skew. A client may tell its own clock in sent_at when it sends. If that is off from the gateway's clock by more than
`max_clock_skew`, the client's clock is wrong, and its event times are shifted by the difference; a smaller difference is the
way through the network and is left alone. An event kept for long on the client is not touched by this, since sent_at is told
at the sending, not at the event. A client that sends a body again must tell sent_at anew.
"""

from dataclasses import dataclass
from typing import Final, get_args

import msgspec
from headrace_core.contracts import Millis

from headrace_gateway.decode import explain, holds_nul, may_hold_nul
from headrace_gateway.events.schema import MAX_EVENTS, ActionName, EventIn, EventsApart, EventsIn, Rejected
from headrace_gateway.problem import ProblemError, invalid

_ALL: Final = msgspec.json.Decoder(EventsIn)
_APART: Final = msgspec.json.Decoder(EventsApart)
_ONE: Final = msgspec.json.Decoder(EventIn)
_ACTIONS: Final = ", ".join(get_args(ActionName))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an event must keep to.

    Attributes:
        max_age_ms: how old it may be.
        max_ahead_ms: how far in the future it may be.
        max_skew_ms: by how much a client's clock may be off before it is corrected.
    """

    max_age_ms: int
    max_ahead_ms: int
    max_skew_ms: int


@dataclass(slots=True)
class Judged:
    """Events of a call, apart.

    Attributes:
        taken: index in the call and event, its event_time corrected.
        rejected: what was refused and why, by index.
        kinds: kind of each refusal, for the count by reason.
    """

    taken: list[tuple[int, EventIn]]
    rejected: list[Rejected]
    kinds: list[str]


def judge(body: bytes, now: Millis, bounds: Bounds) -> Judged:
    """Read a body and judge each event.

    Raises:
        ProblemError: 422 when the envelope is wrong, 413 when it holds too many events.
    """
    judged = Judged([], [], [])
    for index, event in enumerate(_read(body, judged)):
        if event is None:
            continue
        if (fault := _fault(event, now, bounds)) is None:
            judged.taken.append((index, event))
        else:
            kind, reason = fault
            judged.rejected.append(Rejected(index, reason))
            judged.kinds.append(kind)
    judged.rejected.sort(key=lambda r: r.index)
    return judged


def _read(body: bytes, judged: Judged) -> list[EventIn | None]:
    if not may_hold_nul(body):
        try:
            events = _ALL.decode(body).events
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # what exactly is wrong, and where, takes a closer look
        else:
            _check_count(len(events))
            return list(events)
    try:
        apart = _APART.decode(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        field, what = explain(error)
        raise invalid(f"{field or 'body'}: {what}", field=field) from None
    _check_count(len(apart))
    return [_read_one(index, raw, judged) for index, raw in enumerate(apart)]


def _check_count(count: int) -> None:
    if count > MAX_EVENTS:
        raise ProblemError(413, f"events: {count} in one call, at most {MAX_EVENTS} are taken")
    if not count:
        raise invalid("events: holds no event", field="events")


def _read_one(index: int, raw: msgspec.Raw, judged: Judged) -> EventIn | None:
    text = bytes(raw)
    try:
        event = _ONE.decode(text)
        if not holds_nul(text):
            return event
        kind, reason = "value", "event: holds a NUL character, which can't be stored"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        field, what = explain(error)
        if field == "action" and what.startswith("invalid enum"):
            what += f", one of {_ACTIONS} is expected"
        kind, reason = _kind(what), f"{field or 'event'}: {what}"
    judged.rejected.append(Rejected(index, reason))
    judged.kinds.append(kind)
    return None


def _kind(what: str) -> str:
    if what == "is not known":
        return "unknown_field"
    if what == "is required":
        return "missing_field"
    return "type" if what.startswith("expected") else "value"


def _fault(event: EventIn, now: Millis, bounds: Bounds) -> tuple[str, str] | None:
    """(kind, reason) or None; corrects the event's time on the way."""
    if not event.item_id and event.action != "search":
        return "missing_field", f"item_id: is required for {event.action}"
    if event.sent_at:
        event.event_time = corrected_time(event.event_time, event.sent_at, now, bounds.max_skew_ms)
    ahead = event.event_time - now
    if ahead > bounds.max_ahead_ms:
        return "too_far_ahead", f"event_time: {ahead} ms in the future, at most {bounds.max_ahead_ms} ms are taken"
    if -ahead > bounds.max_age_ms:
        return "too_old", f"event_time: {-ahead} ms old, at most {bounds.max_age_ms} ms are taken"
    return None


def corrected_time(event_time: Millis, sent_at: Millis, now: Millis, max_skew_ms: int) -> Millis:
    """The event's time by the gateway's clock, see the module."""
    skew = now - sent_at
    return event_time + skew if abs(skew) > max_skew_ms else event_time
