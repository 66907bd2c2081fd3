"""The table of events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace_core.control.records import Event, EventPage

from headrace_control_plane.store.database import Connection, Pool

SENDER: Final = "control-plane"
_COLUMNS: Final = '"offset", key, value, type, version, namespace, sender, create_time, context'


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is to be appended.

    Attributes:
        sequence: its number at the sender, for sending it again; None: it is always a new one.
    """

    key: str
    value: str
    type: str = ""
    namespace: str = "default"
    sender: str = SENDER
    sequence: int | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


async def append(connection: Connection, events: Sequence[NewEvent]) -> list[int]:
    """Append as the last statement of a transaction; the offsets in the events' order."""
    if not events:
        return []
    rows = [{name: getattr(e, name) for name in NewEvent.__slots__} for e in events]
    return list(await connection.fetchval("SELECT control.append_events($1)", rows))


async def newest(pool: Pool | Connection) -> int:
    """Offset of the newest event, 0 if there is none."""
    return int(await pool.fetchval("SELECT newest FROM control.counter"))


async def read(  # noqa: PLR0913  # filters
    pool: Pool | Connection,
    after: int,
    *,
    keys: Sequence[str] = (),
    type: str | None = None,  # noqa: A002  # the event's own word
    namespace: str | None = None,
    limit: int = 500,
) -> EventPage:
    """Events with a higher offset, oldest first; `next` is past all that was looked at."""
    top = await newest(pool)  # before the rows: everything up to it is committed
    if top <= after:
        return EventPage([], after)
    wheres = ['"offset" > $1 AND "offset" <= $2']
    values: list[Any] = [after, top, limit]
    for told, clause in ((list(keys) or None, "key = ANY(${})"), (type, "type = ${}"), (namespace, "namespace = ${}")):
        if told is not None:
            values.append(told)
            wheres.append(clause.format(len(values)))
    rows = await pool.fetch(
        f'SELECT {_COLUMNS} FROM control.events WHERE {" AND ".join(wheres)} ORDER BY "offset" LIMIT $3',  # noqa: S608  # constants
        *values,
    )
    events = [_event(row) for row in rows]
    return EventPage(events, events[-1].offset if len(events) == limit else top)


async def newest_of(pool: Pool | Connection, keys: Sequence[str], limit: int) -> list[Event]:
    """The newest events of these keys, newest first."""
    query = f'SELECT {_COLUMNS} FROM control.events WHERE key = ANY($1) ORDER BY "offset" DESC LIMIT $2'  # noqa: S608  # constants
    return [_event(row) for row in await pool.fetch(query, list(keys), limit)]


async def by_offset(pool: Pool | Connection, offsets: Sequence[int]) -> dict[int, Event]:
    """Events by their offsets."""
    query = f'SELECT {_COLUMNS} FROM control.events WHERE "offset" = ANY($1)'  # noqa: S608  # constants
    rows = await pool.fetch(query, list(offsets))
    return {row["offset"]: _event(row) for row in rows}


def _event(row: Mapping[str, Any]) -> Event:
    return Event(**dict(row))


async def published(connection: Pool | Connection) -> int:
    """Everything up to this offset is in Kafka."""
    return int(await connection.fetchval("SELECT published FROM control.relay"))


async def mark_published(connection: Pool | Connection, offset: int) -> None:
    """Everything up to this offset is in Kafka."""
    await connection.execute("UPDATE control.relay SET published = greatest(published, $1)", offset)
