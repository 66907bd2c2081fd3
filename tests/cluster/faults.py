"""What tests let go wrong between the control plane and the API server."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response


@dataclass
class Faults:
    """What goes wrong, as tests set it.

    Attributes:
        away: every connection is dropped before anything is done.
        drop_after_create: so many creations are done, and then their connections are dropped.
        status: every call is answered with this status.
    """

    away: bool = False
    drop_after_create: int = 0
    status: int | None = None


def refusal(status: int, reason: str, message: str) -> dict[str, Any]:
    """An answer of Kubernetes' kind Status."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": status,
    }  # fmt: skip


def cut(request: Request) -> Response:
    """Drop the connection of a request without a word."""
    request.receive.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's cycle
    return Response(status_code=500)
