"""Current feature values, as people and tools look at them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from headrace_core.contracts import Millis
from headrace_core.stores.redis_views import item_key, user_key
from pydantic import BaseModel, Field

from headrace_gateway.problem import ProblemError
from headrace_gateway.ranking.evidence import read_fields
from headrace_gateway.ranking.in_force import Current
from headrace_gateway.ranking.views import FeatureValue, RankedMember, feature_values, ranked_list, trimmed
from headrace_gateway.stores.redis_reader import Command, RedisAwayError, RedisReader
from headrace_gateway.web.openapi import problem_answers


class FeatureNow(BaseModel):
    """The current value of one feature."""

    feature: str = Field(description="Its name.", examples=["user_last_5_minutes"])
    definition: str = Field(description="Hash of the definition that made it.", examples=["8f3a91c2"])
    value: Any = Field(description="JSON, as the definition shapes it.")
    event_time: int = Field(description="Up to which events it is made, ms since the epoch.")
    version: int = Field(description="Grows with every write.")


class FeaturesNow(BaseModel):
    """Every current feature value of a user or an item; none for one that nothing is known of."""

    entity: Literal["users", "items"]
    id: str
    items: list[FeatureNow]
    next: None = Field(default=None, description="All of them fit in one answer.")


class Ranked(BaseModel):
    """One entry of a ranked list."""

    item_id: str = Field(description="Who is ranked.")
    score: float = Field(description="By which it is ranked.")
    numerator: float = Field(description="Count, or clicks of a rate.")
    denominator: float = Field(description="Impressions of a rate; 0 for a count.")


class RankedNow(BaseModel):
    """The current ranked list of one key; empty when there is none."""

    feature: str
    key: str
    definition: str = Field(description="Hash of the definition in force.")
    event_time: int | None = Field(
        description="Up to which events it is made, ms since the epoch; null without a list."
    )
    version: int | None = Field(description="Grows with every write; null without a list.")
    items: list[Ranked]
    next: None = Field(default=None, description="All of them fit in one answer.")


class FeatureRoutes:
    """The routes below GET /v1/features.

    Args:
        redis: where values stand.
        current: the definitions in force.
        deadline_seconds: for Redis.
        now_ms: the clock.
    """

    def __init__(
        self, redis: RedisReader, current: Current, deadline_seconds: float, now_ms: Callable[[], Millis]
    ) -> None:
        self._redis, self._current, self._deadline, self._now_ms = redis, current, deadline_seconds, now_ms

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1/features", tags=["features"])
        router.add_api_route(
            "/top/{feature}/{key:path}",
            self.top,
            response_model=RankedNow,
            responses=dict(problem_answers((404,)).items()),
            summary="The current ranked list of a key",
        )
        router.add_api_route(
            "/{entity}/{id:path}",
            self.of,
            response_model=FeaturesNow,
            summary="Every current feature value of a user or an item",
        )
        return router

    async def of(
        self,
        entity: Annotated[Literal["users", "items"], Path(description="Whose features.")],
        id: Annotated[str, Path(description="Id of the user or item.", min_length=1)],  # noqa: A002  # named as in the path
    ) -> FeaturesNow:
        """Values with the time up to which they are made and their version; sequences trimmed to their window by now."""
        in_force = self._current.in_force
        if entity == "users":
            key, fields = user_key(id), in_force.user_fields
        else:
            key, fields = item_key(id), in_force.item_fields
        views: dict[str, FeatureValue] = {}
        for answer in await self._read(read_fields(fields, [key])):
            views = trimmed(feature_values(fields, answer), self._now_ms(), in_force.windows)
        return FeaturesNow(entity=entity, id=id, items=[_now_of(name, view) for name, view in sorted(views.items())])

    async def top(
        self,
        feature: Annotated[str, Path(description="Name of the feature.", examples=["top_ads_by_segment"])],
        key: Annotated[str, Path(description="Its key's values joined by |.", examples=["China|male|100"])],
    ) -> RankedNow:
        """The list with the time up to which it is made; % and | inside a value are written %25 and %7C."""
        lists = self._current.in_force.ranked
        definition = lists.get(feature)
        if definition is None:
            known = ", ".join(sorted(lists)) or "none"
            raise ProblemError(404, f"feature: no ranked list is called {feature}; there are: {known}", field="feature")
        ranked = ranked_list((await self._read([("HGET", f"top:{feature}:{key}", definition)]))[0])
        return RankedNow(
            feature=feature,
            key=key,
            definition=definition,
            event_time=ranked.event_time if ranked else None,
            version=ranked.version if ranked else None,
            items=[_ranked(m) for m in ranked.members] if ranked else [],
        )

    async def _read(self, commands: list[Command]) -> list[Any]:
        try:
            return await self._redis.read(commands, self._deadline)
        except RedisAwayError as error:
            raise ProblemError(503, f"Redis is away: {error}", retry_after_seconds=2.0) from error


def _now_of(name: str, view: FeatureValue) -> FeatureNow:
    return FeatureNow(
        feature=name, definition=view.definition, value=view.value, event_time=view.event_time, version=view.version
    )


def _ranked(m: RankedMember) -> Ranked:
    return Ranked(item_id=m.member, score=m.score, numerator=m.numerator, denominator=m.denominator)
