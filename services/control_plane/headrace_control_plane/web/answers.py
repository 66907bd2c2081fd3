"""Answers and the parameters that lists share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Query
from starlette.responses import Response

Limit = Annotated[int, Query(ge=1, le=1_000)]


def answer(body: Any, status: int = 200) -> Response:
    """JSON."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def cursor(found: Sequence[Mapping[str, Any]], limit: int, field: str) -> int | None:
    """Where a list goes on, when one more than the limit was found."""
    return int(found[limit - 1][field]) if len(found) > limit else None
