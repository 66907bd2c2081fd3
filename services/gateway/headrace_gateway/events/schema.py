"""What POST /v1/events takes."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace_gateway.text import Count, Id, MaybeId, Place, Text, Time, Word, Words

MAX_EVENTS = 1_000

ActionName = Literal["impression", "click", "view", "favorite", "cart", "consult", "comment", "purchase", "search"]


class EventIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One thing that one user did. item_id is required too, except for a search."""

    event_id: Annotated[Id, Meta(description="Unique per event; a repeated id is the same event sent again.")]
    user_id: Annotated[Id, Meta(description="Who did it.")]
    event_time: Annotated[Time, Meta(description="When it happened, ms since the epoch, by the client's clock.")]
    action: Annotated[ActionName, Meta(description="What was done.")]
    item_id: Annotated[MaybeId, Meta(description="On which item.")] = ""
    item_type: Annotated[Word, Meta(description="goods, article, video or ad; open to others.")] = ""
    category: Annotated[Word, Meta(description="Of the item; from the catalog unless told.")] = ""
    page_id: Annotated[Word, Meta(description="Page on which it happened.")] = ""
    request_id: Annotated[Word, Meta(description="The answer that showed the item; empty for organic behaviour.")] = ""
    position: Annotated[Place, Meta(description="Place in the list, from 0.")] = 0
    view_id: Annotated[Word, Meta(description="Names one look at an item; its longest dwell counts.")] = ""
    dwell_ms: Annotated[Count, Meta(description="How long the item was looked at.")] = 0
    query: Annotated[Text, Meta(description="Searched words.")] = ""
    corrects: Annotated[Word, Meta(description="event_id of the event that this one cancels.")] = ""
    sent_at: Annotated[Time, Meta(description="The client's clock when this body was sent, ms since the epoch.")] = 0
    segment: Annotated[Words, Meta(description="User attributes the client knows; they go before the catalog's.")] = {}
    attributes: Annotated[Words, Meta(description="Anything else to keep.")] = {}


class EventsIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The envelope, all events at once: the way of a body without faults."""

    events: Annotated[list[EventIn], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_EVENTS})]


class EventsApart(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The envelope with its events unread: the way of a body with faults, which are then told one by one."""

    events: list[msgspec.Raw]


class Rejected(msgspec.Struct, gc=False):
    """An event that was not taken."""

    index: Annotated[int, Meta(description="Its place in the call, from 0.")]
    reason: Annotated[str, Meta(description="What is wrong; begins with the field's name.")]


class EventsAccepted(msgspec.Struct):
    """Answer of POST /v1/events: the accepted ones are in Kafka."""

    accepted: Annotated[int, Meta(description="How many events were taken.")]
    rejected: Annotated[list[Rejected], Meta(description="Those that were not.")]
