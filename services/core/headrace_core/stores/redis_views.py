"""Values in Redis that can't go back: every write is absolute and carries a version.

A value is stored as version (8 bytes, big-endian) + event time (8 bytes, big-endian, ms) + payload. One script compares
versions inside Redis, so a slow former owner of a partition can't overwrite what its successor wrote.

Keys (contract, see docs/contracts.md):
    u:{user_id}, i:{item_id}   hash, one field "<feature>@<definition>" per view, payload msgpack
    top:{feature}:{key}        hash, one field "<definition>" per definition in force, payload msgpack
    cat:u:{id}, cat:i:{id}     hash, field "entry", payload protobuf, version = Kafka offset of the entry
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from redis.asyncio import Redis  # services read annotations at run time
from redis.exceptions import NoScriptError

from headrace_core.contracts.time import Millis

_HEAD: Final = Struct(">qq")

#: Lua numbers are doubles and can't hold an int64, and string order depends on the locale: compare two 32-bit halves.
_WRITE: Final = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  local oh, ol = struct.unpack('>I4I4', old)
  local nh, nl = struct.unpack('>I4I4', ARGV[2])
  if oh > nh or (oh == nh and ol > nl) then return 0 end
end
local left, ttl = redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ttl == 0 then
  if left >= 0 then redis.call('PERSIST', KEYS[1]) end
elseif left ~= -1 and left < ttl then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return 1
"""

_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True)
class ViewWrite:
    """One absolute value.

    Attributes:
        key: of the Redis hash.
        field: in the hash.
        version: never smaller than that of any earlier write to this field.
        event_time: up to which events the value is made, ms since the epoch.
        payload: the value; its form is the field's own.
        ttl_ms: how long the key lives from now on, unless another field of it lives longer; 0 for ever.
    """

    key: str
    field: str
    version: int
    event_time: Millis
    payload: bytes
    ttl_ms: int = 0


class View(NamedTuple):
    """A value as read.

    Attributes:
        version: of the write.
        event_time: up to which events the value is made, ms since the epoch.
        payload: the value.
    """

    version: int
    event_time: Millis
    payload: bytes


def pack(version: int, event_time: Millis, payload: bytes) -> bytes:
    """Bytes as they stand in Redis."""
    return _HEAD.pack(version, event_time) + payload


def unpack(raw: bytes) -> View:
    """The inverse of `pack`."""
    version, event_time = _HEAD.unpack_from(raw)
    return View(version, event_time, raw[_HEAD.size :])


def user_key(user_id: str) -> str:
    """Key of a user's views."""
    return f"u:{user_id}"


def item_key(item_id: str) -> str:
    """Key of an item's views."""
    return f"i:{item_id}"


def top_key(feature: str, by: Iterable[str]) -> str:
    """Key of a ranked list; values of `by` in the definition's order, e.g. top:top_ads_by_segment:China|male|100."""
    return f"top:{feature}:" + _SEPARATOR.join(v.replace("%", "%25").replace(_SEPARATOR, "%7C") for v in by)


def catalog_user_key(user_id: str) -> str:
    """Key of a user's catalog entry."""
    return f"cat:u:{user_id}"


def catalog_item_key(item_id: str) -> str:
    """Key of an item's catalog entry."""
    return f"cat:i:{item_id}"


CATALOG_FIELD: Final = "entry"


class ViewStore:
    """Writes views. Reading is a plain HGET / HMGET / HGETALL and `unpack`."""

    def __init__(self, redis: Redis) -> None:
        """Use a client whose responses are bytes."""
        self._redis = redis
        self._sha: str | None = None

    async def write(self, writes: Sequence[ViewWrite]) -> int:
        """Write in one pipeline; give back how many were not older than what was there.

        Raises:
            redis.exceptions.RedisError: Redis is away; nothing is known of what was written, so write again.
        """
        if not writes:
            return 0
        while True:
            if self._sha is None:
                self._sha = await self._redis.script_load(_WRITE)
            pipeline = self._redis.pipeline(transaction=False)
            for w in writes:
                pipeline.evalsha(self._sha, 1, w.key, w.field, pack(w.version, w.event_time, w.payload), str(w.ttl_ms))
            try:
                return sum(await pipeline.execute())
            except NoScriptError:  # Redis was restarted and forgot its scripts
                self._sha = None
