"""The least that could answer: bare ASGI and msgspec, the limit that the gateway is compared with.

It decodes the same bodies by the same structs and encodes answers of the same size, and reads and writes nothing.
"""

from typing import Any

import msgspec
from headrace_gateway.events.schema import EventsAccepted, EventsIn
from headrace_gateway.ranking.schema import RankedAnswer, RankedItem, RankIn, RecommendIn

_EVENTS: msgspec.json.Decoder[EventsIn] = msgspec.json.Decoder(EventsIn)
_RECOMMEND: msgspec.json.Decoder[RecommendIn] = msgspec.json.Decoder(RecommendIn)
_RANK: msgspec.json.Decoder[RankIn] = msgspec.json.Decoder(RankIn)
_ENCODER = msgspec.json.Encoder()


def _ranked(items: list[str]) -> RankedAnswer:
    ranked = [RankedItem(item, 0.02, n, "catalog") for n, item in enumerate(items)]
    return RankedAnswer("019f0c3a-5c00-7a11-8e62-3d1f6b7c9a01", ranked, "", 0, 1, ["no_model"])


def _answer(path: str, body: bytes) -> tuple[int, bytes]:
    if path == "/v1/events":
        return 202, _ENCODER.encode(EventsAccepted(len(_EVENTS.decode(body).events), []))
    if path == "/v1/rank":
        return 200, _ENCODER.encode(_ranked(_RANK.decode(body).candidates))
    if path == "/v1/recommend":
        return 200, _ENCODER.encode(_ranked([f"item-{n}" for n in range(_RECOMMEND.decode(body).count)]))
    return 200, b"{}"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    status, answer = _answer(scope["path"], body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
