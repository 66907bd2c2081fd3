"""Catalog entries as the process uses them."""

from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError
from headrace_core.contracts import Item, User
from headrace_core.stores.redis_views import unpack

#: Version and event time that stand before every payload in Redis.
HEAD_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user of the catalog.

    Attributes:
        segment: country, gender, city as far as told, and the user's other attributes by their names.
    """

    segment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemEntry:
    """An item of the catalog.

    Attributes:
        item_type: goods, article, video, ad or another.
        category: of the item.
        available: whether it may be recommended.
        attributes: anything else.
        known: False for what stands in for an item that the catalog does not have.
    """

    item_type: str = ""
    category: str = ""
    available: bool = True
    attributes: dict[str, str] = field(default_factory=dict)
    known: bool = True


NO_USER: Final = UserEntry()
NO_ITEM: Final = ItemEntry(known=False)


def user_of(raw: bytes | None) -> UserEntry:
    """A user from Redis' bytes; one that is absent, erased or unreadable is as good as unknown."""
    if raw is None or len(raw) <= HEAD_BYTES:
        return NO_USER
    try:
        user = User.FromString(unpack(raw).payload)
    except DecodeError:
        return NO_USER
    known = {"country": user.country, "gender": user.gender, "city": user.city}
    return UserEntry(dict(user.attributes) | {name: value for name, value in known.items() if value})


def item_of(raw: bytes | None) -> ItemEntry:
    """An item from Redis' bytes, likewise."""
    if raw is None or len(raw) <= HEAD_BYTES:
        return NO_ITEM
    try:
        item = Item.FromString(unpack(raw).payload)
    except DecodeError:
        return NO_ITEM
    return ItemEntry(item.item_type, item.category, item.available, dict(item.attributes))
