"""How far a job is, over all its workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace_core.contracts.time import Millis

if TYPE_CHECKING:
    import asyncpg


@dataclass(frozen=True, slots=True)
class Progress:
    """Where all partitions of a job have come to, at one moment.

    Attributes:
        watermark: lowest of the partitions that have had events, ms since the epoch; None before the first event.
        seqs: by partition, the newest seq of the outbox.
        incarnation: in which the seqs count.
    """

    watermark: Millis | None
    seqs: dict[int, int]
    incarnation: int


async def read_progress(connection: "asyncpg.Connection[asyncpg.Record]", job: str) -> Progress:
    """What is committed; everything at or before the watermark is in the tables and in the outbox up to the seqs."""
    rows = await connection.fetch(
        "SELECT partition, watermark, next_seq, (SELECT incarnation FROM runtime.incarnation) AS incarnation "
        "FROM runtime.partitions WHERE job = $1",
        job,
    )
    marks = [r["watermark"] for r in rows if r["watermark"] is not None]
    return Progress(
        min(marks, default=None),
        {r["partition"]: r["next_seq"] - 1 for r in rows},
        rows[0]["incarnation"] if rows else 1,
    )
