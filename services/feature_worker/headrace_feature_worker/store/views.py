"""Sink that shows values in Redis."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace_core.runtime.sink import OutboxMessage, Snapshot
from headrace_core.stores.redis_views import ViewStore, ViewWrite
from headrace_core.telemetry import FRESHNESS_SECONDS
from redis.asyncio import Redis

from headrace_feature_worker.metrics import DROPPED, EXPIRED
from headrace_feature_worker.operators.effects import Dropped, Expired, Show
from headrace_feature_worker.store.shown import Shown

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: At most so many of a checkpoint's values are looked at for their freshness.
_FRESHNESS_SAMPLES = 32


class ViewSink:
    """Writes `Show` effects with the checkpoint's version before the commit; nothing goes to PostgreSQL."""

    def __init__(self, url: str, timeout_ms: int, job: str = "", shown: Shown | None = None) -> None:
        """Write to the Redis at `url`; what `job` has written is marked in `shown`."""
        timeout = timeout_ms / 1000
        self._redis = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._views = ViewStore(self._redis)
        self._job, self._shown = job, shown

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()

    async def before_commit(self, snapshots: Sequence[Snapshot]) -> None:
        """Write the values."""
        if self._shown is not None:
            await self._shown.mark(self._job, [s.partition for s in snapshots])
        shows = [(s.version, e) for s in snapshots for e in s.effects if isinstance(e, Show)]
        await self._views.write(
            [
                ViewWrite(
                    e.key, e.field, version if e.version is None else e.version, e.event_time, e.payload, e.ttl_ms
                )
                for version, e in shows
            ]
        )
        now = time.time() * 1000
        timed = [e.newest for _, e in shows if e.newest]
        for newest in timed[:: max(1, len(timed) // _FRESHNESS_SAMPLES)]:
            FRESHNESS_SECONDS.labels("feature").observe(max(0.0, (now - newest) / 1000))

    async def in_transaction(
        self, connection: "PoolConnectionProxy[Any]", snapshots: Sequence[Snapshot]
    ) -> Sequence[OutboxMessage]:
        """Count what came too late or was too much, once it is certain that it will not come again."""
        del connection
        for s in snapshots:
            for e in s.effects:
                if isinstance(e, Expired):
                    EXPIRED.labels(e.feature).inc(e.count)
                elif isinstance(e, Dropped):
                    DROPPED.labels(e.feature).inc(e.count)
        return []
