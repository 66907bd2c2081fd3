"""How far a job is, over all its workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace_core.contracts.time import Millis
from headrace_core.runtime.incarnation import read_incarnations

if TYPE_CHECKING:
    import asyncpg


@dataclass(frozen=True, slots=True)
class Progress:
    """Where all partitions of a job have come to, at one moment.

    Attributes:
        watermark: lowest of the partitions that have had events, ms since the epoch; None before the first event.
        seqs: by partition, (incarnation, seq) of the newest row of the outbox.
    """

    watermark: Millis | None
    seqs: dict[int, tuple[int, int]]


async def read_progress(connection: "asyncpg.Connection[asyncpg.Record]", job: str) -> Progress:
    """What is committed; everything at or before the watermark is in the tables and in the outbox up to the seqs."""
    rows = await connection.fetch("SELECT partition, watermark, next_seq FROM runtime.partitions WHERE job = $1", job)
    incarnations = await read_incarnations(connection, job)
    newest = {r["partition"]: r["next_seq"] - 1 for r in rows}
    return Progress(
        min((r["watermark"] for r in rows if r["watermark"] is not None), default=None),
        {n: (incarnations.of(n, seq), seq) for n, seq in newest.items()},
    )
