"""When the oldest request of the sample store was made."""

from typing import TYPE_CHECKING, Final

from headrace_core.contracts import Millis

if TYPE_CHECKING:
    import asyncpg

#: The first entry of the first partition's primary key that has one. A WHERE on the request's time would make PostgreSQL read
#: all of a day to find that there is none.
_OLDEST: Final = "SELECT request_id FROM samples.requests ORDER BY day, request_id LIMIT 1"


async def oldest_request(connection: "asyncpg.Connection[asyncpg.Record]") -> Millis | None:
    """Its time, ms since the epoch, as its UUIDv7 tells it: what the trainer's ranges go by. None while there is no sample."""
    request_id = await connection.fetchval(_OLDEST)
    return None if request_id is None else request_id.int >> 80
