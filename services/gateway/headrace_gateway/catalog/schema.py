"""What the catalog's routes take."""

from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_gateway.text import Id, Scalars, Text, Time, Word

MAX_ENTRIES = 1_000


class UserIn(msgspec.Struct, forbid_unknown_fields=True):
    """A user; everything but the id is optional. The entry replaces the former one whole."""

    user_id: Annotated[Id, Meta(description="Who; may be left out where the path tells it.")] | None = None
    country: Annotated[Word, Meta(description="Country, as the caller writes it.")] = ""
    gender: Annotated[Word, Meta(description="Gender, as the caller writes it.")] = ""
    city: Annotated[Word, Meta(description="City, as the caller writes it.")] = ""
    attributes: Annotated[Scalars, Meta(description="Anything else: a flat map, kept as text.")] = {}


class ItemIn(msgspec.Struct, forbid_unknown_fields=True):
    """An item; everything but the id is optional. The entry replaces the former one whole."""

    item_id: Annotated[Id, Meta(description="Which item; may be left out where the path tells it.")] | None = None
    item_type: Annotated[Word, Meta(description="goods, article, video or ad; open to others.")] = ""
    category: Annotated[Word, Meta(description="Category.")] = ""
    title: Annotated[Text, Meta(description="Title for people.")] = ""
    available: Annotated[bool, Meta(description="Whether it may be recommended.")] = True
    created_at: Annotated[Time, Meta(description="When it came into being, ms since the epoch; 0 if not told.")] = 0
    attributes: Annotated[Scalars, Meta(description="Anything else: a flat map, kept as text.")] = {}


class UsersIn(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 1,000 users."""

    users: Annotated[list[UserIn], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_ENTRIES})]


class ItemsIn(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 1,000 items."""

    items: Annotated[list[ItemIn], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_ENTRIES})]


class CatalogAccepted(msgspec.Struct):
    """Kafka has the entries and Redis shows them."""

    accepted: Annotated[int, Meta(description="How many entries were taken.")]
    versions: Annotated[list[int], Meta(description="Version of each, in order: its Kafka offset.")]
