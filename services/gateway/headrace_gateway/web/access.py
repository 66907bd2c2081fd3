"""Which scope a call needs."""

from typing import Final

#: They must answer also when the gateway is busy, and to whoever watches it.
OPERATIONS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_PAGES: Final = frozenset({"/docs", "/openapi.json"})
_ASSETS: Final = "/docs/"
_WRITES: Final = frozenset({"PUT", "POST"})


def needed(method: str, path: str) -> str | None:
    """The scope for a call; None for what is open. What nobody named needs the widest."""
    if path in OPERATIONS or path in _PAGES or path.startswith(_ASSETS):
        return None
    if path == "/v1/events":
        return "events"
    if path in {"/v1/recommend", "/v1/rank"} or path.startswith("/v1/features/"):
        return "recommend"
    if method in _WRITES and path.startswith(("/v1/users", "/v1/items")):
        return "catalog"
    return "admin"
