"""Audit of calls that change something: written down before the work begins, and how it was answered afterwards."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final

import asyncpg
import orjson
from fastapi import APIRouter, Query
from headrace_core.web.problem import ProblemError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from headrace_control_plane.parts import Parts
from headrace_control_plane.store import audit
from headrace_control_plane.store.database import AWAY, now_ms
from headrace_control_plane.web.answers import Limit, answer, cursor
from headrace_control_plane.web.schema import Text
from headrace_control_plane.web.told import AuditTold, Page, shown

log = logging.getLogger(__name__)

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_BYTES: Final = 4_096
_MOST_CHARACTERS: Final = 2_000
#: Steps of machines, many a second, that leave rows of their own.
_OWN_ROWS: Final = ("/claim", "/heartbeat", "/finish", "/metrics")
#: Of a run that works: who has one may end it.
_TOKENS: Final = frozenset({"token", "run", "nonce"})
_ROW: Final = "headrace.audit"


class Audit:
    """Keeps the table.

    Args:
        parts: its store.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def begin(self, request: Request) -> None:
        """Write down that a call came; before anything of it is done.

        Raises:
            ProblemError: 503 when that is not possible.
        """
        scope = request.scope
        if scope["method"] in _READS or scope["path"].endswith(_OWN_ROWS):
            return
        client = scope.get("client")
        try:
            scope[_ROW] = await audit.begin(
                self._parts.pool, time=now_ms(), by=scope.get("caller", ""), address=client[0] if client else "",
                method=scope["method"], path=_clean(scope["path"]), body=_told(await request.body()),
            )  # fmt: skip
        except asyncpg.UndefinedTableError as error:
            raise ProblemError(503, "control.audit is missing: run headrace-init", retry_after_seconds=5) from error

    async def end(self, scope: Scope, status: int) -> None:
        """Write down how it is answered, if it was written down that it came."""
        number = scope.pop(_ROW, None)
        if number is None:
            return
        try:
            await audit.end(self._parts.pool, number, status, now_ms())
        except (*AWAY, asyncpg.PostgresError) as error:
            # The row stays without an outcome; the log has it.
            fields = {"audit": number, "status": status, "error": repr(error)}
            log.error("the outcome of an audited call is told here alone", extra={"fields": fields})  # noqa: TRY400

    def router(self) -> APIRouter:
        """GET /audit."""
        api = APIRouter(tags=["audit"])

        @api.get(
            "/audit", summary="Calls that changed something or tried to, newest first", responses=shown(Page[AuditTold])
        )
        async def get_audit(
            by: Annotated[Text | None, Query(description="Name of the key.")] = None,
            limit: Limit = 50,
            before: Annotated[int | None, Query(ge=1, le=2**62, description="`next` of the page before.")] = None,
        ) -> Response:
            found = await audit.listed(self._parts.pool, by, limit + 1, before)
            items = [dict(row) | {"body": _shown(row)} for row in found[:limit]]
            return answer({"items": items, "next": cursor(found, limit, "id")})

        return api


def _clean(path: str) -> str:
    return path.replace("\x00", "\ufffd")[:_MOST_CHARACTERS]


def _told(body: bytes) -> str:
    """What is kept of a body, as JSON; a large one is told by its digest."""
    if not body:
        return ""
    if len(body) > _MOST_BYTES:
        return orjson.dumps({"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}).decode()
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.dumps({"not_json": body.decode(errors="replace")}).decode()
    if isinstance(read, dict):
        read = {name: value for name, value in read.items() if name not in _TOKENS}
    return orjson.dumps(read).decode()


def _shown(row: Mapping[str, Any]) -> Any:
    return orjson.loads(row["body"]) if row["body"] else None
