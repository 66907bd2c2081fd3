"""Whether Redis still holds what was shown.

Values are written when they change, so a Redis that lost its data would stay without those that do not. Beside the values of
each job's partition stands a mark without an end of life; where it is missing, the values are, too. The worker then ends and
is started again: a claim shows what the state holds, and reads a catalog from its beginning.
"""

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0


class Shown:
    """The marks of a process's partitions."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        """Keep marks in the Redis at `url`."""
        timeout = timeout_ms / 1000
        self._redis = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._known: set[str] = set()

    async def lacking(self, job: str, partitions: Sequence[int]) -> set[int]:
        """Partitions without a mark; none while Redis is away: it is looked at again when it is back."""
        keys = [_key(job, n) for n in partitions]
        try:
            gone = set(await self._gone(keys))
        except (RedisError, OSError):
            gone = set()
        self._known |= set(keys) - gone
        return {n for n, k in zip(partitions, keys, strict=True) if k in gone}

    async def mark(self, job: str, partitions: Sequence[int]) -> None:
        """Mark partitions. Before their values are written: data that are lost in between take the mark along.

        Raises:
            redis.exceptions.RedisError: Redis is away.
        """
        fresh = [k for k in (_key(job, n) for n in partitions) if k not in self._known]
        if fresh:
            pipeline = self._redis.pipeline(transaction=False)
            for key in fresh:
                pipeline.set(key, b"1")
            await pipeline.execute()
            self._known.update(fresh)

    async def watch(self) -> None:
        """End the process, as SIGTERM does, once a mark is gone."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                gone = await self._gone(sorted(self._known))
            except (RedisError, OSError):
                continue  # whoever writes tells
            if gone:
                log.warning("Redis lost its data: starts again to show everything", extra={"fields": {"marks": gone}})
                signal.raise_signal(signal.SIGTERM)
                return

    async def _gone(self, keys: Sequence[str]) -> list[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(key)
        return [k for k, found in zip(keys, await pipeline.execute(), strict=True) if not found] if keys else []


def _key(job: str, partition: int) -> str:
    return f"shown:{job}:{partition}"
