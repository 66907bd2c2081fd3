"""What a feature log says of a request, as the store keeps it. Feature values stay JSON text all the way."""

from dataclasses import dataclass

import msgspec
from headrace_core.contracts import FeatureLog


class _Stored(msgspec.Struct):
    user: msgspec.Raw
    context: msgspec.Raw
    items: dict[str, msgspec.Raw]


_decode_stored = msgspec.json.Decoder(_Stored).decode


@dataclass(frozen=True, slots=True)
class Served:
    """Features and scores of one request.

    Attributes:
        user, context: JSON objects.
        items: JSON object by item.
        scores: (score, propensity) by item; an item that the log does not name has (0, 0).
        model, model_version, feature_set_version: what served.
    """

    user: bytes
    context: bytes
    items: dict[str, bytes]
    scores: dict[str, tuple[float, float]]
    model: str
    model_version: int
    feature_set_version: int

    @classmethod
    def from_log(cls, raw: bytes) -> "Served":
        """Decode a FeatureLog."""
        log = FeatureLog.FromString(raw)
        items: dict[str, bytes] = {}
        scores: dict[str, tuple[float, float]] = {}
        for item in log.items:
            items[item.item_id] = item.features or b"{}"
            scores[item.item_id] = (item.score, item.propensity)
        return cls(
            log.user_features or b"{}", log.context_features or b"{}", items, scores,
            log.model, log.model_version, log.feature_set_version,
        )  # fmt: skip

    @classmethod
    def from_row(cls, text: bytes, model: str, model_version: int, feature_set_version: int) -> "Served":
        """Read back what `stored` wrote; scores are in the row's own columns."""
        stored = _decode_stored(text)
        items = {k: bytes(v) for k, v in stored.items.items()}
        return cls(bytes(stored.user), bytes(stored.context), items, {}, model, model_version, feature_set_version)

    def stored(self) -> bytes:
        """JSON text for the row."""
        items = b",".join(b"%s:%s" % (msgspec.json.encode(k), v) for k, v in self.items.items())
        return b'{"user":%s,"context":%s,"items":{%s}}' % (self.user, self.context, items)

    def features(self, item_id: str) -> bytes:
        """JSON text of one sample's features."""
        item = self.items.get(item_id, b"{}")
        return b'{"user":%s,"context":%s,"item":%s}' % (self.user, self.context, item)
