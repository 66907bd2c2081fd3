"""The hot routes: decoded and encoded by msgspec, see docs of `web.openapi` for how they are documented."""

import time
from typing import Final

import msgspec
from headrace_core.contracts import Millis

from headrace_gateway.catalog.schema import MAX_ENTRIES, CatalogAccepted, ItemIn, ItemsIn, UserIn, UsersIn
from headrace_gateway.catalog.write import CatalogWriter
from headrace_gateway.decode import decode_body
from headrace_gateway.events.ingest import Ingest
from headrace_gateway.problem import ProblemError, invalid
from headrace_gateway.ranking.recommend import Recommender
from headrace_gateway.ranking.schema import RankIn, RecommendIn
from headrace_gateway.web.endpoint import Answer, Call

_ENCODER: Final = msgspec.json.Encoder()
_RECOMMEND: Final = msgspec.json.Decoder(RecommendIn)
_RANK: Final = msgspec.json.Decoder(RankIn)
_USER: Final = msgspec.json.Decoder(UserIn)
_ITEM: Final = msgspec.json.Decoder(ItemIn)
_USERS: Final = msgspec.json.Decoder(UsersIn)
_ITEMS: Final = msgspec.json.Decoder(ItemsIn)


def _now() -> Millis:
    return time.time_ns() // 1_000_000


class EventRoutes:
    """POST /v1/events."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def post(self, call: Call) -> Answer:
        """Take events."""
        return Answer(202, _ENCODER.encode(await self._ingest.take(call.body)))


class RankingRoutes:
    """POST /v1/recommend and /v1/rank."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    async def recommend(self, call: Call) -> Answer:
        """Recommend items."""
        asked = decode_body(_RECOMMEND, call.body)
        return Answer(200, _ENCODER.encode(await self._recommender.recommend(asked, call.request_id, _now())))

    async def rank(self, call: Call) -> Answer:
        """Rank candidates."""
        asked = decode_body(_RANK, call.body)
        return Answer(200, _ENCODER.encode(await self._recommender.rank(asked, call.request_id, _now())))


class CatalogRoutes:
    """The catalogs."""

    def __init__(self, writer: CatalogWriter) -> None:
        self._writer = writer

    async def put_user(self, call: Call) -> Answer:
        """Write one user."""
        user = decode_body(_USER, call.body)
        user.user_id = _same_id("user_id", call.path_id, user.user_id)
        return _accepted(await self._writer.put_users([user]))

    async def put_item(self, call: Call) -> Answer:
        """Write one item."""
        item = decode_body(_ITEM, call.body)
        item.item_id = _same_id("item_id", call.path_id, item.item_id)
        return _accepted(await self._writer.put_items([item]))

    async def post_users(self, call: Call) -> Answer:
        """Write many users."""
        users = decode_body(_USERS, call.body).users
        _check_count("users", len(users))
        return _accepted(await self._writer.put_users(users))

    async def post_items(self, call: Call) -> Answer:
        """Write many items."""
        items = decode_body(_ITEMS, call.body).items
        _check_count("items", len(items))
        return _accepted(await self._writer.put_items(items))


def _accepted(versions: list[int]) -> Answer:
    return Answer(202, _ENCODER.encode(CatalogAccepted(len(versions), versions)))


def _same_id(field: str, in_path: str, in_body: str | None) -> str:
    if in_body is not None and in_body != in_path:
        raise invalid(f"{field}: {in_body!r} in the body, but {in_path!r} in the path", field=field)
    if len(in_path) > 256 or any(c < " " or c == "\x7f" for c in in_path) or not in_path:
        raise invalid(f"{field}: 1 to 256 characters without control characters are expected", field=field)
    return in_path


def _check_count(field: str, count: int) -> None:
    if count > MAX_ENTRIES:
        raise ProblemError(413, f"{field}: {count} in one call, at most {MAX_ENTRIES} are taken")
    if not count:
        raise invalid(f"{field}: holds no entry", field=field)
