"""The features of one request, as a model is asked with them and as they are logged: the same objects, each made once."""

from typing import Any, Final

from headrace_core.contracts import Millis

from headrace_gateway.catalog.entries import NO_ITEM
from headrace_gateway.ranking.evidence import Items, Request, plain
from headrace_gateway.ranking.lists import NO_LISTS, Lists

_HOUR_MS: Final = 3_600_000


class Features:
    """What is known of a request's user, context and items; made when somebody asks for it.

    Args:
        context: what the caller told of the request; page and hour are not his to tell.
        page_id: for which page.
        event_time: of the request, ms since the epoch.
        request: what is known of the user.
        items: what is known of the items.
        lists: the ranked lists that were read.
    """

    __slots__ = ("_context", "_event_time", "_items", "_lists", "_made", "_page_id", "_request", "_user")

    def __init__(  # noqa: PLR0913, PLR0917  # all that a request read comes together here
        self,
        context: dict[str, Any],
        page_id: str,
        event_time: Millis,
        request: Request,
        items: Items,
        lists: Lists = NO_LISTS,
    ) -> None:
        self._context, self._page_id, self._event_time = context, page_id, event_time
        self._request, self._items, self._lists = request, items, lists
        self._made: dict[str, dict[str, Any]] = {}
        self._user: dict[str, Any] | None = None

    @property
    def user(self) -> dict[str, Any]:
        """Of the user: attributes and feature values by name."""
        if self._user is None:
            self._user = {**self._request.user.segment, **plain(self._request.views)}
        return self._user

    @property
    def context(self) -> dict[str, Any]:
        """Of the request: what the caller told, page and hour."""
        return {**self._context, "page_id": self._page_id, "hour": self._event_time // _HOUR_MS % 24}

    def item(self, item_id: str) -> dict[str, Any]:
        """Of an item: attributes, feature values by name, and what the ranked lists say of it."""
        found = self._made.get(item_id)
        if found is None:
            entry = self._items.entries.get(item_id, NO_ITEM)
            found = dict(entry.attributes)
            if entry.known:
                found["item_type"], found["category"] = entry.item_type, entry.category
            found.update(plain(self._items.views.get(item_id, {})))
            found.update(self._lists.features(item_id))
            self._made[item_id] = found
        return found
