"""OpenAPI of the hot routes, made from the same structs that decode them, so the page can't tell another story."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace_gateway.catalog.schema import CatalogAccepted, ItemIn, ItemsIn, UserIn, UsersIn
from headrace_gateway.events.schema import EventsAccepted, EventsIn
from headrace_gateway.ranking.schema import RankedAnswer, RankIn, RecommendIn

_REF: Final = "#/components/schemas/{name}"

PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457 problem document.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong, where, and what to do; begins with the field."},
        "scope": {"type": "string", "description": "403: the scope that a key needs for it."},
        "field": {"type": ["string", "null"], "description": "The field at fault."},
        "request_id": {"type": "string", "description": "Names the request in the gateway's log."},
        "accepted": {"type": "integer", "description": "Events: 0, when none was taken."},
        "rejected": {
            "type": "array",
            "description": "Events: those that were not taken.",
            "items": {"$ref": "#/components/schemas/Rejected"},
        },
        "acknowledged": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Events, 503: indices of those that are in Kafka all the same.",
        },
    },
}

_PROBLEMS: Final = {
    401: "No key, an unknown or an expired one; not while no keys are configured.",
    403: "The key is for something else; `scope` names what is needed.",
    404: "No such route: also for an id of dots, which clients take out of an address.",
    405: "The route knows another method.",
    408: "The body took too long to come.",
    413: "Larger than the limit that the detail names.",
    422: "Not understood; the detail names the field.",
    429: "Too much at once; nothing was done, try again after Retry-After seconds.",
    500: "A fault of the gateway; its log names it by request_id.",
    503: "A store that is needed is away; try again after Retry-After seconds.",
}
_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route and how it is documented."""

    method: str
    path: str
    operation: str
    tag: str
    summary: str
    description: str
    takes: type
    gives: type
    status: int
    example: dict[str, Any]
    answer: dict[str, Any]
    problems: tuple[int, ...]


_NOW: Final = 1_795_536_000_000
_REQUEST_ID: Final = "019f0c3a-5c00-7a11-8e62-3d1f6b7c9a01"
_WRITE_PROBLEMS: Final = (401, 403, 408, 413, 422, 429, 500, 503)
_READ_PROBLEMS: Final = (401, 403, 408, 413, 422, 429, 500)
_PUT_PROBLEMS: Final = (404, *_WRITE_PROBLEMS)
_USER: Final = {"user_id": "10001", "country": "China", "gender": "male", "city": "Hangzhou"}
_ITEM: Final = {"item_id": "2002", "item_type": "ad", "category": "shoes", "title": "Running shoes", "available": True}
_RANKED: Final = {
    "request_id": _REQUEST_ID,
    "items": [{"item_id": "2002", "score": 0.137, "position": 0, "source": "top_ads_by_segment"}],
    "model": "",
    "model_version": 0,
    "feature_set_version": 0,
    "degraded": ["no_model"],
}

