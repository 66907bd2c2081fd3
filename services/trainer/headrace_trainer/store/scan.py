"""The bulk scan: all samples of the store as of one moment, and the seqs of the change stream that they include."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
from headrace_core.contracts import Millis
from headrace_core.learning.inputs import Shown
from headrace_core.runtime.incarnation import Incarnations, read_incarnations

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_CHUNK: Final = 1_000
_JOB: Final = "sample-joiner"
#: A change may seem to be published so much before its request was made, by two machines' clocks.
_CLOCKS_MS: Final = 60_000
_LARGEST: Final = UUID(int=(1 << 128) - 1)


class _Log(msgspec.Struct):
    user: dict[str, Any]
    context: dict[str, Any]
    items: dict[str, dict[str, Any]]


_decode = msgspec.json.Decoder(_Log).decode


class ScannedRequest(NamedTuple):
    """A request with its samples.

    Attributes:
        request_id: of the request.
        shown: features of its published items.
        labels: masks, one per item.
        event_time: of the newest impression, ms since the epoch.
        feature_set_version: that served it.
    """

    request_id: str
    shown: Shown
    labels: list[int]
    event_time: Millis
    feature_set_version: int


@dataclass(frozen=True, slots=True)
class Scan:
    """A snapshot of the store.

    Attributes:
        seqs: per source, (incarnation, seq) of the last change that the snapshot includes.
        resume: per source, (incarnation, seq) after which increments go on: behind it no change is of a request that the scan
            leaves out because it is too new.
        until: end of the scanned requests' times, ms since the epoch; 0 for none.
        taken_at: by the database's clock, ms since the epoch; every later change is published after it.
        requests: about how many there are.
    """

    seqs: dict[int, tuple[int, int]]
    resume: dict[int, tuple[int, int]]
    until: Millis
    taken_at: Millis
    requests: int
    _connection: "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
    _range: tuple[UUID, UUID]

    async def read(self) -> AsyncIterator[list[ScannedRequest]]:
        """All requests in the order of their time, in chunks."""
        cursor = self._connection.cursor(
            "SELECT request_id, user_id, page_id, items, label, event_time, feature_set_version, log "
            "FROM samples.requests WHERE request_id BETWEEN $1 AND $2 AND day BETWEEN $3 AND $4 ORDER BY day, request_id",
            *self._range, *map(_day, self._range), prefetch=_CHUNK,
        )  # fmt: skip
        chunk: list[ScannedRequest] = []
        async for row in cursor:
            chunk.append(_request(row))
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


@asynccontextmanager
async def open_scan(dsn: str, since: Millis | None = None, until: Millis | None = None) -> AsyncIterator[Scan]:
    """A snapshot of all requests between two times (ms since the epoch; the end is not included).

    One REPEATABLE READ transaction reads seqs and rows: a sample is in the rows exactly if its change has a seq up to these.
    """
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            incarnations = await read_incarnations(connection, _JOB)
            rows = await connection.fetch("SELECT partition, next_seq FROM runtime.partitions WHERE job = $1", _JOB)
            taken_at = await connection.fetchval("SELECT (extract(epoch FROM now()) * 1000)::bigint")
            between = _bounds(since, until)
            count = await connection.fetchval(
                "SELECT count(*) FROM samples.requests WHERE request_id BETWEEN $1 AND $2", *between
            )
            newest = {r["partition"]: r["next_seq"] - 1 for r in rows}
            seqs = {source: (incarnations.of(source, seq), seq) for source, seq in newest.items()}
            resume = seqs if until is None else seqs | await _resume(connection, until, incarnations)
            yield Scan(seqs, resume, until or 0, taken_at, count, connection, between)
    finally:
        await connection.close()


async def _resume(
    connection: "asyncpg.Connection[Any] | PoolConnectionProxy[Any]", until: Millis, incarnations: Incarnations
) -> dict[int, tuple[int, int]]:
    """Per source, the seq before the first change of a request that was made at `until` or later."""
    rows = await connection.fetch(
        "SELECT source, min(seq) - 1 AS seq FROM samples.changes WHERE key >= $1 AND day >= $2 GROUP BY source",
        str(UUID(int=until << 80)).encode(), _day(UUID(int=max(0, until - _CLOCKS_MS) << 80)),
    )  # fmt: skip
    return {r["source"]: (incarnations.of(r["source"], r["seq"]), r["seq"]) for r in rows}


async def read_history(dsn: str) -> Incarnations:
    """What restores of the database made void of the change stream.

    Raises:
        OSError, asyncpg.PostgresError: the database is away.
    """
    connection = await asyncpg.connect(dsn)
    try:
        return await read_incarnations(connection, _JOB)
    finally:
        await connection.close()


def _bounds(since: Millis | None, until: Millis | None) -> tuple[UUID, UUID]:
    """UUIDv7 begin with their time, ms since the epoch."""
    low = UUID(int=(since or 0) << 80)
    return low, _LARGEST if until is None else UUID(int=max(0, (until << 80) - 1))


def _day(request_id: UUID) -> date:
    ms = min(request_id.int >> 80, 253_402_300_799_000)  # the last day of year 9999
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _request(row: Any) -> ScannedRequest:
    log = _decode(row["log"])
    items = [(i, log.items.get(i, {})) for i in row["items"]]
    shown = Shown(row["user_id"], row["page_id"], log.user, log.context, items)
    return ScannedRequest(
        str(row["request_id"]), shown, row["label"], max(row["event_time"]), row["feature_set_version"]
    )
