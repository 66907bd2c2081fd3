"""What the routes of recommendation take and give."""

from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_gateway.text import Id, Scalars, Word

MAX_CANDIDATES = 500
MAX_EXCLUDED = 10_000
MAX_COUNT = 100

#: Reasons in `degraded` why popularity scored.
NO_MODEL = "no_model"
MODEL_UNAVAILABLE = "model_unavailable"
WITHOUT_MODEL = (NO_MODEL, MODEL_UNAVAILABLE)


class RecommendIn(msgspec.Struct, forbid_unknown_fields=True):
    """Who asks, where, and for what."""

    user_id: Annotated[Id, Meta(description="Who asks; one the catalog does not know is served with defaults.")]
    page_id: Annotated[str, Meta(min_length=1, max_length=256, description="Page that shows the answer.")]
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="How many items at most.")] = 10
    item_type: Annotated[Word, Meta(description="Only items of this type.")] | None = None
    categories: Annotated[list[Word], Meta(max_length=100, description="Only items of these.")] | None = None
    context: Annotated[
        Scalars, Meta(description="What the caller knows of the request: a flat map, logged as told.")
    ] = {}
    exclude: Annotated[list[Word], Meta(max_length=MAX_EXCLUDED, description="Items not to be returned.")] = []


class RankIn(msgspec.Struct, forbid_unknown_fields=True):
    """As a recommendation, among the caller's candidates."""

    user_id: Annotated[Id, Meta(description="Who asks; one the catalog does not know is served with defaults.")]
    page_id: Annotated[str, Meta(min_length=1, max_length=256, description="Page that shows the answer.")]
    candidates: Annotated[
        list[Id],
        Meta(description="Items to rank; a repeated one counts once.", extra_json_schema={"maxItems": MAX_CANDIDATES}),
    ]
    count: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES, description="How many at most; all without it.")] | None = None
    item_type: Annotated[Word, Meta(description="Leaves out items known to be of another type.")] | None = None
    categories: (
        Annotated[list[Word], Meta(max_length=100, description="Leaves out items known to be of others.")] | None
    ) = None
    context: Annotated[
        Scalars, Meta(description="What the caller knows of the request: a flat map, logged as told.")
    ] = {}
    exclude: Annotated[list[Word], Meta(max_length=MAX_EXCLUDED, description="Items not to be returned.")] = []


class RankedItem(msgspec.Struct, gc=False):
    """One returned item."""

    item_id: str
    score: Annotated[float, Meta(description="Orders like the probability of a click, in (0, 1).")]
    position: Annotated[int, Meta(description="Place in the answer, from 0.")]
    source: Annotated[str, Meta(description="Who brought it: a ranked list's name, catalog or candidates.")]


class RankedAnswer(msgspec.Struct, gc=False):
    """Answer of /v1/recommend and /v1/rank."""

    request_id: Annotated[str, Meta(description="UUIDv7; impressions and actions of the answer carry it.")]
    items: list[RankedItem]
    model: Annotated[str, Meta(description="Name of the model that scored; empty while popularity does.")]
    model_version: Annotated[int, Meta(description="0 while no model is deployed.")]
    feature_set_version: Annotated[int, Meta(description="Version of the set of features that was read.")]
    degraded: Annotated[list[str], Meta(description="What was missing; empty when nothing was.")]