ROUTES: Final = (
    HotRoute(
        "post",
        "/v1/events",
        "postEvents",
        "events",
        "Take behaviour events",
        "Up to 1,000 events. 202 once Kafka has acknowledged every accepted one; faults of single events are listed in "
        "`rejected`. 422 with the same list when none was good. 503 when Kafka is away: `acknowledged` names those it took all "
        "the same, send the others again under the same event_id. If sent_at is off from the gateway's clock by more than "
        "HEADRACE_MAX_CLOCK_SKEW, the event's time is shifted by the difference.",
        EventsIn,
        EventsAccepted,
        202,
        {
            "events": [
                {
                    "event_id": "e-1",
                    "user_id": "10001",
                    "event_time": _NOW,
                    "action": "click",
                    "item_id": "2002",
                    "item_type": "ad",
                    "page_id": "100",
                    "request_id": _REQUEST_ID,
                    "position": 0,
                }
            ]
        },
        {"accepted": 1, "rejected": []},
        _WRITE_PROBLEMS,
    ),
    HotRoute(
        "post",
        "/v1/recommend",
        "recommend",
        "recommendations",
        "Recommend items to a user",
        "Popular items while no model is deployed (model_version 0). `degraded` names what was missing; the answer is never 5xx "
        "because a store is away, and holds fewer items than asked for when there are no more.",
        RecommendIn,
        RankedAnswer,
        200,
        {"user_id": "10001", "page_id": "100", "count": 10, "item_type": "ad"},
        _RANKED,
        _READ_PROBLEMS,
    ),
    HotRoute(
        "post",
        "/v1/rank",
        "rank",
        "recommendations",
        "Rank a caller's own candidates",
        "Up to 500 candidates; all come back unless `count` says less. Unknown users and items are ranked with defaults.",
        RankIn,
        RankedAnswer,
        200,
        {"user_id": "10001", "page_id": "100", "candidates": ["2002", "2003"]},
        {**_RANKED, "items": [{**_RANKED["items"][0], "source": "candidates"}]},  # type: ignore[index]  # a literal above
        _READ_PROBLEMS,
    ),
    HotRoute(
        "put",
        "/v1/users/{id}",
        "putUser",
        "catalog",
        "Write a user",
        "202 once Kafka has the entry and Redis shows it. It replaces the former entry whole.",
        UserIn,
        CatalogAccepted,
        202,
        _USER,
        {"accepted": 1, "versions": [17]},
        _PUT_PROBLEMS,
    ),
    HotRoute(
        "post",
        "/v1/users:batch",
        "postUsers",
        "catalog",
        "Write up to 1,000 users",
        "All or, when one is wrong, none.",
        UsersIn,
        CatalogAccepted,
        202,
        {"users": [_USER]},
        {"accepted": 1, "versions": [17]},
        _WRITE_PROBLEMS,
    ),
    HotRoute(
        "put",
        "/v1/items/{id}",
        "putItem",
        "catalog",
        "Write an item",
        "202 once Kafka has the entry and Redis shows it. It replaces the former entry whole.",
        ItemIn,
        CatalogAccepted,
        202,
        _ITEM,
        {"accepted": 1, "versions": [17]},
        _PUT_PROBLEMS,
    ),
    HotRoute(
        "post",
        "/v1/items:batch",
        "postItems",
        "catalog",
        "Write up to 1,000 items",
        "All or, when one is wrong, none.",
        ItemsIn,
        CatalogAccepted,
        202,
        {"items": [_ITEM]},
        {"accepted": 1, "versions": [17]},
        _WRITE_PROBLEMS,
    ),
)


def problem_answers(statuses: tuple[int, ...]) -> dict[str, Any]:
    """Responses of an operation that may fail so."""
    answers: dict[str, Any] = {}
    for status in statuses:
        answers[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
        if status in {429, 503}:
            answers[str(status)]["headers"] = _RETRY_AFTER
    return answers


def add_hot_routes(document: dict[str, Any]) -> None:
    """Write the hot routes into an OpenAPI document."""
    kinds = dict.fromkeys(kind for route in ROUTES for kind in (route.takes, route.gives))
    _, schemas = msgspec.json.schema_components(list(kinds), ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
    document["components"]["schemas"]["Problem"] = PROBLEM
    for route in ROUTES:
        document["paths"].setdefault(route.path, {})[route.method] = _operation(route)


def _operation(route: HotRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(name=route.takes.__name__)},
                    "example": route.example,
                }
            },
        },
        "responses": {
            str(route.status): {
                "description": "Done.",
                "content": {
                    "application/json": {
                        "schema": {"$ref": _REF.format(name=route.gives.__name__)},
                        "example": route.answer,
                    }
                },
            },
            **problem_answers(route.problems),
        },
    }
    if "{id}" in route.path:
        operation["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1, "maxLength": 256},
                "description": "The id; the body's, if told, must agree.",
            }
        ]
    return operation
