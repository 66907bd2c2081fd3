"""What a call may end with. Every error is a HeadraceError; an answer of the gateway is an ApiError with its problem document."""

import datetime as dt
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from headrace_client.messages import Rejection


class HeadraceError(Exception):
    """Base of all errors of this package."""


class NoAnswerError(HeadraceError):
    """The gateway did not answer; the cause is the HTTP library's error. Whether it took the call is not known."""


class ApiError(HeadraceError):
    """The gateway answered, and not well.

    Attributes:
        status: of the answer.
        detail: what was wrong, where, and what to do.
        field: at fault, where one is.
        request_id: by which the gateway's log tells more.
        retry_after_s: seconds after which another try makes sense.
        document: the whole problem document (RFC 9457); empty when the answer held none.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status, self.document, self.retry_after_s = status, document, retry_after_s
        self.detail = str(document.get("detail") or document.get("title") or "the answer is no problem document")
        self.field: str | None = document.get("field")
        self.request_id: str | None = document.get("request_id")
        super().__init__(f"{self.detail} ({status})")


class InvalidError(ApiError):
    """422: the call makes no sense; `field` names what is wrong with it."""


class TooLargeError(ApiError):
    """413: over a limit of size."""


class NotFoundError(ApiError):
    """404."""


class UnauthorizedError(ApiError):
    """401: no API key, or one that nobody knows."""


class ForbiddenError(ApiError):
    """403: the API key is not for this."""


class BusyError(ApiError):
    """429, for longer than the call was to be tried again."""


class UnavailableError(ApiError):
    """503, for longer than the call was to be tried again."""


class EventsNotAcceptedError(HeadraceError):
    """Some events could not be sent; sending the missing ones again is harmless.

    Attributes:
        accepted: how many are in Kafka for sure.
        rejected: what was refused, by index.
        missing: indexes of those not acknowledged.
    """

    def __init__(
        self, cause: HeadraceError, accepted: int, rejected: Sequence[Rejection], missing: Sequence[int]
    ) -> None:
        super().__init__(f"{len(missing)} events were not acknowledged, {accepted} were: {cause}")
        self.cause, self.accepted, self.rejected, self.missing = cause, accepted, list(rejected), list(missing)


_KINDS: Mapping[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    413: TooLargeError,
    422: InvalidError,
    429: BusyError,
    503: UnavailableError,
}


def api_error(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that an answer tells."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    if not isinstance(document, dict):
        document = {}
    return _KINDS.get(status, ApiError)(status, document, retry_after_s(headers.get("retry-after")))


def retry_after_s(told: str | None, now: dt.datetime | None = None) -> float | None:
    """Seconds of a Retry-After: a number, or a date (RFC 9110, 10.2.3); None when it is neither."""
    if told is None:
        return None
    if told.strip().isdecimal():
        return float(told)
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    return max(0.0, (at - (now or dt.datetime.now(dt.UTC))).total_seconds())
