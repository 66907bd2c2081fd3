"""Typed client of the Headrace gateway's HTTP API.

```python
from headrace_client import Client, Event

with Client("http://127.0.0.1:8080") as client:
    answer = client.recommend("u1", page_id="home", count=3)
    client.send_events(
        Event(event_id=f"{answer.request_id}:{item.item_id}", user_id="u1", event_time=now_ms, action="impression",
              item_id=item.item_id, position=item.position, request_id=answer.request_id, page_id="home")
        for item in answer.items
    )
```
"""

from headrace_client.aio import AsyncClient
from headrace_client.errors import (
    ApiError,
    BusyError,
    EventsNotAcceptedError,
    ForbiddenError,
    HeadraceError,
    InvalidError,
    NoAnswerError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from headrace_client.messages import (
    Event,
    EventsResult,
    Feature,
    FeaturesOf,
    Item,
    RankedItem,
    RankedList,
    RankedListEntry,
    Ranking,
    Readiness,
    Rejection,
    User,
)
from headrace_client.retries import Retries
from headrace_client.sync import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "BusyError",
    "Client",
    "Event",
    "EventsNotAcceptedError",
    "EventsResult",
    "Feature",
    "FeaturesOf",
    "ForbiddenError",
    "HeadraceError",
    "InvalidError",
    "Item",
    "NoAnswerError",
    "NotFoundError",
    "RankedItem",
    "RankedList",
    "RankedListEntry",
    "Ranking",
    "Readiness",
    "Rejection",
    "Retries",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "User",
]
