"""What each call sends and makes of the answers, without I/O: generators that ask for a sending or a pause and hear the outcome.

So the sync and the async client are one logic. Repeating after a lost connection is harmless where a call is idempotent: events
count once by event_id; a ranking has no effect until its impressions are told. A catalog entry could overwrite a newer one
of somebody else, so it is repeated only when it was surely not taken (no connection, 429) or the gateway asks for it (503).
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from headrace_client.errors import EventsNotAcceptedError, HeadraceError, InvalidError, NoAnswerError, api_error
from headrace_client.messages import (
    Asked,
    Event,
    EventsResult,
    FeaturesOf,
    Item,
    RankedList,
    Ranking,
    Readiness,
    Rejection,
    Scalar,
    User,
)
from headrace_client.retries import Backoff, Retries

T = TypeVar("T")

#: The gateway takes no more in a call.
MAX_EVENTS: Final = 1_000
MAX_ENTRIES: Final = 1_000
#: Half of the body that the gateway takes unless told otherwise.
MAX_BYTES: Final = 4_000_000

_AGAIN: Final = frozenset({429, 503})
_UNPROCESSABLE: Final = 422
_ENCODER: Final = msgspec.json.Encoder()


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(NamedTuple):
    """No answer came.

    Attributes:
        cause: error of the HTTP library.
        sent: something of the request may have left.
    """

    cause: Exception
    sent: bool


@dataclass(frozen=True, slots=True)
class Send:
    """Asks for a request.

    Attributes:
        method, path, body: of it.
        idempotent: it may be repeated although it may have been taken.
    """

    method: str
    path: str
    body: bytes = b""
    idempotent: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Asks for a pause."""

    seconds: float


Outcome = Answer | Lost | None
Flow = Generator[Send | Wait, Outcome, T]


def _attempt(send: Send) -> Flow[Answer | HeadraceError]:
    """One try: the answer, or an error after which another may follow.

    Raises:
        HeadraceError: another try must not follow.
    """
    outcome = yield send
    if isinstance(outcome, Answer):
        return api_error(*outcome) if outcome.status in _AGAIN else outcome
    error = _no_answer(send, outcome)
    if send.idempotent or (isinstance(outcome, Lost) and not outcome.sent):
        return error
    raise error


def _no_answer(send: Send, outcome: Lost | None) -> NoAnswerError:
    cause = outcome.cause if outcome else None
    error = NoAnswerError(f"{send.method} {send.path}: {cause or type(cause).__name__}")
    error.__cause__ = cause
    return error


def _pause(backoff: Backoff, error: HeadraceError) -> Flow[None]:
    """Wait before the next try.

    Raises:
        HeadraceError: the error, when patience is over.
    """
    pause = backoff.pause(getattr(error, "retry_after_s", None))
    if pause is None:
        raise error
    yield Wait(pause)


def call(send: Send, retries: Retries, answer: type[T]) -> Flow[T]:
    """Send until there is an answer that stands.

    Raises:
        HeadraceError: it is an error, or there was none within patience.
    """
    backoff = retries.begin()
    while True:
        told = yield from _attempt(send)
        if isinstance(told, Answer):
            return _read(told, answer)
        yield from _pause(backoff, told)


