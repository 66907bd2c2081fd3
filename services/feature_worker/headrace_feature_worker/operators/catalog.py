"""Catalog entries on their way to Redis."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from headrace_core.contracts import Millis
from headrace_core.runtime.operator import Batch, Output
from headrace_core.stores.redis_views import CATALOG_FIELD

from headrace_feature_worker.operators.effects import Show


class CatalogOperator:
    """Shows the newest entry of each id. It has no state: an entry's version is its offset, and compaction keeps the newest.

    An entry without a value takes the id out of the catalog: it is shown as an empty value, so that an older one can't
    come back.
    """

    def __init__(self, message: Any, redis_key: Callable[[str], str]) -> None:
        """Show entries that are `message`s under `redis_key` of their id."""
        self._message, self._redis_key = message, redis_key

    def process(self, batch: Batch, out: Output) -> None:
        """Take the next entries."""
        for record in batch.records:
            try:
                name = (record.key or b"").decode()
                self._message.FromString(record.value or b"")
            except (DecodeError, UnicodeDecodeError) as error:
                out.reject(batch.topic, record, f"not a catalog entry: {error}")
                continue
            if not name:
                out.reject(batch.topic, record, "incomplete: the key is the id")
                continue
            out.observe(record.timestamp)
            key = self._redis_key(name)
            out.emit(Show(key, CATALOG_FIELD, record.timestamp, record.value or b"", version=record.offset))

    def advance(self, watermark: Millis, out: Output) -> None:
        """Nothing waits for time."""

    def flush(self, out: Output) -> None:
        """Everything was emitted at once."""

    def changes(self) -> bytes | None:
        """No state."""
        return None

    def snapshot(self) -> bytes:
        """No state."""
        return b""

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """No state."""
