"""Errors as callers see them: RFC 9457 problem documents."""

import math
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"

_TITLES = {
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Against the rules",
    413: "Too large",
    422: "Not understood",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}


class ProblemError(Exception):
    """Ends a request with a problem document.

    Attributes:
        status: of the answer.
        detail: what was wrong, where, and what to do.
        headers: that belong to it; Retry-After when it makes sense to try again.
        extra: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry_after_seconds: float | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.extra = status, detail, extra
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_seconds)))

    def body(self, request_id: str | None = None) -> bytes:
        """The document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if request_id is not None:
            document["request_id"] = request_id
        return msgspec.json.encode(document)


def invalid(detail: str, **extra: Any) -> ProblemError:
    """422: the request was read but makes no sense."""
    return ProblemError(422, detail, **extra)