def _read(told: Answer, answer: type[T]) -> T:
    if told.status >= 300:
        raise api_error(*told)
    try:
        return msgspec.json.decode(told.body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HeadraceError(f"the answer is not the gateway's: {error}") from error


class _Taken(msgspec.Struct):
    accepted: int = 0
    rejected: list[Rejection] = []
    acknowledged: list[int] = []


def send_events(events: Sequence[Event], retries: Retries) -> Flow[EventsResult]:
    """Send events in calls of what the gateway takes, in their order, until each is accepted or rejected.

    Raises:
        EventsNotAcceptedError: patience was over, or the gateway refused a whole call.
    """
    encoded = [_ENCODER.encode(event) for event in events]
    result = EventsResult(0, [])
    for chunk in chunks([len(e) for e in encoded], MAX_EVENTS, MAX_BYTES):
        left = list(chunk)
        try:
            yield from _send_chunk(encoded, left, result, retries)
        except HeadraceError as error:
            missing = [*left, *range(chunk.stop, len(encoded))]
            raise EventsNotAcceptedError(error, result.accepted, result.rejected, missing) from error
    return result


def _send_chunk(encoded: Sequence[bytes], left: list[int], result: EventsResult, retries: Retries) -> Flow[None]:
    """Send those left until none is, noting in `left` and `result` what was acknowledged or rejected on the way."""
    backoff = retries.begin()
    while left:
        body = b'{"events":[' + b",".join([encoded[i] for i in left]) + b"]}"
        told = yield from _attempt(Send("POST", "/v1/events", body))
        if isinstance(told, Answer):
            taken = _taken(told)
            rejected = [r.index for r in taken.rejected]
            result.accepted += len(left) - len(rejected)
            result.rejected += [Rejection(left[r.index], r.reason) for r in taken.rejected]
            left.clear()
            return
        document = getattr(told, "document", {})
        if "acknowledged" in document:
            taken = msgspec.convert(document, _Taken)
            gone = {*taken.acknowledged, *(r.index for r in taken.rejected)}
            result.accepted += len(taken.acknowledged)
            result.rejected += [Rejection(left[r.index], r.reason) for r in taken.rejected]
            left[:] = [i for n, i in enumerate(left) if n not in gone]
            if gone:
                backoff.progressed()
        if left:
            yield from _pause(backoff, told)


def _taken(told: Answer) -> _Taken:
    """What became of a call; that no event of it was good is no error of the call."""
    if told.status == _UNPROCESSABLE:
        error = api_error(*told)
        if isinstance(error, InvalidError) and "rejected" in error.document:
            return msgspec.convert(error.document, _Taken)
        raise error
    return _read(told, _Taken)


def chunks(sizes: Sequence[int], most: int, most_bytes: int) -> Iterator[range]:
    """Ranges over all, each of `most` entries and `most_bytes` at most, but of one entry at least."""
    start = held = 0
    for n, size in enumerate(sizes):
        if n > start and (n - start == most or held + size > most_bytes):
            yield range(start, n)
            start, held = n, 0
        held += size
    if sizes:
        yield range(start, len(sizes))


class _Versions(msgspec.Struct):
    versions: list[int]


def put_all(kind: str, entries: Sequence[User] | Sequence[Item], retries: Retries) -> Flow[list[int]]:
    """Write catalog entries (kind: users or items) in calls of what the gateway takes; the version of each."""
    encoded = [_ENCODER.encode(entry) for entry in entries]
    versions: list[int] = []
    for chunk in chunks([len(e) for e in encoded], MAX_ENTRIES, MAX_BYTES):
        body = b'{"' + kind.encode() + b'":[' + b",".join([encoded[i] for i in chunk]) + b"]}"
        told = yield from call(Send("POST", f"/v1/{kind}:batch", body, idempotent=False), retries, _Versions)
        versions += told.versions
    return versions


def put_one(kind: str, entry_id: str, entry: User | Item, retries: Retries) -> Flow[int]:
    """Write one catalog entry; its version."""
    send = Send("PUT", f"/v1/{kind}/{quote(entry_id, safe='')}", _ENCODER.encode(entry), idempotent=False)
    told = yield from call(send, retries, _Versions)
    return told.versions[0]


def ranked(path: str, asked: Asked, retries: Retries) -> Flow[Ranking]:
    """A recommendation or ranking."""
    return call(Send("POST", path, _ENCODER.encode(asked)), retries, Ranking)


def features(entity: str, entity_id: str, retries: Retries) -> Flow[FeaturesOf]:
    """Current feature values."""
    return call(Send("GET", f"/v1/features/{entity}/{quote(entity_id, safe='')}"), retries, FeaturesOf)


def ranked_list(feature: str, key: Sequence[str], retries: Retries) -> Flow[RankedList]:
    """A ranked list; the values of its key are joined as the gateway expects it."""
    joined = "|".join(value.replace("%", "%25").replace("|", "%7C") for value in key)
    path = f"/v1/features/top/{quote(feature, safe='')}/{quote(joined, safe='')}"
    return call(Send("GET", path), retries, RankedList)


def readiness() -> Flow[Readiness]:
    """Readiness, told also when it is not; asked once.

    Raises:
        HeadraceError: nobody answered, or not as the gateway does.
    """
    send = Send("GET", "/readyz")
    outcome = yield send
    if not isinstance(outcome, Answer):
        raise _no_answer(send, outcome)
    if outcome.status not in {200, 503}:
        raise api_error(*outcome)
    return _read(outcome._replace(status=200), Readiness)


#: A key, or what is asked for it before each try: keys are rotated.
ApiKey = str | Callable[[], str | None] | None

#: Of every request.
HEADERS: Final = {"content-type": "application/json", "user-agent": "headrace-client"}


def authorization(api_key: ApiKey) -> dict[str, str]:
    """Header of a try; none without a key."""
    key = api_key() if callable(api_key) else api_key
    return {"authorization": f"Bearer {key}"} if key else {}


def asked(  # noqa: PLR0913, PLR0917  # the fields of the call
    user_id: str,
    page_id: str,
    count: int | None,
    candidates: Sequence[str] | None,
    item_type: str | None,
    categories: Sequence[str] | None,
    context: Mapping[str, Scalar] | None,
    exclude: Sequence[str],
) -> Asked:
    """The body of a recommendation or ranking."""
    return Asked(
        user_id=user_id,
        page_id=page_id,
        count=count,
        candidates=None if candidates is None else list(candidates),
        item_type=item_type,
        categories=None if categories is None else list(categories),
        context=context or {},
        exclude=list(exclude),
    )
