"""Incarnations: which line of history a sequenced message belongs to.

A database that was restored from a backup gives out again the seqs that the lost time had used, for other messages. So a
restore raises the incarnation: messages up to the backup stay in theirs, what comes after it counts in the new one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy


class Rewind(NamedTuple):
    """Where a source goes on after a restore.

    Attributes:
        incarnation: that began.
        first_seq: its first; messages of lower incarnations from here on are void.
    """

    incarnation: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Incarnations:
    """History of one job's sequences.

    Attributes:
        current: what new messages belong to.
        rewinds: by source, lowest incarnation first.
    """

    current: int = 1
    rewinds: Mapping[int, Sequence[Rewind]] = field(default_factory=dict)

    def of(self, source: int, seq: int) -> int:
        """The incarnation of a message of the table: the last one that had begun by its seq."""
        known = self.rewinds.get(source)
        if not known:
            return self.current
        return next((r.incarnation for r in reversed(known) if r.first_seq <= seq), 1)

    def is_void(self, source: int, incarnation: int, seq: int) -> bool:
        """Whether a restore took a message back; of a source that the backup did not know, it took all."""
        known = self.rewinds.get(source, (Rewind(self.current, 1),))
        return any(r.incarnation > incarnation and r.first_seq <= seq for r in known)


async def read_incarnations(connection: "asyncpg.Connection[Any] | PoolConnectionProxy[Any]", job: str) -> Incarnations:
    """What the database tells of a job."""
    current = await connection.fetchval("SELECT incarnation FROM runtime.incarnation")
    rows = await connection.fetch(
        "SELECT partition, incarnation, first_seq FROM runtime.rewinds WHERE job = $1 ORDER BY incarnation", job
    )
    rewinds: dict[int, list[Rewind]] = {}
    for row in rows:
        rewinds.setdefault(row["partition"], []).append(Rewind(row["incarnation"], row["first_seq"]))
    return Incarnations(current, rewinds)
