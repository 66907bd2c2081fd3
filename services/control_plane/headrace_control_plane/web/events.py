"""Routes of events."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query
from headrace_core.control.records import Event
from headrace_core.web.problem import invalid
from starlette.responses import Response, StreamingResponse

from headrace_control_plane.parts import Parts
from headrace_control_plane.store import events
from headrace_control_plane.store.events import NewEvent
from headrace_control_plane.web.schema import EventIn
from headrace_control_plane.web.told import Events, Offset, shown

_KEEP_ALIVE_SECONDS: Final = 15.0
_OFFSET: Final = 2**62

Keys = Annotated[list[str] | None, Query(alias="key", description="May be repeated.")]


def told(event: Event) -> dict[str, Any]:
    """An event as it is answered."""
    return {name: getattr(event, name) for name in Event.__slots__}


def router(parts: Parts) -> APIRouter:
    """POST and GET /events, GET /stream."""
    api = APIRouter(tags=["events"])
    look_again = parts.settings.control_poll_ms / 1000

    @api.post("/events", status_code=201, summary="Append an event", responses=shown(Offset, 201))
    async def post(event: EventIn) -> Response:
        offset = await parts.appender.append(NewEvent(**dict(event)))
        return Response(b'{"offset":%d}' % offset, 201, media_type="application/json")

    @api.get("/events/newest", summary="Offset of the newest event")
    async def newest() -> dict[str, int]:
        return {"offset": await events.newest(parts.pool)}

    @api.get("/events", summary="Events after an offset, oldest first", responses=shown(Events))
    async def get(  # noqa: PLR0913, PLR0917  # query parameters
        after: Annotated[int, Query(ge=0, le=_OFFSET)] = 0,
        key: Keys = None,
        type: str | None = None,  # noqa: A002  # the event's own word
        namespace: str | None = None,
        limit: Annotated[int, Query(ge=1, le=5_000)] = 500,
        wait_s: Annotated[float, Query(ge=0, le=60, description="How long to wait for the first.")] = 0,
    ) -> Response:
        end = time.monotonic() + wait_s
        filters: dict[str, Any] = {"keys": key or (), "type": type, "namespace": namespace, "limit": limit}
        while True:
            ring = parts.bell.next_ring()
            page = await events.read(parts.pool, after, **filters)
            left = end - time.monotonic()
            if page.items or left <= 0 or parts.stopping:
                body = {"items": [told(event) for event in page.items], "next": page.next}
                return Response(orjson.dumps(body), media_type="application/json")
            after = page.next
            await parts.bell.wait(ring, min(left, look_again))

    @api.get(
        "/stream",
        summary="Events as they come (server-sent events; id is the offset)",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream(
        after: Annotated[int | None, Query(ge=0, le=_OFFSET, description="Without it, what comes from now on.")] = None,
        key: Keys = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        if last_event_id is not None:
            if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
                raise invalid("Last-Event-ID: must be an offset", field="Last-Event-ID")
            after = int(last_event_id)
        if after is None:
            after = await events.newest(parts.pool)
        return StreamingResponse(
            _stream(parts, after, key or (), look_again),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    return api


async def _stream(parts: Parts, after: int, keys: Sequence[str], look_again: float) -> AsyncIterator[bytes]:
    """Events for ever; when PostgreSQL goes away the stream ends, and the client asks again with its last id."""
    loop = asyncio.get_running_loop()
    spoken = loop.time()
    yield b": events follow\n\n"
    while not parts.stopping:
        ring = parts.bell.next_ring()
        page = await events.read(parts.pool, after, keys=keys)
        after = page.next
        for event in page.items:
            yield b"id: %d\ndata: %s\n\n" % (event.offset, orjson.dumps(told(event)))
        if page.items:
            spoken = loop.time()
            continue
        if loop.time() - spoken > _KEEP_ALIVE_SECONDS:
            spoken = loop.time()
            yield b": still here\n\n"
        await parts.bell.wait(ring, look_again)
