"""What goes to the gateway and comes back. Times are ms since the epoch; a field that a newer gateway adds is ignored."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Action = Literal["impression", "click", "view", "favorite", "cart", "consult", "comment", "purchase", "search"]
Scalar = str | int | float | bool


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thing that one user did.

    Attributes:
        event_id: unique per event; sent again it is the same event and counts once.
        user_id: who did it.
        event_time: when, ms since the epoch.
        action: what.
        item_id: on which item; required for all but a search.
        item_type: goods, article, video, ad or another; from the catalog unless told.
        category: of the item; from the catalog unless told.
        page_id: page on which it happened.
        request_id: the answer that showed the item; empty for organic behaviour.
        position: place in the list, from 0.
        view_id: names one look at an item.
        dwell_ms: how long it was looked at.
        query: searched words.
        corrects: event_id of the event that this one cancels.
        sent_at: the client's clock at the sending, by which the gateway corrects a clock that is off.
        segment: user attributes that the client knows; they go before the catalog's.
        attributes: anything else to keep.
    """

    event_id: str
    user_id: str
    event_time: int
    action: Action
    item_id: str = ""
    item_type: str = ""
    category: str = ""
    page_id: str = ""
    request_id: str = ""
    position: int = 0
    view_id: str = ""
    dwell_ms: int = 0
    query: str = ""
    corrects: str = ""
    sent_at: int = 0
    segment: Mapping[str, str] = {}
    attributes: Mapping[str, str] = {}


class User(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A catalog entry of a user; it replaces the former one whole."""

    user_id: str
    country: str = ""
    gender: str = ""
    city: str = ""
    attributes: Mapping[str, Scalar] = {}


class Item(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A catalog entry of an item; it replaces the former one whole. An item that is not available is not recommended."""

    item_id: str
    item_type: str = ""
    category: str = ""
    title: str = ""
    available: bool = True
    created_at: int = 0
    attributes: Mapping[str, Scalar] = {}


class Asked(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Body of a recommendation or a ranking; the arguments of `Client.recommend` and `Client.rank`."""

    user_id: str
    page_id: str
    count: int | None = None
    candidates: list[str] | None = None
    item_type: str | None = None
    categories: list[str] | None = None
    context: Mapping[str, Scalar] = {}
    exclude: list[str] = []


class RankedItem(msgspec.Struct, gc=False):
    """One returned item; scores order like the probability of a click."""

    item_id: str
    score: float
    position: int
    source: str


class Ranking(msgspec.Struct):
    """Answer of a recommendation or a ranking.

    Attributes:
        request_id: impressions and actions of the answer carry it.
        items: best first.
        model: that scored; empty while popularity does.
        model_version: 0 while no model is deployed.
        feature_set_version: of the features that were read.
        degraded: what was missing; empty when nothing was.
    """

    request_id: str
    items: list[RankedItem]
    model: str
    model_version: int
    feature_set_version: int
    degraded: list[str]


class Rejection(msgspec.Struct, gc=False):
    """An event that was not taken, by its index among those given to the call."""

    index: int
    reason: str


class EventsResult(msgspec.Struct):
    """What became of events: `accepted` of them are in Kafka, the others are in `rejected` and will never be."""

    accepted: int
    rejected: list[Rejection]


class Feature(msgspec.Struct):
    """The current value of a feature, made of events up to event_time; version grows with every write."""

    feature: str
    definition: str
    value: Any
    event_time: int
    version: int


class FeaturesOf(msgspec.Struct):
    """Every current feature value of a user or an item."""

    entity: str
    id: str
    items: list[Feature]


class RankedListEntry(msgspec.Struct, gc=False):
    """One entry of a ranked list."""

    item_id: str
    score: float
    numerator: float
    denominator: float


class RankedList(msgspec.Struct):
    """The current ranked list of a key; event_time and version are None while there is none."""

    feature: str
    key: str
    definition: str
    event_time: int | None
    version: int | None
    items: list[RankedListEntry]


class Readiness(msgspec.Struct):
    """Whether something useful can be served, and what of the gateway's dependencies is away."""

    status: str
    dependencies: dict[str, str]
    waiting_for: str | None = None
    items_in_memory: int = 0
